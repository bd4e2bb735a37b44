"""Adamax (Kingma, Ba: ICLR 2015, section 7.1)."""

from __future__ import annotations

from .adam import _step_by_moments
from .optimizer import Optimizer

__all__ = ["Adamax"]


class Adamax(Optimizer):
    """Steps of means of gradients over the largest gradients, which fade: Adam by the infinity norm.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
    lr : float
        Learning rate.
    betas : (float, float)
        How much of the means of gradients and of their largest sizes is kept.
    eps : float
    weight_decay : float
        This times the parameter is added to the gradient.
    maximize : bool
        Go up.

    Raises
    ------
    ValueError
        An option is out of its range.
    """

    def __init__(
        self,
        params,
        lr: float = 2e-3,
        betas: tuple = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "maximize": maximize,
            },
        )

    def _update(self, group, params, grads):
        names = ("exp_avg", "exp_inf")
        _step_by_moments(self, "adamax_step", names, group, params, grads, group["maximize"])
