"""Stochastic gradient descent."""

from __future__ import annotations

from .. import _C
from .optimizer import Optimizer

__all__ = ["SGD"]


class SGD(Optimizer):
    """Gradient descent, with momentum if asked for.

    ``buf = momentum * buf + (1 - dampening) * grad`` (from the first gradient on), ``param -= lr * buf``; with ``nesterov``
    ``param -= lr * (grad + momentum * buf)``.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
    lr : float
        Learning rate.
    momentum, dampening : float
    weight_decay : float
        This times the parameter is added to the gradient.
    nesterov : bool
        Needs momentum and no dampening.
    maximize : bool
        Go up.

    Raises
    ------
    ValueError
        An option is negative, or ``nesterov`` without momentum.

    Examples
    --------
    >>> import spool
    >>> w = spool.nn.Parameter(spool.tensor([1.0]))
    >>> opt = spool.optim.SGD([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> w.item()
    0.0
    """

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def _check_options(self, group):
        super()._check_options(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")

    def _update(self, group, params, grads):
        common = (group["lr"], group["weight_decay"], group["maximize"])
        if group["momentum"] == 0:
            tensors = [t for pair in zip(params, grads) for t in pair]
            _C._update_each("sgd_step", tensors, *common)
            return
        for first, tensors in self._with_buffers(params, grads).items():
            _C._update_each(
                "sgd_step.momentum",
                tensors,
                *common,
                group["momentum"],
                group["dampening"],
                group["nesterov"],
                first,
            )

    def _with_buffers(self, params, grads):
        """Parameter, buffer and gradient, one parameter after the other, by whether the buffer is new."""
        tensors = {}
        for p, g in zip(params, grads):
            state = self.state[p]
            first = state.get("momentum_buffer") is None
            if first:
                state["momentum_buffer"] = _C.zeros_like(p)
            tensors.setdefault(first, []).extend((p, state["momentum_buffer"], g))
        return tensors
