"""Saved graphs through onnx.checker and onnxruntime, loaded graphs, and files that are broken or hostile."""

import os

import numpy as np
import onnx
import onnxruntime
import pytest
from samples import (
    FULL,
    RANDOM,
    READING,
    UNSET,
    arrays_of,
    caller,
    has_complex,
    load,
    outputs,
    python_kwargs,
    tensor_at,
    tensor_positions,
    to_spool,
    with_tensors,
)

import spool

SAMPLES = [s for s in load() if s.op not in RANDOM | READING | UNSET and not has_complex(s)]
every = pytest.mark.parametrize("sample", SAMPLES, ids=[s.id for s in SAMPLES])


def as_function(sample):
    """The op as a function of its tensors alone, and these tensors."""
    args, kwargs = arrays_of(sample)
    positions = tensor_positions(args)
    op, keywords = caller(sample), python_kwargs(kwargs, spool)

    def function(*tensors):
        return op(*with_tensors(args, positions, tensors), **keywords)

    return function, [to_spool(tensor_at(args, p)) for p in positions]


def run_onnx(path, tensors):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: t.numpy() for i, t in zip(session.get_inputs(), tensors)})


@every
def test_saved_op(sample, tmp_path):
    function, tensors = as_function(sample)
    wanted = [v.numpy() for v in outputs(function(*tensors))]
    path = tmp_path / "op.onnx"
    spool.onnx.save(function, tuple(tensors), path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    loaded = spool.onnx.load(path)
    for value, right in zip(outputs(loaded(*tensors)), wanted):
        np.testing.assert_allclose(value.numpy(), right, rtol=1e-5, atol=1e-6)
    if any(node.domain == "spool" for node in model.graph.node):
        pytest.skip("in the domain spool: other runtimes do not know it")
    for value, right in zip(run_onnx(path, tensors), wanted):
        assert value.dtype == right.dtype and value.shape == right.shape
        np.testing.assert_allclose(value, right, rtol=1e-5, atol=1e-6)


def mlp():
    rng = np.random.default_rng(0)
    w1, b1, w2 = (
        spool.tensor(rng.normal(size=s).astype(np.float32)) for s in [(16, 8), (16,), (4, 16)]
    )

    def forward(x):
        h = spool.relu(spool.linear(x, w1, b1))
        return spool.log_softmax(spool.linear(h, w2, None), 1)

    return forward, spool.tensor(rng.normal(size=(5, 8)).astype(np.float32))


def test_network(tmp_path):
    forward, x = mlp()
    spool.onnx.save(forward, (x,), tmp_path / "mlp.onnx")
    wanted = forward(x).numpy()
    np.testing.assert_allclose(
        run_onnx(tmp_path / "mlp.onnx", [x])[0], wanted, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(spool.onnx.load(tmp_path / "mlp.onnx")(x).numpy(), wanted)


def test_gradient_graph(tmp_path):
    """Forward and backward as one graph."""

    def gradient(x):
        return spool.func.grad(lambda v: (spool.tanh(v) * v).sum())(x)

    x = spool.tensor(np.linspace(-1, 1, 6, dtype=np.float32))
    spool.onnx.save(gradient, (x,), tmp_path / "gradient.onnx")
    np.testing.assert_allclose(
        run_onnx(tmp_path / "gradient.onnx", [x])[0], gradient(x).numpy(), rtol=1e-5, atol=1e-6
    )


def test_a_read_cannot_be_captured(tmp_path):
    def reads(x):
        return x * x.sum().item()

    with pytest.raises(NotImplementedError, match="item"):
        spool.onnx.save(reads, (spool.tensor([1.0, 2.0]),), tmp_path / "no.onnx")
    assert not list(tmp_path.iterdir())


def test_unwritable_path(tmp_path):
    forward, x = mlp()
    with pytest.raises(OSError, match="missing"):
        spool.onnx.save(forward, (x,), tmp_path / "missing" / "mlp.onnx")
    with pytest.raises(OSError):
        spool.onnx.load(tmp_path / "nothing.onnx")
    with pytest.raises(OSError):
        spool.onnx.load(tmp_path)


def saved_bytes(tmp_path):
    forward, x = mlp()
    path = tmp_path / "whole.onnx"
    spool.onnx.save(forward, (x,), path)
    return path.read_bytes(), x


def load_bytes(tmp_path, data):
    path = tmp_path / "broken.onnx"
    path.write_bytes(data)
    try:
        return spool.onnx.load(path)
    except (ValueError, RuntimeError, MemoryError, NotImplementedError) as error:
        assert str(error)
        return None


def test_truncated_files(tmp_path):
    data, _ = saved_bytes(tmp_path)
    for length in range(0, len(data), 1 if FULL else 7):
        assert load_bytes(tmp_path, data[:length]) is None


def test_corrupted_files(tmp_path):
    """Bytes flipped at random: an error or a graph, never a crash."""
    data, x = saved_bytes(tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(3000 if FULL else 500):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 6)):
            broken[at] = rng.integers(0, 256)
        graph = load_bytes(tmp_path, bytes(broken))
        if graph is not None:
            try:
                graph(x)
            except (ValueError, RuntimeError, TypeError, IndexError, MemoryError):
                pass


def model_of(nodes, inputs=(), outputs_=("y",), initializers=()):
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs_],
        list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString()


def test_hostile_graphs(tmp_path):
    from onnx import TensorProto, helper

    node = helper.make_node
    huge = TensorProto(dims=[2**40, 2**40], data_type=TensorProto.FLOAT, name="w")
    negative = TensorProto(dims=[-5], data_type=TensorProto.FLOAT, name="w")
    short = TensorProto(dims=[1000], data_type=TensorProto.FLOAT, name="w", raw_data=b"1234")
    outside = TensorProto(
        dims=[1], data_type=TensorProto.FLOAT, name="w", data_location=TensorProto.EXTERNAL
    )
    outside.external_data.add(key="location", value="/etc/passwd")
    cases = {
        "cycle": model_of([node("Add", ["x", "z"], ["y"]), node("Neg", ["y"], ["z"])], ["x"]),
        "missing": model_of([node("Add", ["x", "nothing"], ["y"])], ["x"]),
        "defined twice": model_of([node("Neg", ["x"], ["y"]), node("Exp", ["x"], ["y"])], ["x"]),
        "unknown operator": model_of([node("Frobnicate", ["x"], ["y"])], ["x"]),
        "huge": model_of([node("Neg", ["w"], ["y"])], initializers=[huge]),
        "negative": model_of([node("Neg", ["w"], ["y"])], initializers=[negative]),
        "short": model_of([node("Neg", ["w"], ["y"])], initializers=[short]),
        "external": model_of([node("Neg", ["w"], ["y"])], initializers=[outside]),
        "no output": model_of([node("Neg", ["x"], ["z"])], ["x"]),
        "not onnx": b"\x89PNG\r\n\x1a\n" + b"0" * 100,
        "empty": b"",
    }
    for name, data in cases.items():
        assert load_bytes(tmp_path, data) is None, name


def test_order_of_nodes_does_not_matter(tmp_path):
    from onnx import helper

    nodes = [
        helper.make_node("Exp", ["a"], ["b"]),
        helper.make_node("Neg", ["x"], ["a"]),
        helper.make_node("Add", ["b", "x"], ["y"]),
    ]
    path = tmp_path / "shuffled.onnx"
    path.write_bytes(model_of([nodes[2], nodes[0], nodes[1]], ["x"]))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_allclose(
        spool.onnx.load(path)(spool.tensor(x)).numpy(), np.exp(-x) + x, rtol=1e-6
    )
    assert os.path.exists(path)


def test_derivatives_of_a_loaded_graph_are_graphs(tmp_path):
    """A network's file, loaded: its vjp is a graph, with eager's gradients, that can be saved in turn."""
    spool.manual_seed(0)
    net = spool.nn.Sequential(
        spool.nn.Conv2d(1, 3, 3, padding=1),
        spool.nn.ReLU(),
        spool.nn.MaxPool2d(2),
        spool.nn.Flatten(),
        spool.nn.Linear(48, 5),
        spool.nn.LogSoftmax(-1),
    )
    x, cotangent, tangent = spool.randn(2, 1, 8, 8), spool.randn(2, 5), spool.randn(2, 1, 8, 8)
    spool.onnx.save(net, (x,), tmp_path / "net.onnx")
    model = spool.onnx.load(tmp_path / "net.onnx")
    model.vjp(x).save(tmp_path / "gradient.onnx")
    value, gradient = spool.onnx.load(tmp_path / "gradient.onnx")(x, cotangent)
    expected, pull = spool.func.vjp(net, x)
    assert np.allclose(value.numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert np.allclose(gradient.numpy(), pull(cotangent)[0].detach().numpy(), rtol=1e-5, atol=1e-6)
    _, along = model.jvp(x)(x, tangent)
    _, expected = spool.func.jvp(net, (x,), (tangent,))
    assert np.allclose(along.numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="2 examples for 1 inputs"):
        model.vjp(x, x)
