"""Adagrad (Duchi, Hazan, Singer: JMLR 12, 2011)."""

from __future__ import annotations

from .. import _C
from .optimizer import Optimizer, with_decay

__all__ = ["Adagrad"]


class Adagrad(Optimizer):
    """Steps of gradients over the root of the sum of their squares.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
    lr : float
        Learning rate.
    lr_decay : float
        Step n has the rate ``lr / (1 + (n - 1) * lr_decay)``.
    weight_decay : float
        This times the parameter is added to the gradient.
    initial_accumulator_value : float
        What the sums start at.
    eps : float
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
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "eps": eps,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "maximize": maximize,
            },
        )

    def _check_options(self, group):
        super()._check_options(group)
        start = group["initial_accumulator_value"]
        if not start >= 0.0:
            raise ValueError(f"Invalid initial_accumulator_value value: {start}")

    def _update(self, group, params, grads):
        grads = with_decay(params, grads, group["weight_decay"], group["maximize"])
        for p, g in zip(params, grads):
            self._update_one(group, self.state[p], p, g)

    @staticmethod
    def _update_one(group, state, p, g):
        step = state["step"] = state.get("step", 0) + 1
        if "sum" not in state:
            state["sum"] = _C.full_like(p, group["initial_accumulator_value"])
        total = state["sum"].add_(g * g)
        rate = group["lr"] / (1 + (step - 1) * group["lr_decay"])
        p.sub_(g / (total.sqrt() + group["eps"]), alpha=rate)
