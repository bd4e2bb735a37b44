"""Adagrad (Duchi, Hazan, Singer: JMLR 12, 2011)."""

from __future__ import annotations

from .. import _C
from .optimizer import Optimizer

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
        start = group["initial_accumulator_value"]
        for step, tensors in self._advance(params, grads, ("sum",), start).items():
            _C._update_each(
                "adagrad_step",
                tensors,
                group["lr"],
                step,
                group["lr_decay"],
                group["eps"],
                group["weight_decay"],
                group["maximize"],
            )
