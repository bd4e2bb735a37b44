"""Adam and AdamW (Kingma, Ba: ICLR 2015; Loshchilov, Hutter: ICLR 2019; amsgrad: Reddi, Kale, Kumar: ICLR 2018)."""

from __future__ import annotations

from .. import _C
from .optimizer import Optimizer

__all__ = ["Adam", "AdamW"]


def _step_by_moments(optimizer, op, names, group, params, grads, *last):
    """One launch for all parameters that are at the same step, of an op with Adam's numbers first and ``last`` behind them."""
    for step, tensors in optimizer._advance(params, grads, names).items():
        numbers = (group["lr"], step, *group["betas"], group["eps"], group["weight_decay"])
        _C._update_each(op, tensors, *numbers, *last)


class Adam(Optimizer):
    """Steps of moment estimates: ``lr * m / (sqrt(v) + eps)``, both corrected for their start at zero.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
    lr : float
        Learning rate.
    betas : (float, float)
        How much of the means of gradients and of their squares is kept.
    eps : float
    weight_decay : float
        This times the parameter is added to the gradient; in AdamW, ``lr`` times this times the parameter is subtracted from it.
    amsgrad : bool
        Use the largest mean square so far.
    maximize : bool
        Go up.
    decoupled_weight_decay : bool
        As AdamW.

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
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )

    def _update(self, group, params, grads):
        names, op = ("exp_avg", "exp_avg_sq"), "adam_step"
        if group["amsgrad"]:
            names, op = (*names, "max_exp_avg_sq"), "adam_step.amsgrad"
        last = group["decoupled_weight_decay"], group["maximize"]
        _step_by_moments(self, op, names, group, params, grads, *last)


class AdamW(Adam):
    """:class:`Adam` with weight decay apart from the gradient: ``param *= 1 - lr * weight_decay``.

    Parameters are those of :class:`Adam`; ``weight_decay`` is 0.01 by default.
    """

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        betas: tuple = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ):
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            decoupled_weight_decay=True,
        )
