"""Layers that change the size of signals and images."""

from __future__ import annotations

from . import functional as F
from .module import Module

__all__ = [
    "PixelShuffle",
    "PixelUnshuffle",
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
]


class Upsample(Module):
    """A signal or image in another size; :func:`spool.nn.functional.interpolate` says how.

    Shapes: ``(N, C, L)`` or ``(N, C, H, W)``.

    Parameters
    ----------
    size : int or pair, optional
        Of the result.
    scale_factor : float or pair, optional
        In place of it: sizes are the input's times that, rounded down.
    mode : {'nearest', 'nearest-exact', 'linear', 'bilinear', 'bicubic', 'area'}
    align_corners : bool, optional
    recompute_scale_factor : bool, optional

    Examples
    --------
    >>> import spool
    >>> spool.nn.Upsample(scale_factor=2, mode="bilinear")(spool.randn(1, 3, 8, 8)).shape
    spool.Size([1, 3, 16, 16])
    """

    def __init__(
        self,
        size=None,
        scale_factor=None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ):
        super().__init__()
        floats = lambda s: tuple(map(float, s)) if isinstance(s, tuple) else float(s)  # noqa: E731
        self.size = size
        self.scale_factor = floats(scale_factor) if scale_factor else None
        self.mode, self.align_corners = mode, align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input):
        return F.interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            self.recompute_scale_factor,
        )

    def extra_repr(self):
        if self.scale_factor is not None:
            return f"scale_factor={self.scale_factor!r}, mode={self.mode!r}"
        return f"size={self.size!r}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """:class:`Upsample` of images with mode 'nearest'."""

    def __init__(self, size=None, scale_factor=None):
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """:class:`Upsample` of images with mode 'bilinear', corners aligned."""

    def __init__(self, size=None, scale_factor=None):
        super().__init__(size, scale_factor, "bilinear", align_corners=True)


class PixelShuffle(Module):
    """Channels to pixels: ``(..., C * r * r, H, W)`` to ``(..., C, H * r, W * r)``.

    Parameters
    ----------
    upscale_factor : int
    """

    def __init__(self, upscale_factor: int):
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input):
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self):
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """The inverse of :class:`PixelShuffle`.

    Parameters
    ----------
    downscale_factor : int
    """

    def __init__(self, downscale_factor: int):
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input):
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self):
        return f"downscale_factor={self.downscale_factor}"
