"""Functions of signals and images, for :mod:`spool.nn.functional`: pooling."""

from .. import _C
from .._C import avg_pool1d, avg_pool2d, max_pool1d_with_indices, max_pool2d_with_indices

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
]


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
