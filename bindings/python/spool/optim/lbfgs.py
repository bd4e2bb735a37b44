"""L-BFGS (Liu, Nocedal: Mathematical Programming 45, 1989), with a line search for the strong Wolfe conditions
(Nocedal, Wright: Numerical Optimization, 2006, algorithms 3.5 and 3.6)."""

from __future__ import annotations

import math
from typing import Any, Callable, NamedTuple

from .. import _C
from .._C import Tensor
from .optimizer import Optimizer

__all__ = ["LBFGS"]

ENOUGH = 1e-4  # of the decrease that the slope promises
FLATTER = 0.9  # than that times the slope at the start


class _Point(NamedTuple):
    """A place on the line: how far along, the loss there, its gradient, and that along the line."""

    at: float
    loss: float
    grad: Tensor
    slope: float


def _cubic_minimum(a, b, low=None, high=None):
    """Where the cubic through two points with their slopes is least, within bounds: their places, if not given."""
    if low is None:
        low, high = min(a.at, b.at), max(a.at, b.at)
    if a.at > b.at:
        a, b = b, a
    middle = (low + high) / 2.0
    if a.at == b.at:
        return middle
    d1 = a.slope + b.slope - 3.0 * (a.loss - b.loss) / (a.at - b.at)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0.0:
        return middle
    d2 = math.sqrt(square)
    below = b.slope - a.slope + 2.0 * d2
    if below == 0.0:
        return middle
    return min(max(b.at - (b.at - a.at) * ((b.slope + d2 - d1) / below), low), high)


def _bracketed(evaluate, start, t, most):
    """Points that enclose one fit to stop at, or that one alone, and how many were evaluated."""
    last, new, taken = start, evaluate(t), 1
    while taken <= most:
        too_high = new.loss > start.loss + ENOUGH * new.at * start.slope
        if too_high or (taken > 2 and new.loss >= last.loss):
            return [last, new], taken
        if abs(new.slope) <= -FLATTER * start.slope:
            return [new], taken
        if new.slope >= 0.0:
            return [last, new], taken
        t = _cubic_minimum(last, new, new.at + 0.01 * (new.at - last.at), new.at * 10.0)
        last, new, taken = new, evaluate(t), taken + 1
    return [start, new], taken


def _away_from_ends(t, low, high, stuck):
    """A place that is not too near the ends twice in a row, and whether it is near one."""
    margin = 0.1 * (high - low)
    if min(high - t, t - low) >= margin:
        return t, False
    if not stuck and low < t < high:
        return t, True
    return (high - margin if abs(t - high) < abs(t - low) else low + margin), False


def _strong_wolfe(evaluate, start, t, size, tolerance, most):
    """A point that is low enough and flat enough, or the best found with ``most`` more evaluations than one.

    ``size`` is the direction's largest element: less than ``tolerance`` of movement is none.
    """
    ends, taken = _bracketed(evaluate, start, t, most)
    best, other = min(ends, key=lambda p: p.loss), max(ends, key=lambda p: p.loss)
    if len(ends) == 2 and ends[0].loss == ends[1].loss:
        best, other = ends
    done, stuck = len(ends) == 1, False
    while not done and taken <= most and abs(best.at - other.at) * size >= tolerance:
        low, high = min(best.at, other.at), max(best.at, other.at)
        t, stuck = _away_from_ends(_cubic_minimum(best, other), low, high, stuck)
        new, taken = evaluate(t), taken + 1
        if new.loss > start.loss + ENOUGH * t * start.slope or new.loss >= best.loss:
            best, other = (new, best) if new.loss < best.loss else (best, new)
            continue
        done = abs(new.slope) <= -FLATTER * start.slope
        if not done and new.slope * (other.at - best.at) >= 0.0:
            other = best
        best = new
    return best, taken


class LBFGS(Optimizer):
    """Newton's steps, with curvature estimated from the last steps and gradients; for losses that are not random.

    Parameters
    ----------
    params : iterable of Tensor
        One group.
    lr : float
        Step size: of each step, or that a line search tries first.
    max_iter : int
        Steps of the method in one :meth:`step`.
    max_eval : int, optional
        Evaluations in one :meth:`step`; ``max_iter * 5 // 4`` if not given.
    tolerance_grad : float
        Stop when no element of the gradient is larger.
    tolerance_change : float
        Stop when neither parameters nor loss change by more.
    history_size : int
        How many steps are remembered, each with as many numbers as two copies of the parameters.
    line_search_fn : str, optional
        ``'strong_wolfe'``.

    Raises
    ------
    ValueError
        There is more than one group, ``lr`` is negative, or there is no such line search.

    Examples
    --------
    >>> import spool
    >>> w = spool.nn.Parameter(spool.tensor([3.0, -2.0]))
    >>> opt = spool.optim.LBFGS([w], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     opt.zero_grad()
    ...     loss = ((w - spool.tensor([1.0, 2.0])) ** 2).sum()
    ...     loss.backward()
    ...     return loss
    >>> _ = opt.step(closure)
    >>> w.tolist()
    [1.0, 2.0]
    """

    _states_like_params = False

    def __init__(
        self,
        params,
        lr: float = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "max_iter": max_iter,
                "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
                "tolerance_grad": tolerance_grad,
                "tolerance_change": tolerance_change,
                "history_size": history_size,
                "line_search_fn": line_search_fn,
            },
        )

    def add_param_group(self, param_group):
        """Refused for a second group: the estimate is one of all parameters together."""
        if self.param_groups:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        super().add_param_group(param_group)

    def _check_options(self, group):
        super()._check_options(group)
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise ValueError(
                f"LBFGS: line_search_fn is {group['line_search_fn']!r}; expected None or 'strong_wolfe'"
            )

    # ---- all parameters as one vector

    def _real_params(self):
        params = self.param_groups[0]["params"]
        return [_C.view_as_real(p.detach()) if p.is_complex() else p.detach() for p in params]

    def _flat_grad(self):
        parts = []
        for p in self.param_groups[0]["params"]:
            grad = _C.zeros_like(p) if p.grad is None else p.grad.detach()
            parts.append((_C.view_as_real(grad) if grad.is_complex() else grad).reshape(-1))
        return _C.cat(parts)

    def _move(self, t, direction):
        at = 0
        for p in self._real_params():
            n = p.numel()
            p.add_(direction[at : at + n].reshape(p.shape).to(p.dtype), alpha=t)
            at += n

    def _evaluated(self, closure):
        with _C.enable_grad():
            loss = closure()
        return loss, float(loss), self._flat_grad()

    # ---- directions

    def _direction(self, state, grad):
        """The inverse of the estimated curvature times the gradient, downwards (two loops over what is remembered)."""
        change = grad - state["prev_flat_grad"]
        moved = state["d"] * state["t"]
        curvature = float(change.dot(moved))
        changes, moves, inverses = state["old_dirs"], state["old_stps"], state["ro"]
        if curvature > 1e-10:
            if len(changes) == self.param_groups[0]["history_size"]:
                for remembered in (changes, moves, inverses):
                    remembered.pop(0)
            changes.append(change)
            moves.append(moved)
            inverses.append(1.0 / curvature)
            state["H_diag"] = curvature / float(change.dot(change))
        down, shares = -grad, []
        for y, s, rho in reversed(list(zip(changes, moves, inverses))):
            shares.append(float(s.dot(down)) * rho)
            down.add_(y, alpha=-shares[-1])
        down.mul_(state["H_diag"])
        for y, s, rho in zip(changes, moves, inverses):
            down.add_(s, alpha=shares.pop() - float(y.dot(down)) * rho)
        return down

    def _searched(self, closure, state, start, t, direction, most):
        """Moves the parameters to where a line search ends; its point, and how many were evaluated."""
        params = self._real_params()
        origin = [p.clone() for p in params]

        def evaluate(t):
            self._move(t, direction)
            _, loss, grad = self._evaluated(closure)
            for p, kept in zip(params, origin):
                p.copy_(kept)
            return _Point(t, loss, grad, float(grad.dot(direction)))

        size = float(direction.abs().max())
        tolerance = self.param_groups[0]["tolerance_change"]
        point, taken = _strong_wolfe(evaluate, start, t, size, tolerance, most)
        self._move(point.at, direction)
        return point, taken

    # ---- steps

    @_C._boundary
    def step(self, closure: Callable[[], Any]) -> Any:
        """Up to ``max_iter`` steps of the method.

        Parameters
        ----------
        closure : callable
            Computes the loss anew and its gradients, and returns the loss.

        Returns
        -------
        object
            What ``closure`` returned the first time.

        Raises
        ------
        TypeError
            ``closure`` is None.
        """
        if closure is None:
            raise TypeError(
                "LBFGS: step() needs a closure that computes the loss and its gradients"
            )
        return super().step(closure)

    def _take_step(self, closure):
        group = self.param_groups[0]
        state = self.state[group["params"][0]]
        for name in ("func_evals", "n_iter"):
            state.setdefault(name, 0)
        first, loss, grad = self._evaluated(closure)
        state["func_evals"] += 1
        evaluated, iterations = 1, 0
        flat = float(grad.abs().max()) <= group["tolerance_grad"]
        while not flat and iterations < group["max_iter"]:
            iterations += 1
            state["n_iter"] += 1
            last, before = iterations == group["max_iter"], loss
            moved = self._iterate(closure, state, loss, grad, group["max_eval"] - evaluated, last)
            if moved is None:
                break
            loss, grad, taken = moved
            evaluated += taken
            state["func_evals"] += taken
            flat = float(grad.abs().max()) <= group["tolerance_grad"]
            change = min(float(state["d"].abs().max()) * abs(state["t"]), abs(loss - before))
            if evaluated >= group["max_eval"] or change <= group["tolerance_change"]:
                break
        return first

    def _iterate(self, closure, state, loss, grad, most, last):
        """One step of the method: loss and gradient after it and how many evaluations it took; None at a minimum."""
        group, t = self.param_groups[0], float(self.param_groups[0]["lr"])
        if state["n_iter"] == 1:
            direction, t = -grad, min(1.0, 1.0 / float(grad.abs().sum())) * t
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
        else:
            direction = self._direction(state, grad)
        state.update(d=direction, t=t, prev_flat_grad=grad, prev_loss=loss)
        slope = float(grad.dot(direction))
        if slope > -group["tolerance_change"]:
            return None
        if group["line_search_fn"] is not None:
            start = _Point(0.0, loss, grad, slope)
            point, taken = self._searched(closure, state, start, t, direction, most)
            state["t"] = point.at
            return point.loss, point.grad, taken
        self._move(t, direction)
        if last:  # whether it helped would not be asked any more
            return loss, grad, 0
        return (*self._evaluated(closure)[1:], 1)
