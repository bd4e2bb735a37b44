"""Convolution and padding layers against PyTorch; ONNX files of networks made of them."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import spool
from spool.nn import functional as F


def same_weights(ours, theirs):
    ours.load_state_dict({k: spool.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return ours, theirs


def both(name, args, kwargs, x):
    """(values, gradients of input and parameters) of a layer of both libraries, with the same weights."""
    ours, theirs = same_weights(
        getattr(spool.nn, name)(*args, **kwargs), getattr(torch.nn, name)(*args, **kwargs)
    )
    assert repr(ours) == repr(theirs)
    found = []
    for layer, leaf in (
        (ours, spool.tensor(x, requires_grad=True)),
        (theirs, torch.tensor(x, requires_grad=True)),
    ):
        y = layer(leaf)
        (y * y).sum().backward()
        found.append([y.detach(), leaf.grad] + [p.grad for p in layer.parameters()])
    return found


LAYERS = [
    ("Conv1d", (4, 6, 3), {}, (2, 4, 11)),
    ("Conv1d", (4, 6, 4), {"padding": "same", "dilation": 2}, (2, 4, 11)),
    ("Conv1d", (4, 6, 3), {"padding": 2, "padding_mode": "circular", "groups": 2}, (4, 11)),
    ("Conv2d", (3, 5, 3), {"stride": 2, "padding": 1}, (2, 3, 9, 10)),
    ("Conv2d", (3, 5, (2, 4)), {"padding": "same", "bias": False}, (2, 3, 9, 10)),
    ("Conv2d", (4, 8, 3), {"padding": "valid", "groups": 4, "dilation": (1, 2)}, (4, 9, 10)),
    ("Conv2d", (3, 5, 3), {"padding": (2, 1), "padding_mode": "reflect"}, (2, 3, 9, 10)),
    ("Conv2d", (3, 5, 4), {"padding": "same", "padding_mode": "replicate"}, (2, 3, 9, 10)),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "output_padding": 1}, (2, 4, 7)),
    ("ConvTranspose2d", (4, 6, 3), {"stride": (2, 3), "padding": 1, "groups": 2}, (2, 4, 5, 6)),
    ("ConvTranspose2d", (4, 6, (3, 2)), {"dilation": 2, "bias": False}, (4, 5, 6)),
]


@pytest.mark.parametrize("name, args, kwargs, shape", LAYERS)
def test_layers_are_torchs(name, args, kwargs, shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    got, wanted = both(name, args, kwargs, x)
    for a, b in zip(got, wanted):
        np.testing.assert_allclose(a.numpy(), b.numpy(), 2e-4, 2e-4)


# x, w, stride, padding, dilation, groups. Rows of some vectors run directly, others by columns: full, short and missing
# last vectors; several tiles, blocks of channels, examples in a frame; phases that steps make.
GEOMETRIES = [
    ((5, 3, 9, 32), (4, 3, 3, 3), 1, 1, 1, 1),
    ((9, 4, 14, 14), (6, 2, 3, 3), 1, 1, 1, 2),
    ((2, 70, 7, 7), (9, 70, 3, 3), 1, 1, 1, 1),
    ((2, 6, 28, 28), (6, 1, 3, 3), 1, 1, 1, 6),
    ((2, 6, 28, 29), (12, 1, 3, 3), 2, 1, 1, 6),
    ((3, 5, 40, 64), (7, 5, 3, 5), (1, 2), (0, 3), (2, 1), 1),
    ((2, 3, 65, 48), (5, 3, 2, 4), (3, 1), (4, 6), (1, 3), 1),
    ((1, 2, 3, 130), (3, 2, 3, 3), (1, 3), (2, 4), (1, 2), 1),
    ((17, 6, 14, 14), (16, 6, 5, 5), 1, 0, 1, 1),
    ((2, 3, 4, 2000), (4, 3, 1, 7), 1, (0, 3), 1, 1),
    ((2, 3, 6, 5), (4, 3, 3, 3), 1, 1, 1, 1),
    ((2, 3, 8, 16), (4, 3, 9, 18), 1, (4, 9), 1, 1),
]


def convolved(library, geometry, dtype, change=lambda x: None):
    """y and the gradients of x, w and the bias."""
    x_shape, w_shape, *rest = geometry
    rng = np.random.default_rng(7)
    values = [rng.normal(size=s).astype(dtype) for s in (x_shape, w_shape, w_shape[:1])]
    change(values[0])
    leaves = [library.tensor(v, requires_grad=True) for v in values]
    y = library.conv2d(*leaves, *rest)
    y.backward(library.tensor(rng.normal(size=tuple(y.shape)).astype(dtype)))
    return [t.detach().numpy() for t in (y, *(leaf.grad for leaf in leaves))]


@pytest.mark.parametrize("dtype, digits", [("float32", 1e-4), ("float64", 1e-12)])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_geometries_are_torchs(geometry, dtype, digits):
    found = [convolved(library, geometry, dtype) for library in (spool, torch)]
    for got, wanted in zip(*found):
        np.testing.assert_allclose(got, wanted, digits, digits * np.abs(wanted).max())


@pytest.mark.parametrize("dtype, digits", [("float32", 1e-4), ("float64", 1e-12)])
@pytest.mark.parametrize(
    "stride, padding, dilation",
    [((1, 1, 1),) * 3, ((2, 1, 2), (0, 2, 1), (1, 2, 1)), ((1, 2, 1), (2, 0, 3), (2, 1, 2))],
)
def test_three_dimensions_are_torchs(stride, padding, dilation, dtype, digits):
    rng, found = np.random.default_rng(8), []
    values = [rng.normal(size=s).astype(dtype) for s in ((3, 4, 5, 7, 16), (6, 2, 3, 2, 3))]
    for library in (spool, torch):
        x, w = (library.tensor(v, requires_grad=True) for v in values)
        if library is spool:
            y = spool.convolution(x, w, stride, padding, dilation, 2)
        else:
            y = torch.conv3d(x, w, None, stride, padding, dilation, 2)
        (y * y).sum().backward()
        found.append([t.detach().numpy() for t in (y, x.grad, w.grad)])
    for got, wanted in zip(*found):
        np.testing.assert_allclose(got, wanted, digits, digits * np.abs(wanted).max())


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_bits_do_not_depend_on_threads(geometry):
    threads, found = spool.get_num_threads(), []
    for n in (1, 2, 5):
        spool.set_num_threads(n)
        found.append(convolved(spool, geometry, "float32"))
    spool.set_num_threads(threads)
    for got in found[1:]:
        for a, b in zip(got, found[0]):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_infinity_stays_where_it_is_met(geometry):
    def spoil(x):
        x[0, 0, :, -1] = np.inf  # behind the last whole vector, and before the next row

    found = [convolved(library, geometry, "float64", spoil) for library in (spool, torch)]
    for got, wanted in zip(*found):
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(wanted))


def test_output_size_of_a_transpose():
    down, up = spool.nn.Conv2d(2, 4, 3, 2, 1), spool.nn.ConvTranspose2d(4, 2, 3, 2, 1)
    for size in (11, 12):
        x = spool.randn(1, 2, size, size)
        assert up(down(x), output_size=x.shape).shape == x.shape
    with pytest.raises(ValueError, match="11 to 12"):
        up(spool.randn(1, 4, 6, 6), output_size=(20, 20))


PADS = [
    (mode, pads)
    for mode in ("constant", "reflect", "replicate", "circular")
    for pads in ([2, 3], [0, 1], [1, 2, 3, 0], [-1, 2, 1, -2], [-1, -1])
]


@pytest.mark.parametrize("mode, pads", PADS)
def test_pad_is_torchs(mode, pads):
    shape = (2, 3, 6, 7) if len(pads) == 4 else (2, 6, 7)
    x = np.random.default_rng(1).normal(size=shape)
    found = []
    for functions, leaf in (
        (F, spool.tensor(x, requires_grad=True)),
        (torch.nn.functional, torch.tensor(x, requires_grad=True)),
    ):
        y = functions.pad(leaf, pads, mode)
        (y * y).sum().backward()
        found.append((y.detach().numpy(), leaf.grad.numpy()))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], 1e-12)


MODULES = [
    ("ConstantPad1d", (2, 1.5)),
    ("ConstantPad2d", ((1, 2, 3, 0), -1.0)),
    ("ZeroPad1d", ((1, 0),)),
    ("ZeroPad2d", (2,)),
    ("ReflectionPad1d", (2,)),
    ("ReflectionPad2d", ((1, 2, 3, 0),)),
    ("ReplicationPad1d", ((3, 1),)),
    ("ReplicationPad2d", (1,)),
    ("CircularPad1d", (2,)),
    ("CircularPad2d", ((1, 2, 3, 0),)),
]


@pytest.mark.parametrize("name, args", MODULES)
def test_padding_modules_are_torchs(name, args):
    x = np.random.default_rng(2).normal(size=(2, 3, 6, 7) if "2d" in name else (2, 3, 7))
    ours, theirs = getattr(spool.nn, name)(*args), getattr(torch.nn, name)(*args)
    np.testing.assert_array_equal(ours(spool.tensor(x)).numpy(), theirs(torch.tensor(x)).numpy())
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize(
    "call, error, says",
    [
        (lambda x: F.pad(x, [1]), ValueError, "two a dimension"),
        (lambda x: F.pad(x, [1] * 8), ValueError, "at most 6"),
        (lambda x: F.pad(x, [-3, -3]), spool.ShapeError, "takes more away"),
        (lambda x: F.pad(x, [5, 0], "reflect"), spool.ShapeError, "at most 4"),
        (lambda x: F.pad(x, [6, 0], "circular"), spool.ShapeError, "at most 5"),
        (lambda x: F.pad(x, [1, 0], "reflect", 2.0), ValueError, "'constant'"),
        (lambda x: F.pad(x, [1, 0], "mirror"), ValueError, "mode"),
        (lambda x: F.pad(x.long(), [1, 0], value=0.5), TypeError, "cannot hold"),
        (lambda x: spool.nn.Conv2d(3, 4, 3, groups=2), ValueError, "groups"),
        (lambda x: spool.nn.Conv2d(3, 4, 3, padding="some"), ValueError, "padding"),
        (lambda x: spool.nn.Conv2d(3, 4, 3, 2, padding="same"), ValueError, "stride of 1"),
        (lambda x: spool.nn.Conv2d(3, 4, 3, padding_mode="edge"), ValueError, "padding_mode"),
        (lambda x: spool.nn.ZeroPad2d((1, 2)), ValueError, "expected one or 4"),
    ],
)
def test_errors_say_what_to_do(call, error, says):
    with pytest.raises(error, match=says):
        call(spool.randn(2, 4, 5))


def network():
    nn = spool.nn
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.ReplicationPad2d(1),
        nn.Conv2d(4, 8, 3, groups=2),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.ConvTranspose2d(8, 3, 3, 2, 1, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def test_a_network_goes_through_onnx(tmp_path):
    model, x, path = network(), spool.randn(2, 1, 12, 13), tmp_path / "net.onnx"
    with spool.no_grad():
        spool.onnx.save(model, (x,), path)
        wanted = model(x).numpy()
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    assert not any(node.domain == "spool" for node in file.graph.node)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(got, wanted, 1e-4, 1e-5)
    np.testing.assert_array_equal(spool.onnx.load(path)(x).numpy(), wanted)


def node_file(op_type, inputs, attributes, constants, path):
    """A file of one node over x, (1, 2, 7, 8), and constants."""
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node(op_type, inputs, ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", kinds.FLOAT, (1, 2, 7, 8))],
        [helper.make_tensor_value_info("y", kinds.FLOAT, None)],
        [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path
    )


FILES = [
    ("Conv", {"pads": [0, 1, 2, 1], "strides": [2, 1]}, {"w": (3, 2, 3, 3), "b": (3,)}),
    ("ConvTranspose", {"strides": [2, 2], "pads": [1, 1, 1, 1]}, {"w": (2, 3, 3, 3), "b": (3,)}),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, {}),
    ("MaxPool", {"kernel_shape": [2, 3], "strides": [2, 2], "ceil_mode": 1}, {}),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, {}),
    ("AveragePool", {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "strides": [2, 2]}, {}),
    ("GlobalAveragePool", {}, {}),
    ("GlobalMaxPool", {}, {}),
]


@pytest.mark.parametrize("op_type, attributes, shapes", FILES)
def test_operators_of_other_files(op_type, attributes, shapes, tmp_path):
    rng, path = np.random.default_rng(3), tmp_path / "node.onnx"
    constants = {k: rng.normal(size=v).astype(np.float32) for k, v in shapes.items()}
    node_file(op_type, ["x", *constants], attributes, constants, path)
    x = rng.normal(size=(1, 2, 7, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = spool.onnx.load(path)(spool.tensor(x)).numpy()
    np.testing.assert_allclose(got, session.run(None, {"x": x})[0], 1e-5, 1e-5)
