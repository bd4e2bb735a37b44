"""PyTorch's side of the samples: the function that an op is compared with, and what it yields for the same arguments."""

import numpy as np
import torch
import torch.nn.functional as F
from samples import REFLECTED, arrays_of, is_list, outputs, python_kwargs

# PyTorch refuses the negative indices that Spool counts from the end.
INDEX_FROM_END = {"gather", "index_select", "index_copy", "scatter", "index_fill.scalar"}
# Ops whose PyTorch spelling is not a function of the same name.
TORCH = {
    "ravel_multi_index": lambda xs, dims: torch.from_numpy(
        np.asarray(
            np.ravel_multi_index(
                np.broadcast_arrays(*[x.numpy() % d for x, d in zip(xs, dims)]), dims
            )
        )
    ),
    "conj_dot": torch.vdot,
    "count_classes": lambda x, size: torch.bincount(x, minlength=size),
    "cast": lambda x, dtype: x.to(dtype),
    "copy": lambda x, src: x.clone().copy_(src),
    "fill": lambda x, value: x.clone().fill_(value),
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
    "silu": lambda x: x * torch.sigmoid(x) if x.is_complex() else F.silu(x),  # no gradient of those
    "silu_backward": lambda grad, x: (
        grad * torch.sigmoid(x) * (1 + x * torch.sigmoid(-x))
        if x.is_complex()
        else grad * slope_of(F.silu, x)
    ),
    "gelu_backward": lambda grad, x, approximate="none": (
        grad * slope_of(lambda v: F.gelu(v, approximate=approximate), x)
    ),
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
        [
            sorted(range(x.shape[-2]), key=lambda i: matrix[i].tolist())
            for matrix in x[None].flatten(0, -3)
        ],
        dtype=torch.int64,
    ).reshape(x.shape[:-1]),
    "middle": lambda x, dim, keepdim=False, skip_nan=False: (
        torch.nanmedian if skip_nan else torch.median
    )(x, dim, keepdim),
    "is_among": lambda lists, x: (
        (x[..., None] == lists[..., None, :]).any(-1) if x.dim() else (x == lists).any()
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
    "max_pool_values": lambda x, *args: pooled("max_pool", x, *args)[0],
    "adaptive_max_pool1d": torch.adaptive_max_pool1d,
    "adaptive_max_pool2d": lambda x, size: F.adaptive_max_pool2d(x, size, return_indices=True),
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
    "attention": lambda *args: attention(*args)[:2],
    "attention_backward": lambda *args: attention_backward(*args),
    "nll_loss_backward": lambda grad, target, size, **options: transposed(
        lambda x: F.nll_loss(x, target, **options), grad, size
    ),
    "count_nonzero": lambda x, dim=None, keepdim=False: (x != 0).sum(dim, keepdim),
    "prelu_kernel": lambda x, weight: torch.where(x > 0, x, x * weight),
    "replace_nonfinite": lambda x, nan, inf: torch.nan_to_num(x, nan, inf, -inf),
    "deviation": lambda x, dim=None, keepdim=False: (
        torch.var(x, dim, correction=0, keepdim=keepdim)
        * (x.numel() / max(1, x.mean(dim, keepdim).numel())),
        x.mean(dim, keepdim),
    ),
    "power_sum": lambda x, p, dim=None, keepdim=False: (x.abs() ** p).sum(dim, keepdim),
    "softmax_backward": lambda grad, y, dim: y * (grad - (grad * y).sum(dim, True)),
    "log_softmax_backward": lambda grad, y, dim: grad - y.exp() * grad.sum(dim, True),
    "batch_norm_train": lambda x, *rest: batch_norm_train(x, *rest),
    "channel_affine": lambda x, scale, shift=None: (
        x * along_channels(scale, x) + (0 if shift is None else along_channels(shift, x))
    ),
    "layer_norm_backward": lambda grad, x, shape, weight=None, eps=1e-5: gradients_of(
        lambda x, w, b: layer_norm(x, shape, w, b, eps), grad, x, weight, shape
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
    "adamax_step": lambda *args, **kwargs: stepped(torch.optim.Adamax, *args, **kwargs),
    "nadam_step": lambda *args, **kwargs: nadam_stepped(*args, **kwargs),
    "radam_step": lambda *args, **kwargs: stepped(torch.optim.RAdam, *args, **kwargs),
    "adadelta_step": lambda *args, **kwargs: stepped(torch.optim.Adadelta, *args, **kwargs),
    "polygamma": lambda n, x: derived_digamma(n, x),
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
    "Adamax": {4: ["exp_avg", "exp_inf"]},
    "RAdam": {4: ["exp_avg", "exp_avg_sq"]},
    "Adadelta": {4: ["square_avg", "acc_delta"]},
}


def derived_digamma(n, x):
    """PyTorch's polygamma; where it has few digits, at order 1, its value is taken from zeta."""
    y = torch.polygamma(n, x)
    return y if n != 1 else y + (torch.special.zeta(2, x.detach()) - y.detach())


def nadam_stepped(param, exp_avg, exp_avg_sq, grad, **kwargs):
    """By PyTorch's Adam, which has the means, and by what NAdam's move is made of."""
    rates, shrink = (kwargs.pop("lr"), kwargs.pop("lr_grad")), kwargs.pop("shrink", 1.0)
    step, beta2 = kwargs["step"], kwargs.get("beta2", 0.999)
    slope = grad * (-1 if kwargs.get("maximize") else 1) + kwargs.get("weight_decay", 0) * param
    _, m, v = stepped(torch.optim.Adam, param, exp_avg, exp_avg_sq, grad, lr=0.0, **kwargs)
    root = (v / (1 - beta2**step)).sqrt() + kwargs.get("eps", 1e-8)
    return param * shrink - (rates[0] * m + rates[1] * slope) / root, m, v


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
    function = getattr(F, f"{name}{n}d")
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
    return torch.func.vjp(function, torch.zeros(shape, dtype=y.dtype))[1](y)[0]


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


def layer_norm(x, shape, weight, bias, eps):
    """PyTorch's own has a third derivative that is wrong."""
    var, mean = torch.var_mean(x, list(range(-len(shape), 0)), correction=0, keepdim=True)
    return (x - mean) * (var + eps).rsqrt() * weight + bias


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
    weight = torch.ones(shape, dtype=x.dtype) if weight is None else weight
    return torch.func.vjp(function, x, weight, torch.zeros(shape, dtype=x.dtype))[1](grad)


def slope_of(function, x):
    """PyTorch's derivative of an elementwise function."""
    return torch.func.vjp(function, x)[1](torch.ones_like(x))[0]


def by_name(name):
    """PyTorch's function of that name, a method if there is only that; None if there is neither."""
    for place in (F, torch, torch.special, torch.linalg):
        if callable(getattr(place, name, None)):
            return getattr(place, name)
    if hasattr(torch.Tensor, name):
        return lambda x, *args, **kwargs: getattr(x, name)(*args, **kwargs)
    return None


def torch_op(sample):
    base = sample.op.split(".")[0]
    return REFLECTED[base] if sample.op.endswith(".rscalar") else TORCH.get(base) or by_name(base)


def to_torch(value):
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if is_list(value):
        return [to_torch(v) for v in value]
    return value


def call(sample, args, kwargs):
    """PyTorch's results for the arguments, tensors among them its own."""
    if sample.op in INDEX_FROM_END:
        size = args[0].shape[args[1]] if args[0].dim() else 1
        args = [*args[:2], args[2] % max(1, size), *args[3:]]
    return outputs(torch_op(sample)(*args, **python_kwargs(kwargs, torch)))


def expected(sample, dtype):
    args, kwargs = arrays_of(sample, dtype)
    return call(sample, list(map(to_torch, args)), kwargs)
