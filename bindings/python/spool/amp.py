"""Mixed precision: products in half precision, what loses digits in float32, without a change to the program."""

from __future__ import annotations

import functools

from . import _C

__all__ = ["GradScaler", "autocast", "get_autocast_dtype", "is_autocast_enabled"]


def _check_device(device_type):
    if not isinstance(device_type, str):
        raise ValueError(
            f"Expected `device_type` of type `str`, got: `{type(device_type).__name__}`"
        )
    if device_type != "cpu":
        raise RuntimeError(f"autocast: there is no device '{device_type}'; expected 'cpu'")


class autocast:
    """Runs ops in the precision that suits them, within a ``with`` block or in the function it decorates.

    Products (``matmul``, ``linear``, convolutions, ...) cast floating inputs to ``dtype``. Exponentials, logarithms and powers,
    softmax, losses, norms and sums cast them to float32. Ops that join tensors (``cat``, ``addcmul``, ...) cast them to the
    widest dtype among them. All others, ops in place, and float64 and integer tensors stay as they are. Casts are
    differentiated: gradients have their parameters' dtype. Backward, outside or inside, runs as recorded.

    It holds for the thread that enters it, and blocks nest: the innermost one counts.

    Parameters
    ----------
    device_type : str
        ``'cpu'``.
    dtype : dtype, optional
        ``bfloat16``, which it is by default, or ``float16``.
    enabled : bool
        False: ops stay as they are within the block.
    cache_enabled : bool, optional
        Taken for PyTorch's sake; casts are not kept.

    Raises
    ------
    RuntimeError
        There is no such device.
    ValueError
        ``dtype`` is neither of the two.

    Examples
    --------
    >>> import spool
    >>> w, x = spool.ones(2, 2, requires_grad=True), spool.ones(3, 2)
    >>> with spool.autocast("cpu"):
    ...     y = x @ w
    >>> y.dtype
    spool.bfloat16
    >>> y.sum().backward()
    >>> w.grad.dtype
    spool.float32
    """

    def __init__(self, device_type, dtype=None, enabled=True, cache_enabled=None):
        _check_device(device_type)
        self.device, self.fast_dtype = device_type, _C.bfloat16 if dtype is None else dtype
        if self.fast_dtype not in (_C.bfloat16, _C.float16):
            raise ValueError(f"autocast: dtype is {dtype}; expected bfloat16 or float16")
        self._enabled, self._levels = bool(enabled), []

    def __enter__(self):
        self._levels.append(_C._autocast_push(self.fast_dtype, self._enabled))
        return self

    def __exit__(self, *exception: object) -> None:
        _C._autocast_pop(self._levels.pop())

    def __call__(self, function):
        @functools.wraps(function)
        def cast(*args, **kwargs):
            level = _C._autocast_push(self.fast_dtype, self._enabled)
            try:
                return function(*args, **kwargs)
            finally:
                _C._autocast_pop(level)

        return _C._boundary(cast)


def is_autocast_enabled(device_type: str = "cpu") -> bool:
    """Whether this thread is within an enabled :class:`autocast` block."""
    _check_device(device_type)
    return _C._autocast_now() is not None


def get_autocast_dtype(device_type: str = "cpu"):
    """The dtype that products are cast to in this thread, bfloat16 where they are not."""
    _check_device(device_type)
    return _C._autocast_now() or _C.bfloat16


class GradScaler:
    """Scales a loss so that small gradients do not vanish in half precision, and leaves out steps that overflowed.

    The scale grows as long as gradients are finite, and falls when they are not. bfloat16, which has float32's range, does not
    need it.

    Parameters
    ----------
    device : str
        ``'cpu'``.
    init_scale : float
        What losses are multiplied with at first.
    growth_factor, backoff_factor : float
        What the scale is multiplied with after ``growth_interval`` steps in a row that were taken, and after one that was not.
    growth_interval : int
    enabled : bool
        False: losses and gradients stay as they are, and every step is taken.

    Examples
    --------
    >>> import spool
    >>> w = spool.nn.Parameter(spool.ones(2))
    >>> opt, scaler = spool.optim.SGD([w], lr=0.5), spool.amp.GradScaler()
    >>> scaler.scale((w * w).sum()).backward()
    >>> scaler.step(opt)
    >>> scaler.update()
    >>> w.tolist()
    [0.0, 0.0]
    """

    def __init__(
        self,
        device: str = "cpu",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ):
        _check_device(device)
        if enabled and not growth_factor > 1.0:
            raise ValueError("The growth factor must be > 1.0.")
        if enabled and not 0.0 < backoff_factor < 1.0:
            raise ValueError("The backoff factor must be between 0 and 1.")
        self._enabled, self._scale = bool(enabled), float(init_scale)
        self._growth_factor, self._backoff_factor = growth_factor, backoff_factor
        self._growth_interval, self._growth_tracker = growth_interval, 0
        self._finite: dict = {}  # by optimizer: whether its gradients were, when they were unscaled
        self._stepped: set = set()

    def scale(self, outputs):
        """A loss, or a list, tuple or dict of them, times the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, _C.Tensor):
            return outputs * self._scale
        if isinstance(outputs, dict):
            return {key: self.scale(value) for key, value in outputs.items()}
        if isinstance(outputs, (list, tuple)):
            return type(outputs)(self.scale(value) for value in outputs)
        raise ValueError("outputs must be a Tensor or an iterable of Tensors")

    def unscale_(self, optimizer) -> None:
        """Divide the optimizer's gradients by the scale, for those who want to clip them; once before each step.

        Raises
        ------
        RuntimeError
            It was called for this optimizer since the last :meth:`update`.
        """
        if not self._enabled:
            return
        if id(optimizer) in self._finite:
            raise RuntimeError(
                "unscale_() has already been called on this optimizer since the last update()."
            )
        params = [p for group in optimizer.param_groups for p in group["params"]]
        grads = [p.grad for p in params if p.grad is not None]
        with _C.no_grad():
            for grad in grads:
                grad.mul_(1.0 / self._scale)
            self._finite[id(optimizer)] = bool(_C.all_finite(grads)) if grads else True

    def step(self, optimizer, *args, **kwargs):
        """``optimizer.step()`` on gradients that are not scaled, unless one of them is infinite or NaN; what it returned.

        Raises
        ------
        RuntimeError
            It was called for this optimizer since the last :meth:`update`.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs or args:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        if id(optimizer) in self._stepped:
            raise RuntimeError("step() has already been called since the last update().")
        if id(optimizer) not in self._finite:
            self.unscale_(optimizer)
        self._stepped.add(id(optimizer))
        return optimizer.step() if self._finite[id(optimizer)] else None

    def update(self, new_scale: float | None = None) -> None:
        """Set the scale of the next iteration: by what the steps since the last call met, or to ``new_scale``.

        Raises
        ------
        RuntimeError
            No gradients were unscaled since the last call.
        """
        if not self._enabled:
            return
        if new_scale is not None:
            self._scale = float(new_scale)
        elif not self._finite:
            raise RuntimeError("No inf checks were recorded prior to update.")
        elif not all(self._finite.values()):
            self._scale, self._growth_tracker = self._scale * self._backoff_factor, 0
        else:
            self._growth_tracker += 1
            if self._growth_tracker == self._growth_interval:
                self._scale, self._growth_tracker = self._scale * self._growth_factor, 0
        self._finite, self._stepped = {}, set()

    def get_scale(self) -> float:
        """The scale; 1 if not enabled."""
        return self._scale if self._enabled else 1.0

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def state_dict(self) -> dict:
        """Scale, factors and counts; empty if not enabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self._scale,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
        }

    def load_state_dict(self, state_dict: dict) -> None:
        """Take over what :meth:`state_dict` returned.

        Raises
        ------
        RuntimeError
            It is empty, as of a scaler that was not enabled.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError(
                "The source state dict is empty, possibly because it was saved from a disabled instance of GradScaler."
            )
        self._scale = float(state_dict["scale"])
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._growth_tracker = state_dict["_growth_tracker"]
