"""Normalisation as modules."""

from __future__ import annotations

import numbers

from .. import _C
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "LayerNorm",
    "LocalResponseNorm",
    "RMSNorm",
]


class _Scaled(Module):
    """With parameters ``weight`` and ``bias``, or None for them."""

    def _add_parameters(self, shape, weight, bias, dtype):
        for name, wanted in (("weight", weight), ("bias", bias)):
            value = Parameter(_C.empty(*shape, dtype=dtype or _C.float32)) if wanted else None
            self.register_parameter(name, value)

    def reset_parameters(self):
        """Weights become 1, biases 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if getattr(self, "bias", None) is not None:
            init.zeros_(self.bias)


def _shape(sizes):
    return (sizes,) if isinstance(sizes, numbers.Integral) else tuple(sizes)


class LayerNorm(_Scaled):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last dimensions (Ba, Kiros, Hinton, 2016).

    Shapes: ``(*, *normalized_shape)`` to the same.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Sizes of the last dimensions.
    eps : float
    elementwise_affine : bool
        With weight and bias.
    bias : bool
        With bias, if with weight.
    dtype : spool.dtype, optional
    """

    def __init__(
        self,
        normalized_shape,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype=None,
    ):
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self._add_parameters(
            self.normalized_shape, elementwise_affine, elementwise_affine and bias, dtype
        )
        self.reset_parameters()

    def forward(self, input):
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class RMSNorm(_Scaled):
    """``x / sqrt(mean(x * x) + eps) * weight`` over the last dimensions (Zhang, Sennrich, 2019).

    Shapes: ``(*, *normalized_shape)`` to the same.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Sizes of the last dimensions.
    eps : float, optional
        None: the distance of 1 from the next number of the input's dtype.
    elementwise_affine : bool
        With weight.
    dtype : spool.dtype, optional
    """

    def __init__(
        self,
        normalized_shape,
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        dtype=None,
    ):
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        value = _C.ones(*self.normalized_shape, dtype=dtype or _C.float32)
        self.register_parameter("weight", Parameter(value) if elementwise_affine else None)

    def forward(self, input):
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self):
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class GroupNorm(_Scaled):
    """Normalises groups of channels of ``(N, C, *)``, with a weight and a bias a channel (Wu, He, 2018).

    Parameters
    ----------
    num_groups, num_channels : int
        The first divides the second.
    eps : float
    affine : bool
        With weight and bias.
    bias : bool
        With bias, if with weight.
    dtype : spool.dtype, optional
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        dtype=None,
    ):
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError("num_channels must be divisible by num_groups")
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps, self.affine = eps, affine
        self._add_parameters((num_channels,), affine, affine and bias, dtype)
        self.reset_parameters()

    def forward(self, input):
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class _Running(_Scaled):
    """With running statistics, in buffers."""

    def __init__(self, num_features, eps, momentum, affine, track_running_stats, bias, dtype):
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self._add_parameters((num_features,), affine, affine and bias, dtype)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, None)
        if track_running_stats:
            self.running_mean = _C.zeros(num_features, dtype=dtype or _C.float32)
            self.running_var = _C.ones(num_features, dtype=dtype or _C.float32)
            self.num_batches_tracked = _C.tensor(0)
        self.reset_parameters()

    def reset_running_stats(self):
        """Means become 0, variances 1, the count of batches 0."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def _check_input(self, input):
        if input.ndim not in self._ranks:
            ranks = " or ".join(f"{rank}D" for rank in self._ranks)
            raise _C.ShapeError(
                f"{type(self).__name__}: expected a {ranks} tensor, got shape {tuple(input.shape)}"
            )

    def _count(self):
        """Counts a batch; the share of it in the running statistics."""
        if not (self.training and self.track_running_stats):
            return 0.0 if self.momentum is None else self.momentum
        self.num_batches_tracked.add_(1)
        return 1.0 / self.num_batches_tracked.item() if self.momentum is None else self.momentum

    def extra_repr(self):
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


_BATCH_DOC = """Normalises each channel of {shapes} over the batch (Ioffe, Szegedy, 2015).

    While training by the batch's statistics, which the buffers ``running_mean`` and ``running_var`` follow; while evaluating by
    these.

    Parameters
    ----------
    num_features : int
        C
    eps : float
    momentum : float, optional
        The share of a new batch in the running statistics; None for the mean of all batches.
    affine : bool
        With a weight and a bias a channel.
    track_running_stats : bool
        Without, a batch's own statistics are used always.
    bias : bool
        With bias, if with weight.
    dtype : spool.dtype, optional
    """


class _BatchNorm(_Running):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        dtype=None,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias, dtype)

    def forward(self, input):
        self._check_input(input)
        share = self._count()
        own = self.training or self.running_mean is None
        keep = not self.training or self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if keep else None,
            self.running_var if keep else None,
            self.weight,
            self.bias,
            own,
            share,
            self.eps,
        )


class BatchNorm1d(_BatchNorm):
    __doc__ = _BATCH_DOC.format(shapes="``(N, C)`` or ``(N, C, L)``")
    _ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = _BATCH_DOC.format(shapes="``(N, C, H, W)``")
    _ranks = (4,)


_INSTANCE_DOC = """Normalises each channel of each example of {shapes} by itself (Ulyanov, Vedaldi, Lempitsky, 2016).

    Parameters
    ----------
    num_features : int
        C
    eps : float
    momentum : float, optional
        The share of a new batch in the running statistics.
    affine : bool
        With a weight and a bias a channel.
    track_running_stats : bool
        Keep running statistics, and use them while evaluating.
    bias : bool
        With bias, if with weight.
    dtype : spool.dtype, optional
    """


class _InstanceNorm(_Running):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
        dtype=None,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias, dtype)

    def forward(self, input):
        self._check_input(input)
        single = input.ndim == self._ranks[0]
        y = F.instance_norm(
            input.unsqueeze(0) if single else input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return y.squeeze(0) if single else y


class InstanceNorm1d(_InstanceNorm):
    __doc__ = _INSTANCE_DOC.format(shapes="``(N, C, L)`` or ``(C, L)``")
    _ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    __doc__ = _INSTANCE_DOC.format(shapes="``(N, C, H, W)`` or ``(C, H, W)``")
    _ranks = (3, 4)


class LocalResponseNorm(Module):
    """``x / (k + alpha * mean of x * x over neighbouring channels) ** beta`` (Krizhevsky, Sutskever, Hinton, 2012).

    Parameters
    ----------
    size : int
        Channels around each.
    alpha, beta, k : float
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input):
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self):
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
