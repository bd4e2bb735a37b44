"""RAdam (Liu et al.: On the variance of the adaptive learning rate and beyond, ICLR 2020)."""

from __future__ import annotations

from .adam import _step_by_moments
from .optimizer import Optimizer

__all__ = ["RAdam"]


class RAdam(Optimizer):
    """Adam whose first steps leave the root out, until enough gradients were seen to trust it.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
    lr : float
        Learning rate.
    betas : (float, float)
        How much of the means of gradients and of their squares is kept.
    eps : float
    weight_decay : float
        This times the parameter is added to the gradient.
    decoupled_weight_decay : bool
        Instead, ``lr`` times ``weight_decay`` times the parameter is subtracted from it.
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
        lr: float = 1e-3,
        betas: tuple = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
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
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )

    def _update(self, group, params, grads):
        last = group["decoupled_weight_decay"], group["maximize"]
        names = ("exp_avg", "exp_avg_sq")
        _step_by_moments(self, "radam_step", names, group, params, grads, *last)
