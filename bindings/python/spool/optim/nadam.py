"""NAdam (Dozat: Incorporating Nesterov momentum into Adam, ICLR workshop 2016)."""

from __future__ import annotations

from .. import _C
from .optimizer import Optimizer

__all__ = ["NAdam"]


class NAdam(Optimizer):
    """Adam that looks ahead, as Nesterov's momentum does, with a momentum that rises to ``betas[0]``.

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
    momentum_decay : float
        How fast the momentum rises.
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
        lr: float = 2e-3,
        betas: tuple = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
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
                "momentum_decay": momentum_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
                "maximize": maximize,
            },
        )

    def _momenta(self, group, params):
        """Places of parameters by their momentum in this step, in the next, and the product of all so far: the same for
        those that began together.
        """
        beta, decay = group["betas"][0], group["momentum_decay"]
        found: dict = {}
        for i, p in enumerate(params):
            state = self.state[p]
            step = state.get("step", 0) + 1
            mu, following = (beta * (1.0 - 0.5 * 0.96 ** (t * decay)) for t in (step, step + 1))
            product = state["mu_product"] = float(state.get("mu_product", 1.0)) * mu
            found.setdefault((mu, following, product), []).append(i)
        return found

    def _update(self, group, params, grads):
        lr, decay = group["lr"], group["weight_decay"]
        op, last = "nadam_step", decay
        if group["decoupled_weight_decay"]:
            op, last = "nadam_step.decoupled", 1.0 - lr * decay
        for (mu, following, product), places in self._momenta(group, params).items():
            chosen = [params[i] for i in places], [grads[i] for i in places]
            rates = lr * following / (1.0 - product * following), lr * (1.0 - mu) / (1.0 - product)
            for step, tensors in self._advance(*chosen, ("exp_avg", "exp_avg_sq")).items():
                numbers = (*rates, step, *group["betas"], group["eps"])
                _C._update_each(op, tensors, *numbers, group["maximize"], last)
