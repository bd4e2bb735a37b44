"""graph_of: the tape as text, DOT and SVG: every node once, every edge, shapes and lines; places that do not overlap."""

import random
import re
import xml.etree.ElementTree as ET

import pytest

import spool
from spool import nn
from spool.autograd.drawing import TapeGraph
from spool.autograd.layers import FAR, Layout

SVG = "{http://www.w3.org/2000/svg}"


def small():
    w = spool.ones(3, 2, requires_grad=True)
    b = spool.ones(2, requires_grad=True)
    x = spool.ones(4, 3)
    h = x @ w + b
    values, places = (h * h).max(1)
    return (values.sum() + w.sum()), {"w": w, "b": b}


def test_text_lists_calls_in_the_order_of_issue():
    loss, names = small()
    graph = spool.graph_of(loss, names)
    assert isinstance(graph, TapeGraph) and len(graph) == 9
    lines = str(graph).splitlines()
    assert lines[0] == "tape of %7: 2 leaves, 7 ops"
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "w = leaf float32 (3, 2)",
        "b = leaf float32 (2,)",
        "%1 = matmul(_, w) float32 (4, 2)",
        "%2 = add(%1, b) float32 (4, 2)",
        "%3 = mul(%2, %2) float32 (4, 2)",
        "%4 = max.dim(%3) float32 (4,), int64 (4,)",
        "%5 = sum(%4.0) float32 ()",
        "%6 = sum(w) float32 ()",
        "%7 = add(%5, %6) float32 ()",
    ]
    assert repr(graph) == graph.text


def test_dot_has_every_node_and_edge_once():
    loss, names = small()
    dot = spool.graph_of(loss, names, format="dot")
    assert str(dot) == dot.dot and str(dot).startswith("digraph")
    assert len(re.findall(r"^  n\d+ \[label", dot.dot, re.M)) == 9
    edges = re.findall(r"n(\d+) -> n(\d+)", dot.dot)
    assert len(edges) == 10 and len(set(edges)) == 9  # h * h takes h twice
    assert all(int(a) < int(b) for a, b in edges)


def test_svg_has_every_node_and_edge():
    loss, names = small()
    graph = spool.graph_of(loss, names, format="svg")
    assert str(graph) == graph._repr_svg_() == graph.svg
    root = ET.fromstring(graph.svg)
    assert len(root.findall(f"{SVG}g")) == 9
    assert len(root.findall(f"{SVG}path")) == 8
    tags = [t.text for t in root.iter(f"{SVG}text") if t.get("class") == "tag"]
    assert tags == ["← w"]  # at sum(w), for which w is far up
    titles = [t.text for t in root.iter(f"{SVG}text") if t.get("class") == "title"]
    assert sorted(titles) == sorted(
        ["w", "b", "matmul", "add", "mul", "max.dim", "sum", "sum", "add"]
    )
    assert [r.get("class") for r in root.iter(f"{SVG}rect")].count("result") == 1


def test_lines_are_there_in_anomaly_mode():
    x = spool.ones(2, requires_grad=True)
    with spool.autograd.detect_anomaly(check_nan=False):
        loss = (x * 2).sum()
    graph = spool.graph_of(loss)
    for form in (graph.text, graph.dot, graph.svg):
        assert "test_drawing.py:" in form and "test_lines_are_there" in form
    assert "test_drawing.py:" not in spool.graph_of((x * 2).sum()).text


def test_names_of_leaves():
    model = nn.Linear(3, 2)
    loss = model(spool.ones(3)).sum()
    for params in (model, dict(model.named_parameters()), model.named_parameters()):
        assert "linear(_, weight, bias)" in spool.graph_of(loss, params).text
    assert "linear(_, leaf1, leaf2)" in spool.graph_of(loss).text
    assert "linear(_, weight, leaf2)" in spool.graph_of(loss, {"weight": model.weight}).text


def test_several_results_and_leaves_as_results():
    x = spool.ones(2, requires_grad=True)
    y = x * 2
    graph = spool.graph_of({"a": [y.exp(), y], "x": x}, {"x": x})
    assert graph.text.splitlines()[0] == "tape of x, %1, %2: 1 leaf, 2 ops"
    assert spool.graph_of(x).text.splitlines()[0] == "tape of leaf1: 1 leaf, 0 ops"
    ET.fromstring(spool.graph_of(x).svg)


def test_text_is_escaped():
    x = spool.ones(2, requires_grad=True)
    names = {'<a & "b">\\': x}
    graph = spool.graph_of(x.exp(), names)
    texts = [t.text for t in ET.fromstring(graph.svg).iter(f"{SVG}text")]
    assert '<a & "b">\\' in texts
    assert 'label="<a & \\"b\\">\\\\\\nfloat32 (2,)"' in graph.dot


def test_save(tmp_path):
    loss, names = small()
    graph = spool.graph_of(loss, names)
    for end, form in (
        (".svg", graph.svg),
        (".dot", graph.dot),
        (".GV", graph.dot),
        (".txt", graph.text),
    ):
        path = tmp_path / f"tape{end}"
        graph.save(path)
        assert path.read_text(encoding="utf-8") == form + "\n"
    with pytest.raises(ValueError, match="end it in one of .svg"):
        graph.save(tmp_path / "tape.png")


def test_what_cannot_be_drawn():
    x = spool.ones(2, requires_grad=True)
    with pytest.raises(spool.SpoolError, match="does not require grad"):
        spool.graph_of(spool.ones(2))
    with pytest.raises(TypeError, match="loss must hold Tensors, found int"):
        spool.graph_of([x, 3])
    with pytest.raises(ValueError, match="no tensor"):
        spool.graph_of([])
    with pytest.raises(ValueError, match="format must be"):
        spool.graph_of(x, format="png")
    with pytest.raises(TypeError, match="pairs"):
        spool.graph_of(x, [x])
    with pytest.raises(TypeError, match="not a Tensor"):
        spool.graph_of(x, {"x": 1})


def test_drawing_leaves_the_tape_as_it_was():
    x = spool.ones(2, requires_grad=True)
    loss = (x * x).sum()
    spool.graph_of(loss).svg  # noqa: B018 - drawn for its effects, of which there are none
    loss.backward()
    assert x.grad.tolist() == [2, 2]


def test_inside_a_transform():
    texts = []

    def f(x):
        y = (x * x).sum()
        texts.append(spool.graph_of(y).text)
        return y

    spool.func.grad(f)(spool.ones(2))
    assert "mul(leaf1, leaf1)" in texts[0]


def test_thousands_of_nodes():
    cell = nn.RNNCell(4, 4)
    h = spool.zeros(2, 4)
    for _ in range(1000):
        h = cell(spool.ones(2, 4), h)
    graph = spool.graph_of(h.sum(), cell)
    assert len(graph) == 4005
    root = ET.fromstring(graph.svg)
    assert len(root.findall(f"{SVG}g")) == 4005
    width, height = (float(root.get(k)) for k in ("width", "height"))
    assert width < 0.1 * height
    tags = [t.text for t in root.iter(f"{SVG}text") if t.get("class") == "tag"]
    assert tags.count("← weight_hh, bias_hh") > 900  # far from where these leaves are
    assert graph.text.count("\n") == 4005


def test_a_long_chain_needs_no_deep_stack():
    x = spool.ones(1, requires_grad=True)
    y = x
    for _ in range(20_000):
        y = y * 1.0
    graph = spool.graph_of(y)
    assert len(graph) == 20_001
    assert graph.svg.endswith("</svg>")


# ---- the layout ----------------------------------------------------------------------------------------------------------


def random_graph(seed):
    rng = random.Random(seed)
    count = rng.randrange(1, 120)
    edges = [(rng.randrange(b), b) for b in range(1, count) for _ in range(rng.randrange(4))]
    return count, edges, [rng.uniform(10, 90) for _ in range(count)]


@pytest.mark.parametrize("seed", range(30))
def test_layouts_of_random_graphs(seed):
    count, edges, widths = random_graph(seed)
    layout = Layout(count, edges)
    x = layout.place(widths)
    placed = [n for row in layout.layers for n in row]
    assert sorted(placed) == list(range(len(layout.layer)))
    for i, row in enumerate(layout.layers):
        assert all(layout.layer[n] == i for n in row)
        for a, b in zip(row, row[1:]):  # in order, and apart
            half = (layout.widths[a] + layout.widths[b]) / 2
            assert x[b] - x[a] >= half + 10
    assert min(x[n] - layout.widths[n] / 2 for n in placed) == pytest.approx(0)
    for a, b in set(edges):
        assert layout.layer[a] < layout.layer[b]
        path = layout.paths.get((a, b))
        if path is None:  # named, not drawn
            assert layout.source[a] and layout.layer[b] - layout.layer[a] > FAR
            continue
        assert [layout.layer[n] for n in path] == list(range(layout.layer[a], layout.layer[b] + 1))


def test_a_tree_is_drawn_without_crossings():
    edges, leaves = [], list(range(16))
    random.Random(1).shuffle(leaves)
    row, count = leaves, 16
    while len(row) > 1:
        above, row = row, []
        for a, b in zip(above[::2], above[1::2]):
            edges += [(a, count), (b, count)]
            row.append(count)
            count += 1
    layout = Layout(count, edges)
    assert layout._crossings(layout.layers) == 0


def test_a_chain_is_drawn_straight():
    layout = Layout(50, [(i, i + 1) for i in range(49)])
    x = layout.place([30.0] * 50)
    assert max(x) - min(x) < 1e-6
