"""Every sample of every op: PyTorch's values, dtypes and gradients; forward mode; vmap; compiled bits."""

from collections import defaultdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from samples import (
    GATHERING,
    RANDOM,
    READING,
    REFLECTED,
    UNSET,
    arrays_of,
    bits,
    caller,
    float_positions,
    is_list,
    load,
    outputs,
    python_kwargs,
    run,
    tensor_at,
    tensor_positions,
    to_spool,
    with_tensors,
)

import spool

SAMPLES = load()
EXACT = (spool.float64, spool.complex128)
# Ops by the mode in which a sample of theirs was run.
EXERCISED = defaultdict(set)
# PyTorch refuses the negative indices that Spool counts from the end.
INDEX_FROM_END = {"gather", "index_select", "index_copy", "scatter", "index_fill.scalar"}
VIEWS = {"view", "may_view", "composite"}  # a composite may be nothing but views
every = pytest.mark.parametrize("sample", SAMPLES, ids=[s.id for s in SAMPLES])
smooth = pytest.mark.parametrize(
    "sample",
    [s for s in SAMPLES if s.differentiable],
    ids=[s.id for s in SAMPLES if s.differentiable],
)

# Ops whose PyTorch spelling is not a function of the same name.
TORCH = {
    "embedding": torch.nn.functional.embedding,
    "ravel_multi_index": lambda xs, dims: torch.from_numpy(
        np.asarray(
            np.ravel_multi_index(
                np.broadcast_arrays(*[x.numpy() % d for x, d in zip(xs, dims)]), dims
            )
        )
    ),
    "cast": lambda x, dtype: x.to(dtype),
    "copy": lambda x, src: x.clone().copy_(src),
    "fill": lambda x, value: torch.full_like(x, value),
    "view": lambda x, *shape: x.reshape(*shape),
    "slice": lambda x, dim=0, start=None, end=None, step=1: x[
        (slice(None),) * (dim % x.dim()) + (slice(start, end, step),)
    ],
    "expand": lambda x, *shape: x.expand(*shape),
    "unfold": lambda x, *args: x.unfold(*args),
    "contiguous": lambda x: x.contiguous(),
    "alias": lambda x: x.clone(),
    "threshold_backward": lambda grad, x, threshold: torch.where(x > threshold, grad, 0),
    "sigmoid_backward": lambda grad, y: grad * (1 - y) * y,
    "tanh_backward": lambda grad, y: grad * (1 - y * y),
    "silu_backward": lambda grad, x: grad * slope_of(torch.nn.functional.silu, x),
    "gelu_backward": lambda grad, x, approximate="none": (
        grad * slope_of(lambda v: torch.nn.functional.gelu(v, approximate=approximate), x)
    ),
    "linear": torch.nn.functional.linear,
    "convolution": lambda x, w, stride, padding, dilation, groups, b=None: torch.convolution(
        x, w, b, *spread(x, stride, padding, dilation), False, spread(x, 0)[0], groups
    ),
    "convolution_input": lambda y, w, size, stride, padding, dilation, groups: (
        torch.nn.grad.conv2d_input(size, w, y, stride, padding, dilation, groups)
    ),
    "convolution_weight": lambda y, x, size, stride, padding, dilation, groups: (
        torch.nn.grad.conv2d_weight(x, size, y, stride, padding, dilation, groups)
    ),
    "argsort_rows": lambda x: torch.tensor(
        sorted(range(len(x)), key=lambda i: x[i].tolist()), dtype=torch.int64
    ),
    "scatter_fold": lambda x, dim, index, src, fold: x.scatter_reduce(
        dim, index % x.shape[dim], src, fold
    ),
    "block_diag": lambda tensors: torch.block_diag(*tensors),
    "cartesian_prod": lambda tensors: torch.cartesian_prod(*tensors),
    "equal": lambda x, y: torch.tensor(torch.equal(x, y)),
    "allclose": lambda x, y, *args: torch.tensor(torch.allclose(x, y, *args)),
    "tensordot": lambda x, y, x_dims, y_dims: torch.tensordot(x, y, (x_dims, y_dims)),
    **{
        name: lambda x, *args, name=name, **kwargs: pooled(name, x, *args, **kwargs)
        for name in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
    },
    "adaptive_max_pool2d": lambda x, size: torch.nn.functional.adaptive_max_pool2d(
        x, size, return_indices=True
    ),
    "resample": lambda x, size, *args: resampled(x, size, *args),
    "resample_backward": lambda y, size, *args: transposed(
        lambda x: resampled(x, list(y.shape[-len(size) :]), *args),
        y,
        y.shape[: -len(size)] + tuple(size),
    ),
    "max_pool_gather": lambda x, indices, size: (
        x.flatten(-len(size)).gather(-1, indices.flatten(-len(size))).reshape(indices.shape)
    ),
    "max_pool_scatter": lambda y, indices, size: transposed(
        lambda x: TORCH["max_pool_gather"](x, indices, size), y, y.shape[: -len(size)] + tuple(size)
    ),
    "avg_pool_backward": lambda y, size, *args: transposed(
        lambda x: pooled("avg_pool", x, *args), y, y.shape[: -len(size)] + tuple(size)
    ),
    "adaptive_avg_pool_backward": lambda y, size: transposed(
        lambda x: pooled("adaptive_avg_pool", x, list(y.shape[-len(size) :])),
        y,
        y.shape[: -len(size)] + tuple(size),
    ),
    "nll_loss": torch.nn.functional.nll_loss,
    "cross_entropy": torch.nn.functional.cross_entropy,
    "vector_norm": torch.linalg.vector_norm,
    "scaled_dot_product_attention": F.scaled_dot_product_attention,
    "attention": lambda *args: attention(*args)[:2],
    "attention_backward": lambda *args: attention_backward(*args),
    "nll_loss_backward": lambda grad, target, size, **options: torch.autograd.grad(
        F.nll_loss(
            leaf := torch.zeros(size, dtype=grad.dtype, requires_grad=True), target, **options
        ),
        leaf,
        grad,
    )[0],
    "deviation": lambda x, dim=None, keepdim=False: (
        torch.var(x, dim, correction=0, keepdim=keepdim)
        * (x.numel() / max(1, x.mean(dim, keepdim).numel())),
        x.mean(dim, keepdim),
    ),
    "power_sum": lambda x, p, dim=None, keepdim=False: (x.abs() ** p).sum(dim, keepdim),
    "softmax_backward": lambda grad, y, dim: y * (grad - (grad * y).sum(dim, True)),
    "log_softmax_backward": lambda grad, y, dim: grad - y.exp() * grad.sum(dim, True),
    "batch_norm": F.batch_norm,
    "instance_norm": F.instance_norm,
    "batch_norm_train": lambda x, *rest: batch_norm_train(x, *rest),
    "channel_affine": lambda x, scale, shift=None: (
        x * along_channels(scale, x) + (0 if shift is None else along_channels(shift, x))
    ),
    "layer_norm_backward": lambda grad, x, shape, weight=None, eps=1e-5: gradients_of(
        lambda x, w, b: F.layer_norm(x, shape, w, b, eps), grad, x, weight, shape
    ),
    "rms_norm_backward": lambda grad, x, shape, weight=None, eps=None: gradients_of(
        lambda x, w, b: F.rms_norm(x, shape, w, eps), grad, x, weight, shape
    )[:2],
    "group_norm_backward": lambda grad, x, groups, weight=None, eps=1e-5: gradients_of(
        lambda x, w, b: F.group_norm(x, groups, w, b, eps), grad, x, weight, x.shape[1:2]
    ),
    "batch_norm_backward": lambda grad, x, mean, var, weight=None, eps=1e-5: batch_norm_backward(
        grad, x, mean, var, weight, eps
    ),
    "sort": lambda x, dim=-1, descending=False, stable=True: torch.sort(
        x, dim=dim, descending=descending, stable=stable
    ),
    "argsort": lambda x, dim=-1, descending=False, stable=True: torch.argsort(
        x, dim=dim, descending=descending, stable=stable
    ),
    "linear_scan": lambda x, factor, dim, reverse=False: linear_scan(x, factor, dim, reverse),
    "sgd_step": lambda *args, **kwargs: stepped(torch.optim.SGD, *args, **kwargs),
    "adam_step": lambda *args, **kwargs: stepped(torch.optim.Adam, *args, **kwargs),
    "rmsprop_step": lambda *args, **kwargs: stepped(torch.optim.RMSprop, *args, **kwargs),
    "adagrad_step": lambda *args, **kwargs: stepped(torch.optim.Adagrad, *args, **kwargs),
    "all_finite": lambda xs: torch.stack([x.isfinite().all() for x in xs]).all(),
    "view_as_complex": lambda x: torch.complex(x[..., 0], x[..., 1]),
    "as_strided": lambda x, size, stride, offset=0: x.contiguous().as_strided(size, stride, offset),
}


STATES = {
    "SGD": {3: ["momentum_buffer"]},
    "Adam": {4: ["exp_avg", "exp_avg_sq"], 5: ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]},
    "RMSprop": {
        3: ["square_avg"],
        4: ["square_avg", "grad_avg"],
        5: ["square_avg", "grad_avg", "momentum_buffer"],
    },
    "Adagrad": {3: ["sum"]},
}


def stepped(kind, *tensors, **kwargs):
    """A step of PyTorch's optimizer, as a function of the tensors and the number of the step."""
    param = tensors[0].clone().requires_grad_()
    param.grad, step, first = tensors[-1], kwargs.pop("step", 1), kwargs.pop("first", False)
    betas = [kwargs.pop(key) for key in ("beta1", "beta2") if key in kwargs]
    if betas:
        kwargs["betas"] = betas
    if "decoupled" in kwargs:
        kwargs["decoupled_weight_decay"] = kwargs.pop("decoupled")
    names = STATES[kind.__name__].get(len(tensors), [])
    if names == ["square_avg", "grad_avg"] and "momentum" in kwargs:
        names = ["square_avg", "momentum_buffer"]
    if "max_exp_avg_sq" in names:
        kwargs["amsgrad"] = True
    if "grad_avg" in names:
        kwargs["centered"] = True
    opt = kind([param], **kwargs)
    state = {name: t.clone() for name, t in zip(names, tensors[1:])}
    opt.state[param] = {} if first else {"step": torch.tensor(float(step - 1)), **state}
    opt.step()
    return (param.detach(), *(opt.state[param][name] for name in names))


def pooled(name, x, size, *args):
    """PyTorch's pooling of the last dimensions, as many as there are sizes."""
    n = len(size)
    more = {"return_indices": True} if "max" in name else {}
    if n == 1 and name == "avg_pool":
        args = args[:4]
    function = getattr(torch.nn.functional, f"{name}{n}d")
    outs = outputs(function(x.reshape(-1, 1, *x.shape[-n:]), size, *args, **more))
    shaped = [out.reshape(*x.shape[:-n], *out.shape[-n:]) for out in outs]
    return shaped if more else shaped[0]


def resampled(x, size, mode="nearest", align_corners=False, scale_h=None, scale_w=None):
    """PyTorch's interpolation of the last dimensions; the ops beneath it take sizes and scales."""
    n = len(size)
    name = {"nearest": "nearest", "nearest_exact": "nearest_exact", "cubic": "bicubic"}.get(
        mode, "linear" if n == 1 else "bilinear"
    )
    op = getattr(torch.ops.aten, f"{'_' if mode == 'nearest_exact' else ''}upsample_{name}{n}d")
    corners = [align_corners] if mode in ("linear", "cubic") else []
    scales = [scale_h, scale_w][-n:]
    y = op(x.reshape(-1, 1, *x.shape[-n:]), size, *corners, *scales)
    return y.reshape(*x.shape[:-n], *size)


def transposed(function, y, shape):
    """The transpose of a linear function of tensors of that shape."""
    x = torch.zeros(shape, dtype=y.dtype, requires_grad=True)
    return torch.autograd.grad(function(x), x, y)[0]


def spread(x, *numbers):
    """Each number for every dimension after batch and channels."""
    n = x.dim() - 2
    return [
        v * n if isinstance(v, list) and len(v) == 1 else v if isinstance(v, list) else [v] * n
        for v in numbers
    ]


def linear_scan(x, factor, dim, reverse):
    if x.dim() == 0 or x.size(dim) == 0:
        return x.clone()
    xs, factors, found = x.unbind(dim), factor.unbind(dim), []
    order = range(len(xs) - 1, -1, -1) if reverse else range(len(xs))
    for i in order:
        before = factors[i + 1 if reverse else i] * found[-1] if found else 0
        found.append(xs[i] + before)
    return torch.stack(found[::-1] if reverse else found, dim)


def attention(q, k, v, causal, scale, mask=None, lse=None):
    """Result, logsumexp and weights."""
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    scores = q @ k.transpose(2, 3) * scale
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores).tril() == 0, -np.inf)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -np.inf)
    elif mask is not None:
        scores = scores + mask
    lse = scores.logsumexp(-1) if lse is None else lse
    weights = (scores - lse[..., None]).exp()
    return weights @ v, lse, weights


def attention_backward(grad, q, k, v, y, lse, causal, scale, mask=None):
    weights, n = attention(q, k, v, causal, scale, mask, lse)[2], q.shape[1] // k.shape[1]
    kn, vn = (t.repeat_interleave(n, 1) for t in (k, v))
    ds = weights * (grad @ vn.transpose(2, 3) - (grad * y).sum(-1, True))
    gk, gv = ds.transpose(2, 3) @ q * scale, weights.transpose(2, 3) @ grad
    return ds @ kn * scale, *(t.unflatten(1, (-1, n)).sum(2) for t in (gk, gv))


def along_channels(t, x):
    return t.reshape(1, -1, *[1] * (x.dim() - 2))


def batch_norm_train(x, weight=None, bias=None, eps=1e-5):
    over = [d for d in range(x.dim()) if d != 1]
    var, mean = torch.var_mean(x, over, correction=0)
    return F.batch_norm(x, None, None, weight, bias, True, 0.1, eps), mean, var


def batch_norm_backward(grad, x, mean, var, weight, eps):
    over = [d for d in range(x.dim()) if d != 1]
    rstd = along_channels((var + eps).rsqrt(), x)
    z = (x - along_channels(mean, x)) * rstd
    g = grad if weight is None else grad * along_channels(weight, x)
    gx = (g - g.mean(over, True) - z * (g * z).mean(over, True)) * rstd
    return gx, (grad * z).sum(over), grad.sum(over)


def gradients_of(function, grad, x, weight, shape):
    """PyTorch's gradients of a normalisation with respect to x, weight and bias."""
    leaves = [x, torch.ones(shape, dtype=x.dtype) if weight is None else weight]
    leaves = [t.clone().requires_grad_() for t in [*leaves, torch.zeros(shape, dtype=x.dtype)]]
    return torch.autograd.grad(
        function(*leaves), leaves, grad, allow_unused=True, materialize_grads=True
    )


def slope_of(function, x):
    """PyTorch's derivative of an elementwise function."""
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]


def torch_op(sample):
    base = sample.op.split(".")[0]
    op = TORCH.get(base) or getattr(torch, base, None) or getattr(torch.nn.functional, base, None)
    op = op or (lambda x, *args, **kwargs: getattr(x, base)(*args, **kwargs))
    if sample.op.endswith(".rscalar"):
        return REFLECTED[base]
    return op


def to_torch(value):
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if is_list(value):
        return [to_torch(v) for v in value]
    return value


def expected(sample, dtype):
    args, kwargs = arrays_of(sample, dtype)
    if sample.op in INDEX_FROM_END:
        args[2] = args[2] % max(1, args[0].shape[args[1]] if args[0].ndim else 1)
    return outputs(torch_op(sample)(*map(to_torch, args), **python_kwargs(kwargs, torch)))


def close(got, wanted, rtol=2e-6, atol=1e-6):
    got = got.detach().numpy() if isinstance(got, spool.Tensor) else got
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=atol)


@every
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_value_is_torchs(sample, dtype):
    args, kwargs = arrays_of(sample, dtype)
    got = outputs(run(sample, list(map(to_spool, args)), kwargs))
    EXERCISED["value"].add(sample.op)
    if sample.op in RANDOM:
        assert np.isfinite(got[0].numpy()).all()
        return
    for value, wanted in zip(got, expected(sample, dtype)):
        assert tuple(value.shape) == tuple(wanted.shape)
        assert str(value.dtype).split(".")[-1] == str(wanted.dtype).split(".")[-1]
        if sample.op in UNSET:
            continue
        exact = value.dtype not in (spool.float32, spool.complex64)
        close(value, wanted.resolve_conj().numpy(), *((1e-12, 1e-12) if exact else (2e-5, 1e-5)))


def strided(array):
    """The same values in other memory: every second element of a larger, misaligned, transposed block."""
    if array.ndim == 0:
        return spool.tensor(array)
    wide = np.zeros((*array.shape[:-1], array.shape[-1] * 2 + 1), array.dtype)
    wide[..., 1::2] = array
    view = spool.tensor(np.ascontiguousarray(wide.T)).permute(*range(array.ndim - 1, -1, -1))
    return view[(slice(None),) * (array.ndim - 1) + (slice(1, None, 2),)]


@every
def test_layout_does_not_change_values(sample):
    if sample.op in RANDOM | UNSET or sample.op.startswith(("as_strided", "view")):
        pytest.skip("random, or about the layout itself")
    EXERCISED["layout"].add(sample.op)
    args, kwargs = arrays_of(sample)
    dense = outputs(run(sample, list(map(to_spool, args)), kwargs))
    other = outputs(
        run(
            sample,
            with_tensors(
                args,
                tensor_positions(args),
                [strided(tensor_at(args, p)) for p in tensor_positions(args)],
            ),
            kwargs,
        )
    )
    for a, b in zip(dense, other):
        close(a, b.detach().numpy(), 2e-6, 1e-6)


def inner(t, weight):
    """The sum of t * weight, of complex numbers over their parts: the real part of t * conj(weight)."""
    if t.is_complex():
        weight = np.asarray(weight)
        return inner(t.real, weight.real.copy()) + inner(t.imag, weight.imag.copy())
    return (t * spool.tensor(weight)).sum()


def scalar_function(sample, args, kwargs, positions, weights):
    """The inexact arguments -> sum(weights * op(...)), over float64 and complex128."""

    def function(*tensors):
        full = with_tensors(args, positions, tensors)
        total = 0
        for out, weight in zip(outputs(run(sample, full, kwargs)), weights):
            if out.dtype in EXACT:
                total = total + inner(out, weight)
        return total

    return function


def case_of(sample):
    """(function, float64 arrays at which to differentiate, directions)"""
    args, kwargs = arrays_of(sample, "float64")
    positions = [p for p in float_positions(args) if p[0] in sample.differentiable]
    rng = np.random.default_rng(1)
    results = outputs(run(sample, list(map(to_spool, args)), kwargs))
    if any(r.dtype in (spool.float32, spool.complex64) for r in results) or not any(
        r.dtype in EXACT for r in results
    ):
        positions = []  # rounded to less than the differences need, or no number at all
    weights = [normal_like(rng, r.detach().numpy()) for r in results]
    points = [tensor_at(args, p) for p in positions]
    directions = [normal_like(rng, p) for p in points]
    return scalar_function(sample, args, kwargs, positions, weights), points, directions


def normal_like(rng, array):
    parts = [np.asarray(rng.normal(size=array.shape)) for _ in range(1 + (array.dtype.kind == "c"))]
    return parts[0] if len(parts) == 1 else parts[0] + 1j * parts[1]


def dot(arrays, others):
    return sum(
        float((np.conj(np.asarray(a)) * np.asarray(b)).sum().real) for a, b in zip(arrays, others)
    )


def finite_difference(function, points, directions, step):
    moved = [
        [spool.tensor(p + sign * step * d) for p, d in zip(points, directions)] for sign in (1, -1)
    ]
    return (function(*moved[0]).item() - function(*moved[1]).item()) / (2 * step)


def gradients(function, points, create_graph=False):
    leaves = [spool.tensor(p, requires_grad=True) for p in points]
    return spool.autograd.grad(
        function(*leaves),
        leaves,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    ), leaves


@smooth
def test_gradient_first_order(sample):
    function, points, directions = case_of(sample)
    if not points:
        pytest.skip("no floating argument, or a result of another dtype")
    EXERCISED["gradient"].add(sample.op)
    grads, _ = gradients(function, points)
    close(
        dot([g.numpy() for g in grads], directions),
        finite_difference(function, points, directions, 1e-6),
        1e-5,
        1e-6,
    )


def layouts_of(array):
    """Tensors of the array's values: dense, expanded where it is constant, transposed, with gaps."""
    wide = np.repeat(array[..., None], 2, -1)
    return [
        spool.tensor(array),
        spool.tensor(array.reshape(-1)[:1].reshape(())).expand(array.shape),
        spool.tensor(array.T.copy()).permute(list(range(array.ndim))[::-1]),
        spool.tensor(wide).select(-1, 0),
    ]


@smooth
def test_gradient_whatever_the_layout_of_what_comes_in(sample):
    args, kwargs = arrays_of(sample)
    leaves, wanted = list(map(to_spool, args)), None
    positions = [i for i in float_positions(args) if i in sample.differentiable]
    for i in positions:
        leaves[i].requires_grad_()
    out = outputs(run(sample, leaves, kwargs))[0]
    if not out.requires_grad or out.numel() == 0:
        pytest.skip("nothing to differentiate")
    ones = np.ones(tuple(out.shape), out.detach().numpy().dtype)
    for layout in layouts_of(ones):
        grads = spool.autograd.grad(
            out, [leaves[i] for i in positions], layout, retain_graph=True, allow_unused=True
        )
        got = [None if g is None else g.numpy() for g in grads]
        wanted = wanted or got
        for one, other in zip(got, wanted):
            np.testing.assert_array_equal(one, other)


def first_derivative(function, directions):
    """A function whose value is the derivative along `directions`, itself differentiable."""

    def derivative(*tensors):
        leaves = [t if t.requires_grad else t.detach().requires_grad_() for t in tensors]
        grads = spool.autograd.grad(
            function(*leaves), leaves, create_graph=True, allow_unused=True, materialize_grads=True
        )
        total = 0
        for g, d in zip(grads, directions):
            total = total + inner(g, d)
        return total

    return derivative


@smooth
def test_gradient_second_order(sample):
    function, points, directions = case_of(sample)
    if not points:
        pytest.skip("no floating argument, or a result of another dtype")
    EXERCISED["second order"].add(sample.op)
    rng = np.random.default_rng(2)
    others = [normal_like(rng, p) for p in points]
    derivative = first_derivative(function, directions)
    leaves = [spool.tensor(p, requires_grad=True) for p in points]
    value = derivative(*leaves)
    if not value.requires_grad:
        wanted = finite_difference(derivative, points, others, 1e-5)
        close(0.0, wanted, 1e-4, 1e-4)
        return
    grads = spool.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    close(
        dot([g.numpy() for g in grads], others),
        finite_difference(derivative, points, others, 1e-5),
        1e-4,
        1e-5,
    )


@smooth
def test_forward_mode(sample):
    function, points, directions = case_of(sample)
    if not points:
        pytest.skip("no floating argument, or a result of another dtype")
    EXERCISED["forward mode"].add(sample.op)
    grads, _ = gradients(function, points)
    _, tangent = spool.func.jvp(
        function, tuple(map(spool.tensor, points)), tuple(map(spool.tensor, directions))
    )
    close(tangent.item(), dot([g.numpy() for g in grads], directions), 1e-9, 1e-9)


@every
def test_vmap_is_a_loop(sample):
    args, kwargs = arrays_of(sample)
    tensors = tensor_positions(args)
    if not tensors or sample.op in RANDOM or sample.op in READING:
        pytest.skip("no tensor argument, random, or of a shape that values decide")
    EXERCISED["vmap"].add(sample.op)
    for batched in [tensors] + ([[tensors[0]]] if len(tensors) > 1 else []):
        rng = np.random.default_rng(3)
        stacks = {p: np.stack([np.asarray(tensor_at(args, p))] * 3) for p in batched}
        for i, stack in stacks.items():
            if stack.dtype.kind in "fc":
                stacks[i] = (stack * rng.uniform(0.5, 1.5, (3,) + (1,) * (stack.ndim - 1))).astype(
                    stack.dtype
                )

        def one(*slices, where=batched):
            return run(sample, with_tensors(args, where, slices), kwargs)

        got = outputs(spool.func.vmap(one)(*[spool.tensor(stacks[i]) for i in batched]))
        for k, value in enumerate(got):
            wanted = np.stack(
                [
                    outputs(one(*[spool.tensor(stacks[i][n]) for i in batched]))[k].numpy()
                    for n in range(3)
                ]
            )
            close(value, wanted, 2e-5, 1e-6)


@every
def test_compiled_bits_are_eagers(sample):
    args, kwargs = arrays_of(sample)
    op = caller(sample)
    keywords = python_kwargs(kwargs, spool)

    def function(*tensors):
        return op(*with_tensors(args, positions, tensors), **keywords)

    positions = tensor_positions(args)
    tensors = [to_spool(tensor_at(args, p)) for p in positions]
    jitted = spool.jit(function)
    if sample.op in RANDOM:
        spool.manual_seed(5)
        eager = [bits(function(*tensors)) for _ in range(4)]
        spool.manual_seed(5)
        assert [bits(jitted(*tensors)) for _ in range(4)] == eager
    else:
        wanted = bits(function(*tensors))
        for _ in range(4):
            assert bits(jitted(*tensors)) == wanted or sample.op in UNSET
    EXERCISED["compiled"].add(sample.op)
    report = spool.explain(jitted, quiet=True)
    assert report.compiled_ops >= 0.9 * report.ops, report.reasons
    assert report.breaks == 0 or sample.op in READING | GATHERING, report.reasons
    assert report.ops > 0 or not VIEWS.isdisjoint(sample.entry["flags"])


def test_every_op_has_samples():
    ops = {s.op for s in SAMPLES}
    assert len(ops) >= 60 and len(SAMPLES) >= 3 * len(ops)


def promised(entry, samples):
    """The modes in which an op's samples have to be run."""
    name, modes = entry["name"], {"value", "compiled"}
    tensors = any(tensor_positions(arrays_of(s)[0]) for s in samples)
    if tensors and name not in RANDOM:
        if not name.startswith(("as_strided", "view")):
            modes.add("layout")
        if name not in READING:
            modes.add("vmap")
    if entry["differentiable"]:
        modes |= {"gradient", "second order", "forward mode"}
    return modes


def test_coverage_of_the_table(request, capsys):
    """Every op in every mode it is meant for, by the samples above; printed."""
    ran = {item.name for item in request.session.items}
    if not all(f"test_compiled_bits_are_eagers[{s.id}]" in ran for s in SAMPLES):
        pytest.skip("only some of the samples were run")
    wanted, missing = defaultdict(set), []
    for name, entry in {s.op: s.entry for s in SAMPLES}.items():
        for mode in promised(entry, [s for s in SAMPLES if s.op == name]):
            wanted[mode].add(name)
            missing += [(name, mode)] * (name not in EXERCISED[mode])
    covered = [f"{m} {len(n & EXERCISED[m])} of {len(n)}" for m, n in sorted(wanted.items())]
    with capsys.disabled():
        print(f"\ncoverage of the op table by samples: {', '.join(covered)}")
    assert not missing
    assert {s.op for s in SAMPLES} == set(spool.op_names())
