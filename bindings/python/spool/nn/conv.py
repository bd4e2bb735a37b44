"""Convolution layers; each calls the function of its name in :mod:`spool.nn.functional`."""

from __future__ import annotations

import math

from .. import _C
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter

__all__ = ["Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"]

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def _numbers(value, n):
    """A number for each dimension."""
    return (value,) * n if isinstance(value, int) else tuple(value)


class _Conv(Module):
    """What convolutions and their transposes share: numbers, parameters, initial values."""

    dims = 0
    transposed = False

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding,
        output_padding,
        dilation,
        groups,
        bias,
        padding_mode,
        device,
        dtype,
    ):
        super().__init__()
        name, n = type(self).__name__, self.dims
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name}: {in_channels} and {out_channels} channels cannot be split into {groups} groups"
            )
        if padding_mode not in _PADDING_MODES:
            raise ValueError(
                f"{name}: padding_mode must be one of {_PADDING_MODES}, not {padding_mode!r}"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = _numbers(kernel_size, n), _numbers(stride, n)
        self.padding = padding if isinstance(padding, str) else _numbers(padding, n)
        self.output_padding, self.dilation = _numbers(output_padding, n), _numbers(dilation, n)
        self.groups, self.padding_mode = groups, padding_mode
        if self.padding not in ("same", "valid") and isinstance(padding, str):
            raise ValueError(f"{name}: padding must be numbers, 'valid' or 'same', not {padding!r}")
        if self.padding == "same" and any(s != 1 for s in self.stride):
            raise ValueError(f"{name}: padding 'same' needs a stride of 1")
        first, second = out_channels, in_channels
        if self.transposed:
            first, second = second, first
        self.weight = Parameter(
            _C.empty(first, second // groups, *self.kernel_size, dtype=dtype, device=device)
        )
        self.register_parameter(
            "bias", Parameter(_C.empty(out_channels, dtype=dtype, device=device)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        fan_in = self.weight[0].numel() if len(self.weight) else 0
        if self.bias is not None and fan_in:
            init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def _around(self):
        """Padding before and after each dimension, the last one first, as :func:`spool.nn.functional.pad` takes it."""
        pads = []
        for i in reversed(range(self.dims)):
            total = self.dilation[i] * (self.kernel_size[i] - 1)
            if self.padding == "same":
                pads += [total // 2, total - total // 2]
            else:
                pads += [0, 0] if self.padding == "valid" else [self.padding[i]] * 2
        return pads

    def _convolved(self, function, input):
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._around(), self.padding_mode), 0
        return function(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )

    def _transposed(self, function, input, output_size):
        more = self.output_padding
        if output_size is not None:
            more = self._more_for(input, list(output_size)[-self.dims :])
        return function(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            more,
            self.groups,
            self.dilation,
        )

    def _more_for(self, input, sizes):
        """The output padding that gives results of these sizes."""
        more = []
        for i, size in enumerate(sizes):
            least = (
                (input.shape[i - self.dims] - 1) * self.stride[i]
                - 2 * self.padding[i]
                + self.dilation[i] * (self.kernel_size[i] - 1)
                + 1
            )
            if not least <= size < least + self.stride[i]:
                raise ValueError(
                    f"{type(self).__name__}: output_size asks for {size} in dimension {i}, but an input of shape "
                    f"{tuple(input.shape)} can only give {least} to {least + self.stride[i] - 1}"
                )
            more.append(size - least)
        return more

    def extra_repr(self):
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}"
        )
        for name, usual in (("padding", 0), ("dilation", 1), ("output_padding", 0)):
            if getattr(self, name) != (usual,) * self.dims:
                value = getattr(self, name)
                text += f", {name}={value}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class _ConvForward(_Conv):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device=None,
        dtype=None,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            0,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )


class Conv1d(_ConvForward):
    """Convolution of signals (without turning the kernel around).

    Shapes: ``(N, C, L)`` or ``(C, L)`` to ``(N, O, L_out)`` or ``(O, L_out)``, with
    ``L_out = (L + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, dilation : int
    padding : int or {'valid', 'same'}
        At each end. 'valid' is none, 'same' as much as keeps the length, which needs a stride of 1.
    groups : int
        Channels are split into so many groups, each with its own part of the weights.
    bias : bool
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular'}
        What padding is.
    device : str or device, optional
    dtype : dtype, optional
        Of the parameters, float32 by default.

    Attributes
    ----------
    weight : Parameter
        ``(out_channels, in_channels / groups, kernel_size)``, from the start uniform in ``±1 / sqrt(fan_in)``, where ``fan_in``
        is the number of weights an output channel has.
    bias : Parameter or None
        ``(out_channels,)``, likewise.

    Raises
    ------
    ValueError
        The channels cannot be split into the groups, or there is no such padding.
    """

    dims = 1

    def forward(self, input):
        return self._convolved(F.conv1d, input)


class Conv2d(_ConvForward):
    """Convolution of images (without turning the kernel around).

    Shapes: ``(N, C, H, W)`` or ``(C, H, W)``; sizes become what :class:`Conv1d` says. Parameters, attributes and errors are
    those of :class:`Conv1d`, with one number for both dimensions or a pair.

    Examples
    --------
    >>> import spool
    >>> spool.nn.Conv2d(3, 16, 3, padding="same")(spool.randn(8, 3, 28, 28)).shape
    spool.Size([8, 16, 28, 28])
    """

    dims = 2

    def forward(self, input):
        return self._convolved(F.conv2d, input)


class _ConvTranspose(_Conv):
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size,
        stride=1,
        padding=0,
        output_padding=0,
        groups: int = 1,
        bias: bool = True,
        dilation=1,
        padding_mode: str = "zeros",
        device=None,
        dtype=None,
    ):
        if padding_mode != "zeros":
            raise ValueError(f"{type(self).__name__}: padding_mode must be 'zeros'")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )


class ConvTranspose1d(_ConvTranspose):
    """The transpose of :class:`Conv1d`: it maps what that gives back to the length that it was given.

    Shapes: ``(N, C, L)`` or ``(C, L)`` to ``(N, O, L_out)`` or ``(O, L_out)``, with
    ``L_out = (L - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + output_padding + 1``.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation : int
    output_padding : int
        Added to the length of the result; less than ``stride``.
    groups : int
    bias : bool
    padding_mode : {'zeros'}
    device : str or device, optional
    dtype : dtype, optional

    Attributes
    ----------
    weight : Parameter
        ``(in_channels, out_channels / groups, kernel_size)``
    bias : Parameter or None
        ``(out_channels,)``
    """

    dims = 1

    def forward(self, input, output_size=None):
        return self._transposed(F.conv_transpose1d, input, output_size)


class ConvTranspose2d(_ConvTranspose):
    """The transpose of :class:`Conv2d`; see :class:`ConvTranspose1d`, with one number for both dimensions or a pair."""

    dims = 2

    def forward(self, input, output_size=None):
        return self._transposed(F.conv_transpose2d, input, output_size)
