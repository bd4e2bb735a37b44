"""Adam and AdamW (Kingma, Ba: ICLR 2015; Loshchilov, Hutter: ICLR 2019; amsgrad: Reddi, Kale, Kumar: ICLR 2018)."""

from __future__ import annotations

import math

from .. import _C
from .optimizer import Optimizer, entry, with_decay

__all__ = ["Adam", "AdamW"]


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

    def _check_options(self, group):
        super()._check_options(group)
        for i, beta in enumerate(group["betas"]):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"Invalid beta parameter at index {i}: {beta}")

    def _update(self, group, params, grads):
        decoupled = group["decoupled_weight_decay"]
        decay = 0 if decoupled else group["weight_decay"]
        grads = with_decay(params, grads, decay, group["maximize"])
        if decoupled and group["weight_decay"] != 0:
            for p in params:
                p.mul_(1 - group["lr"] * group["weight_decay"])
        for p, g in zip(params, grads):
            self._update_one(group, self.state[p], p, g)

    @staticmethod
    def _update_one(group, state, p, g):
        beta1, beta2 = group["betas"]
        step = state["step"] = state.get("step", 0) + 1
        mean, square = entry(state, "exp_avg", p), entry(state, "exp_avg_sq", p)
        mean.lerp_(g, 1 - beta1)
        square.mul_(beta2).add_(g * g, alpha=1 - beta2)
        if group["amsgrad"]:
            largest = entry(state, "max_exp_avg_sq", p)
            largest.copy_(_C.maximum(largest, square))
            square = largest
        root = square.sqrt() / math.sqrt(1 - beta2**step) + group["eps"]
        p.sub_(mean / root, alpha=group["lr"] / (1 - beta1**step))


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
