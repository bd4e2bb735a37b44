"""``spool.graph_of``: the tape behind a tensor as text, DOT or SVG."""

import os

from .. import _C
from .._tree import flatten

__all__ = ["TapeGraph", "graph_of"]


class _Entry:
    """A node of the tape, or a leaf."""

    def __init__(self, key, op, outputs, line=None):
        self.key, self.op, self.outputs, self.line = key, op, outputs, line
        self.inputs = []  # (entry, number of its output), None where no gradient goes
        self.name = self.title = ""
        self.result = False

    @property
    def is_leaf(self):
        return self.op == "leaf"


def _named(params):
    """Names by id of the tensor."""
    if params is None:
        return {}
    if hasattr(params, "named_parameters"):
        params = dict(params.named_parameters())
    pairs = params.items() if hasattr(params, "items") else params
    names = {}
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(
                "graph_of: params must be a Module, a dict of names and Tensors, or pairs of these, such as "
                f"named_parameters(); found {type(pair).__name__}"
            )
        name, tensor = pair
        if not isinstance(tensor, _C.Tensor):
            raise TypeError(
                f"graph_of: params has {type(tensor).__name__} for {name!r}, not a Tensor"
            )
        names[id(tensor)] = str(name)
    return names


class _Walk:
    """The entries that lead to some tensors, each once."""

    def __init__(self):
        self.entries = {}
        self.kept = []  # nodes, so that what their ids stand for does not change

    def leaf(self, tensor):
        key = id(tensor)
        if key not in self.entries:
            self.kept.append(tensor)
            self.entries[key] = _Entry(key, "leaf", [(tensor.shape, tensor.dtype)])
        return self.entries[key]

    def entry(self, node):
        """The node's entry, and whether it is new."""
        if node.variable is not None:
            return self.leaf(node.variable), False
        key = node._sequence_nr(), hash(node)
        if key in self.entries:
            return self.entries[key], False
        self.kept.append(node)
        self.entries[key] = made = _Entry(key, node.op, list(node.outputs), node.line)
        return made, True

    def follow(self, root):
        first, new = self.entry(root)
        waiting = [(root, first)] if new else []
        while waiting:
            node, entry = waiting.pop()
            for before, number in node.next_functions:
                if before is None:
                    entry.inputs.append(None)
                    continue
                found, new = self.entry(before)
                entry.inputs.append((found, number))
                if new:
                    waiting.append((before, found))
        return first


def _roots(loss):
    tensors = flatten(loss)[0]
    if not tensors:
        raise ValueError("graph_of: there is no tensor to draw the history of")
    for tensor in tensors:
        if not isinstance(tensor, _C.Tensor):
            raise TypeError(f"graph_of: loss must hold Tensors, found {type(tensor).__name__}")
        if not tensor.requires_grad:
            raise _C.SpoolError(
                "graph_of: a tensor does not require grad and has no history: nothing it was computed from requires grad, "
                "or it was computed under no_grad()"
            )
    return tensors


def _shape(shape):
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def _kind(outputs):
    """Shapes and dtypes of an entry's outputs."""
    return ", ".join(f"{str(dtype).rsplit('.', 1)[-1]} {_shape(shape)}" for shape, dtype in outputs)


class TapeGraph:
    """What :func:`graph_of` returns: the ops that led to some tensors, in the order in which they were issued.

    Prints as text; a notebook shows the drawing.

    Attributes
    ----------
    text, dot, svg : str
        The graph as a list of calls, in Graphviz' language, and as a drawing.
    """

    def __init__(self, loss, params=None, format="text"):
        if format not in ("text", "dot", "svg"):
            raise ValueError(f"graph_of: format must be 'text', 'dot' or 'svg', not {format!r}")
        self.format = format
        names, walk = _named(params), _Walk()
        for tensor in _roots(loss):
            node = tensor.grad_fn
            root = walk.leaf(tensor) if node is None else walk.follow(node)
            root.result = True
        entries = list(walk.entries.values())
        ops = sorted((e for e in entries if not e.is_leaf), key=lambda e: e.key)
        used = {id(link[0]): link[0] for op in ops for link in op.inputs if link is not None}
        leaves = [e for e in used.values() if e.is_leaf]  # as they are used
        leaves += [e for e in entries if e.is_leaf and id(e) not in used]
        for i, leaf in enumerate(leaves):
            leaf.name = leaf.title = names.get(leaf.key, f"leaf{i + 1}")
        for i, op in enumerate(ops):
            op.name, op.title = f"%{i + 1}", op.op
        self._leaves, self._ops = leaves, ops

    def __len__(self):
        """The number of ops and leaves."""
        return len(self._leaves) + len(self._ops)

    # Text.

    def _call(self, entry):
        arguments = []
        for link in entry.inputs:
            name = "_" if link is None else link[0].name
            several = link is not None and len(link[0].outputs) > 1
            arguments.append(f"{name}.{link[1]}" if several else name)
        return f"{entry.op}({', '.join(arguments)})"

    def _headline(self):
        results = [e.name for e in (*self._leaves, *self._ops) if e.result]
        leaves = f"{len(self._leaves)} {'leaf' if len(self._leaves) == 1 else 'leaves'}"
        ops = f"{len(self._ops)} {'op' if len(self._ops) == 1 else 'ops'}"
        return f"tape of {', '.join(results)}: {leaves}, {ops}"

    @property
    def text(self):
        """One line an op, in the order of issue: what it takes, what it yields, where it was called."""
        rows = [(e.name, "leaf", e) for e in self._leaves]
        rows += [(e.name, self._call(e), e) for e in self._ops]
        name_width = max(len(r[0]) for r in rows)
        call_width = min(60, max(len(r[1]) for r in rows))
        kind_width = max(len(_kind(r[2].outputs)) for r in rows)
        lines = [self._headline()]
        for name, call, entry in rows:
            line = f"  {name:<{name_width}} = {call:<{call_width}}  {_kind(entry.outputs):<{kind_width}}"
            lines.append((line + (f"  {entry.line}" if entry.line else "")).rstrip())
        return "\n".join(lines)

    # DOT.

    @property
    def dot(self):
        """The graph in Graphviz' language."""
        number = {id(e): i for i, e in enumerate((*self._leaves, *self._ops))}
        lines = [
            "digraph tape {",
            '  node [shape=box, style="rounded,filled", fillcolor="#eef1f6", fontname="Helvetica", fontsize=11];',
            '  edge [color="#7a8699", arrowsize=0.6];',
        ]
        for entry in (*self._leaves, *self._ops):
            label = "\\n".join(_dot_text(part) for part in _labels(entry))
            look = ', fillcolor="#d8ecd9"' if entry.is_leaf else ""
            look += ", penwidth=2" if entry.result else ""
            lines.append(f'  n{number[id(entry)]} [label="{label}"{look}];')
        for entry in self._ops:
            for link in entry.inputs:
                if link is not None:
                    several = (
                        f' [label="{link[1]}", fontsize=9]' if len(link[0].outputs) > 1 else ""
                    )
                    lines.append(f"  n{number[id(link[0])]} -> n{number[id(entry)]}{several};")
        return "\n".join([*lines, "}"])

    # SVG.

    @property
    def svg(self):
        """The graph as a drawing, leaves at the top and results at the bottom."""
        from .svg import draw

        return draw(self._leaves, self._ops, self._headline(), _labels)

    def save(self, path):
        """Write the graph to a file.

        Parameters
        ----------
        path : str or os.PathLike
            Ends in ``.svg``, ``.dot``, ``.gv`` or ``.txt``, which says how.

        Raises
        ------
        ValueError
            The path ends in something else.
        """
        path = os.fspath(path)
        forms = {".svg": "svg", ".dot": "dot", ".gv": "dot", ".txt": "text"}
        form = forms.get(os.path.splitext(path)[1].lower())
        if form is None:
            raise ValueError(
                f"graph_of: cannot tell how to write {path!r}; end it in one of {', '.join(forms)}"
            )
        with open(path, "w", encoding="utf-8") as file:
            file.write(getattr(self, form) + "\n")

    def _repr_svg_(self):
        return self.svg

    def __str__(self):
        return getattr(self, self.format)

    __repr__ = __str__


def _labels(entry):
    """Lines of text for an entry: its name, what it yields, where it was called."""
    return [
        entry.title,
        *(_kind([o]) for o in entry.outputs),
        *([entry.line] if entry.line else []),
    ]


def _dot_text(text):
    return text.replace("\\", "\\\\").replace('"', '\\"')


@_C._boundary
def graph_of(loss, params=None, format="text"):
    """The tape behind tensors: what ``backward()`` would run, drawn in the direction of computing.

    Parameters
    ----------
    loss : Tensor or tree of Tensor
        One or several results that require grad.
    params : Module, dict or iterable of pairs, optional
        Names of leaves: a module, or what ``named_parameters()`` yields. Others are called ``leaf1`` and so on.
    format : {'text', 'dot', 'svg'}
        What the result prints as.

    Returns
    -------
    TapeGraph
        Has ``text``, ``dot``, ``svg``, ``save(path)``; a notebook shows the drawing. An op is one node however often its result
        is used. Lines of the program are there for ops that ran in anomaly mode (``autograd.detect_anomaly()``).

    Raises
    ------
    SpoolError
        A tensor has no history.

    Examples
    --------
    >>> import spool
    >>> w = spool.ones(3, 2, requires_grad=True)
    >>> loss = (spool.ones(4, 3) @ w).tanh().sum()
    >>> spool.graph_of(loss, {"w": w})
    tape of %3: 1 leaf, 3 ops
      w  = leaf          float32 (3, 2)
      %1 = matmul(_, w)  float32 (4, 2)
      %2 = tanh(%1)      float32 (4, 2)
      %3 = sum(%2)       float32 ()
    """
    return TapeGraph(loss, params, format)
