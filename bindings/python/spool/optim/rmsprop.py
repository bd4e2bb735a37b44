"""RMSprop (Tieleman, Hinton: Coursera lecture 6.5, 2012; centered: Graves, arXiv:1308.0850)."""

from __future__ import annotations

from .optimizer import Optimizer, entry, with_decay

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    """Steps of gradients over the root of their mean square.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
    lr : float
        Learning rate.
    alpha : float
        How much of the mean square is kept.
    eps : float
    weight_decay : float
        This times the parameter is added to the gradient.
    momentum : float
    centered : bool
        Divide by an estimate of the standard deviation.
    maximize : bool
        Go up.

    Raises
    ------
    ValueError
        An option is negative.
    """

    def __init__(
        self,
        params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "alpha": alpha,
                "eps": eps,
                "centered": centered,
                "weight_decay": weight_decay,
                "maximize": maximize,
            },
        )

    def _check_options(self, group):
        super()._check_options(group)
        if not group["alpha"] >= 0.0:
            raise ValueError(f"Invalid alpha value: {group['alpha']}")

    def _update(self, group, params, grads):
        grads = with_decay(params, grads, group["weight_decay"], group["maximize"])
        for p, g in zip(params, grads):
            self._update_one(group, self.state[p], p, g)

    @staticmethod
    def _update_one(group, state, p, g):
        alpha = group["alpha"]
        state["step"] = state.get("step", 0) + 1
        square = entry(state, "square_avg", p)
        square.mul_(alpha).add_(g * g, alpha=1 - alpha)
        if group["centered"]:
            mean = entry(state, "grad_avg", p)
            mean.lerp_(g, 1 - alpha)
            square = square - mean * mean
        change = g / (square.sqrt() + group["eps"])
        if group["momentum"] > 0:
            change = entry(state, "momentum_buffer", p).mul_(group["momentum"]).add_(change)
        p.sub_(change, alpha=group["lr"])
