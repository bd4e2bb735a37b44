"""Pooling layers; each calls the function of its name in :mod:`spool.nn.functional`."""

from __future__ import annotations

from . import functional as F
from .module import Module

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AvgPool1d",
    "AvgPool2d",
    "MaxPool1d",
    "MaxPool2d",
]


class _MaxPool(Module):
    def __init__(
        self,
        kernel_size,
        stride=None,
        padding=0,
        dilation=1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def _pooled(self, function, input):
        return function(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )

    def extra_repr(self):
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest element of each window of a signal.

    Shapes: ``(N, C, L)`` or ``(C, L)`` to ``(N, C, L_out)`` or ``(C, L_out)``, with
    ``L_out = (L + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``.

    Parameters
    ----------
    kernel_size : int
    stride : int, optional
        From one window to the next, ``kernel_size`` by default.
    padding : int
        At each end, at most half of a window; it is smaller than every number.
    dilation : int
        Distance of a window's elements.
    return_indices : bool
        Also where the largest elements stand, as int64 positions in the signal.
    ceil_mode : bool
        Windows that begin inside may end outside.

    Raises
    ------
    ShapeError
        There is no room for a window.
    ValueError
        A size is out of range.
    """

    def forward(self, input):
        return self._pooled(F.max_pool1d, input)


class MaxPool2d(_MaxPool):
    """The largest element of each window of an image.

    Shapes: ``(N, C, H, W)`` or ``(C, H, W)``; sizes become what :class:`MaxPool1d` says. Parameters and errors are those of
    :class:`MaxPool1d`, with one number for both dimensions or a pair. Indices count row by row.

    Examples
    --------
    >>> import spool
    >>> spool.nn.MaxPool2d(2)(spool.randn(8, 3, 28, 28)).shape
    spool.Size([8, 3, 14, 14])
    """

    def forward(self, input):
        return self._pooled(F.max_pool2d, input)


class AvgPool1d(Module):
    """The mean of each window of a signal.

    Shapes: ``(N, C, L)`` or ``(C, L)``, with ``L_out = (L + 2 * padding - kernel_size) // stride + 1``.

    Parameters
    ----------
    kernel_size : int
    stride : int, optional
        From one window to the next, ``kernel_size`` by default.
    padding : int
        Zeros at each end, at most half of a window.
    ceil_mode : bool
        Windows that begin inside may end outside.
    count_include_pad : bool
        Whether padding counts in what sums are divided by.

    Raises
    ------
    ShapeError
        There is no room for a window.
    ValueError
        A size is out of range.
    """

    def __init__(
        self,
        kernel_size,
        stride=None,
        padding=0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        super().__init__()
        one = lambda value: value if isinstance(value, tuple) else (value,)  # noqa: E731
        self.kernel_size = one(kernel_size)
        self.stride = one(kernel_size if stride is None else stride)
        self.padding = one(padding)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input):
        return F.avg_pool1d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
        )

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(Module):
    """The mean of each window of an image.

    Shapes: ``(N, C, H, W)`` or ``(C, H, W)``. Parameters and errors are those of :class:`AvgPool1d`, with one number for both
    dimensions or a pair.

    Parameters
    ----------
    divisor_override : int, optional
        What sums are divided by.
    """

    def __init__(
        self,
        kernel_size,
        stride=None,
        padding=0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, input):
        return F.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AdaptiveAvgPool(Module):
    def __init__(self, output_size):
        super().__init__()
        self.output_size = output_size

    def extra_repr(self):
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Means of windows that share a signal out evenly.

    Shapes: ``(N, C, L)`` or ``(C, L)`` to ``(N, C, output_size)`` or ``(C, output_size)``. Window i goes from
    ``floor(i * L / output_size)`` to ``ceil((i + 1) * L / output_size)``.

    Parameters
    ----------
    output_size : int
    """

    def forward(self, input):
        return F.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Means of windows that share an image out evenly; see :class:`AdaptiveAvgPool1d`.

    Parameters
    ----------
    output_size : int or pair
        None stands for the input's size.
    """

    def forward(self, input):
        return F.adaptive_avg_pool2d(input, self.output_size)


class _AdaptiveMaxPool(Module):
    def __init__(self, output_size, return_indices: bool = False):
        super().__init__()
        self.output_size, self.return_indices = output_size, return_indices

    def extra_repr(self):
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The largest elements of windows that share a signal out evenly; see :class:`AdaptiveAvgPool1d`.

    Parameters
    ----------
    output_size : int
    return_indices : bool
        Also where they stand, as int64 positions in the signal.
    """

    def forward(self, input):
        return F.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The largest elements of windows that share an image out evenly; see :class:`AdaptiveAvgPool1d`.

    Parameters
    ----------
    output_size : int or pair
        None stands for the input's size.
    return_indices : bool
        Also where they stand, as int64 positions in the image, row by row.
    """

    def forward(self, input):
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)
