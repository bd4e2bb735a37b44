"""Adadelta (Zeiler: arXiv:1212.5701)."""

from __future__ import annotations

from .. import _C
from .optimizer import Optimizer

__all__ = ["Adadelta"]


class Adadelta(Optimizer):
    """Steps as large as past steps were, relative to past gradients.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
    lr : float
        What a step is multiplied with.
    rho : float
        How much of the mean squares of gradients and of steps is kept.
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
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "rho": rho,
                "eps": eps,
                "weight_decay": weight_decay,
                "maximize": maximize,
            },
        )

    def _check_options(self, group):
        super()._check_options(group)
        if not 0.0 <= group["rho"] <= 1.0:
            raise ValueError(f"Invalid rho value: {group['rho']}")

    def _update(self, group, params, grads):
        for tensors in self._advance(params, grads, ("square_avg", "acc_delta")).values():
            _C._update_each(
                "adadelta_step",
                tensors,
                group["lr"],
                group["rho"],
                group["eps"],
                group["weight_decay"],
                group["maximize"],
            )
