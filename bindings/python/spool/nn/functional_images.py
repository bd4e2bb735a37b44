"""Functions of signals and images, for :mod:`spool.nn.functional`: convolution, padding, pooling, other sizes."""

import math

from .. import _C
from .._C import (
    avg_pool1d,
    avg_pool2d,
    conv_transpose1d,
    conv_transpose2d,
    max_pool1d_with_indices,
    max_pool2d_with_indices,
    pixel_shuffle,
    pixel_unshuffle,
)

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "interpolate",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
]


@_C._boundary
def pad(input, pad, mode="constant", value=None):
    """Something before and after the last dimensions: a number, or elements of the input.

    Parameters
    ----------
    input : Tensor
    pad : sequence of int
        (before, after) of the last dimension, then of the one before it, and so on. Negative numbers take elements away.
    mode : {'constant', 'reflect', 'replicate', 'circular'}
        'reflect' turns what is next to an end around, without the end itself; 'replicate' repeats the end; 'circular' takes
        from the other end.
    value : float, optional
        The number of 'constant', 0 by default.

    Returns
    -------
    Tensor

    Raises
    ------
    ShapeError
        A size would be negative, or there are too few elements to take.
    ValueError
        There are too many numbers, or there is no such mode.
    """
    return _C.pad(input, pad, mode, value)


def _same(op, input, weight, padding, stride, dilation):
    """(input, padding) with numbers for 'valid' and 'same'; what is odd goes behind."""
    n = weight.ndim - 2
    if padding not in ("valid", "same"):
        raise ValueError(f"{op}: padding must be numbers, 'valid' or 'same', not {padding!r}")
    if padding == "valid":
        return input, 0
    numbers = lambda value: (value,) * n if isinstance(value, int) else tuple(value)  # noqa: E731
    if any(s != 1 for s in numbers(stride)):
        raise ValueError(f"{op}: padding 'same' needs a stride of 1, got {stride}")
    steps = numbers(dilation) * (n if len(numbers(dilation)) == 1 else 1)
    totals = [d * (k - 1) for d, k in zip(steps, weight.shape[2:])]
    odd = [p for total in reversed(totals) for p in (0, total % 2)]
    return (pad(input, odd) if any(odd) else input), [total // 2 for total in totals]


@_C._boundary
def conv1d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolution of signals (without turning the kernel around).

    Parameters
    ----------
    input : Tensor
        ``(N, C, L)`` or ``(C, L)``
    weight : Tensor
        ``(O, C / groups, K)``
    bias : Tensor, optional
        ``(O,)``
    stride, dilation, groups : int
    padding : int or {'valid', 'same'}
        As :class:`spool.nn.Conv1d` says.

    Returns
    -------
    Tensor
        ``(N, O, L_out)`` or ``(O, L_out)``

    Raises
    ------
    ShapeError
        The sizes do not fit.
    ValueError
        A number is out of range, or there is no such padding.
    """
    if isinstance(padding, str):
        input, padding = _same("conv1d", input, weight, padding, stride, dilation)
    return _C.conv1d(input, weight, bias, stride, padding, dilation, groups)


@_C._boundary
def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolution of images, ``(N, C, H, W)`` or ``(C, H, W)``; see :func:`conv1d`."""
    if isinstance(padding, str):
        input, padding = _same("conv2d", input, weight, padding, stride, dilation)
    return _C.conv2d(input, weight, bias, stride, padding, dilation, groups)


@_C._boundary
def max_pool1d(
    input,
    kernel_size,
    stride=None,
    padding=0,
    dilation=1,
    ceil_mode=False,
    return_indices=False,
):
    """The largest element of each window of a signal.

    Parameters
    ----------
    input : Tensor
        ``(N, C, L)`` or ``(C, L)``
    kernel_size, stride, padding, dilation : int
        As :class:`spool.nn.MaxPool1d` says.
    ceil_mode : bool
        Windows that begin inside may end outside.
    return_indices : bool
        Whether to say where they stand, too.

    Returns
    -------
    Tensor or pair of Tensors

    Raises
    ------
    ShapeError
        There is no room for a window.
    ValueError
        A size is out of range.
    """
    if return_indices:
        return _C.max_pool1d_with_indices(input, kernel_size, stride, padding, dilation, ceil_mode)
    return _C.max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode)


@_C._boundary
def max_pool2d(
    input,
    kernel_size,
    stride=None,
    padding=0,
    dilation=1,
    ceil_mode=False,
    return_indices=False,
):
    """The largest element of each window of an image, ``(N, C, H, W)`` or ``(C, H, W)``; see :func:`max_pool1d`."""
    if return_indices:
        return _C.max_pool2d_with_indices(input, kernel_size, stride, padding, dilation, ceil_mode)
    return _C.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode)


def _own_sizes(input, output_size):
    """A pair in which None stands for the input's size."""
    if isinstance(output_size, (tuple, list)):
        sizes = input.shape[-len(output_size) :]
        return [own if asked is None else asked for asked, own in zip(output_size, sizes)]
    return output_size


@_C._boundary
def adaptive_avg_pool1d(input, output_size):
    """Means of ``output_size`` windows that share a signal out evenly; see :class:`spool.nn.AdaptiveAvgPool1d`."""
    return _C.adaptive_avg_pool1d(input, output_size)


@_C._boundary
def adaptive_avg_pool2d(input, output_size):
    """Means of windows that share an image out evenly; see :class:`spool.nn.AdaptiveAvgPool2d`."""
    return _C.adaptive_avg_pool2d(input, _own_sizes(input, output_size))


@_C._boundary
def adaptive_max_pool1d(input, output_size, return_indices=False):
    """The largest elements of windows that share a signal out evenly; see :class:`spool.nn.AdaptiveMaxPool1d`."""
    values, indices = _C.adaptive_max_pool1d(input, output_size)
    return (values, indices) if return_indices else values


@_C._boundary
def adaptive_max_pool2d(input, output_size, return_indices=False):
    """The largest elements of windows that share an image out evenly; see :class:`spool.nn.AdaptiveMaxPool2d`."""
    values, indices = _C.adaptive_max_pool2d(input, _own_sizes(input, output_size))
    return (values, indices) if return_indices else values


_RESAMPLED = {
    "nearest": ("nearest", (1, 2)),
    "nearest-exact": ("nearest_exact", (1, 2)),
    "linear": ("linear", (1,)),
    "bilinear": ("linear", (2,)),
    "bicubic": ("cubic", (2,)),
    "area": (None, (1, 2)),
}


def _new_size(input, size, scale_factor, n):
    """(sizes, scales or Nones) of the last n dimensions."""
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: give one of size and scale_factor")
    given = size if size is not None else scale_factor
    given = list(given) if isinstance(given, (tuple, list)) else [given] * n
    if len(given) != n:
        raise ValueError(
            f"interpolate: {len(given)} numbers for an input of shape {tuple(input.shape)}; expected one or {n}"
        )
    if size is not None:
        return given, [None] * n
    return [int(math.floor(d * s)) for d, s in zip(input.shape[-n:], given)], given


@_C._boundary
def interpolate(
    input,
    size=None,
    scale_factor=None,
    mode="nearest",
    align_corners=None,
    recompute_scale_factor=None,
    antialias=False,
):
    """A signal or image in another size.

    Parameters
    ----------
    input : Tensor
        ``(N, C, L)`` or ``(N, C, H, W)``, floating.
    size : int or pair, optional
        Of the result.
    scale_factor : float or pair, optional
        In place of it: sizes are the input's times that, rounded down.
    mode : {'nearest', 'nearest-exact', 'linear', 'bilinear', 'bicubic', 'area'}
        'linear' is for signals, 'bilinear' and 'bicubic' for images. 'area' is adaptive average pooling.
    align_corners : bool, optional
        For the three that weigh elements: the first and last elements keep their places, rather than the edges.
    recompute_scale_factor : bool, optional
        Positions follow the sizes rather than ``scale_factor`` itself.
    antialias : bool
        Not supported.

    Returns
    -------
    Tensor
        ``(N, C, ...)``

    Raises
    ------
    ShapeError
        The input has another number of dimensions.
    ValueError
        There is no such mode for it, or the sizes do not make sense.
    NotImplementedError
        ``antialias``.
    """
    n = input.ndim - 2
    if mode not in _RESAMPLED:
        raise ValueError(f"interpolate: mode must be one of {tuple(_RESAMPLED)}, not {mode!r}")
    kind, dims = _RESAMPLED[mode]
    if n not in dims:
        raise _C.ShapeError(
            f"interpolate: mode {mode!r} takes {' or '.join(str(d + 2) for d in dims)} dimensions, "
            f"but the input has shape {tuple(input.shape)}"
        )
    if antialias:
        raise NotImplementedError("interpolate: antialias is not supported; leave it out")
    if align_corners is not None and kind not in ("linear", "cubic"):
        raise ValueError(f"interpolate: align_corners is not for mode {mode!r}; leave it out")
    sizes, scales = _new_size(input, size, scale_factor, n)
    if kind is None:
        pooled = _C.adaptive_avg_pool1d if n == 1 else _C.adaptive_avg_pool2d
        return pooled(input, sizes)
    scale_h, scale_w = ([None] * 2 + ([None] * n if recompute_scale_factor else scales))[-2:]
    return _C.resample(input, sizes, kind, bool(align_corners), scale_h, scale_w)
