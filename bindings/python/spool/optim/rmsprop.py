"""RMSprop (Tieleman, Hinton: Coursera lecture 6.5, 2012; centered: Graves, arXiv:1308.0850)."""

from __future__ import annotations

from .. import _C
from .optimizer import Optimizer

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
        names, numbers, kinds = ["square_avg"], [], []
        if group["centered"]:
            names.append("grad_avg")
            kinds.append("centered")
        if group["momentum"] > 0:
            names.append("momentum_buffer")
            kinds.append("momentum")
            numbers.append(group["momentum"])
        op = "rmsprop_step" + ("." + "_".join(kinds) if kinds else "")
        for tensors in self._advance(params, grads, names).values():
            _C._update_each(
                op,
                tensors,
                group["lr"],
                group["alpha"],
                group["eps"],
                group["weight_decay"],
                group["maximize"],
                *numbers,
            )
