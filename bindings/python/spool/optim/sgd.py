"""Stochastic gradient descent."""

from __future__ import annotations

from .optimizer import Optimizer, with_decay

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
        momentum, lr = group["momentum"], group["lr"]
        grads = with_decay(params, grads, group["weight_decay"], group["maximize"])
        for p, g in zip(params, grads):
            p.sub_(self._direction(group, p, g) if momentum != 0 else g, alpha=lr)

    def _direction(self, group, p, g):
        state, momentum = self.state[p], group["momentum"]
        buf = state.get("momentum_buffer")
        if buf is None:
            buf = state["momentum_buffer"] = g.detach().clone()
        else:
            buf.mul_(momentum).add_(g, alpha=1 - group["dampening"])
        return g.add(buf, alpha=momentum) if group["nesterov"] else buf
