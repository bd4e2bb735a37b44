"""Solutions of equations, differentiated by the equation and not by the steps that found them: ``custom_root``, ``fixed_point``.

For a solution x of f(x, a) = 0, dx solves J dx = -df/da da, where J = df/dx. That linear system is itself an equation whose
solution is differentiated in the same way, so that derivatives of any order are right in both modes.
"""

import math

from .. import _C
from .._dtypes import finfo
from .._tree import flatten, unflatten
from ..autograd import Function
from .arguments import Tensor, check_tensors
from .batching import vmap
from .forward import jvp, linearize
from .krylov import gmres
from .reverse import vjp

__all__ = ["custom_root", "fixed_point"]


class _Problem:
    """residual(x, *leaves) = 0, and solve(function of x alone, start), which finds x from values without history.

    ``maps`` says that ``solve`` may be given a whole batch as one problem.
    """

    def __init__(self, residual, solve, maps):
        self.residual, self.solve, self.maps = residual, solve, maps

    def at(self, leaves):
        return lambda x: self.residual(x, *leaves)

    def mapped(self, in_dims):
        """The problem of a batch, whose x has the examples along dimension 0."""
        return _Problem(vmap(self.residual, (0, *in_dims)), self.solve, True)


def _linear(problem, transposed):
    """The problem J w = b, or J^T w = b, of w at leaves (b, x, *leaves)."""

    def residual(w, b, x, *leaves):
        if transposed:
            return vjp(problem.at(leaves), x)[1](w)[0] - b
        return jvp(problem.at(leaves), (x,), (w,))[1] - b

    return _Problem(residual, _solve_linear, True)


class _Root(Function):
    """problem's solution, as a function of the leaves."""

    @staticmethod
    def forward(problem, start, *leaves):
        return problem.solve(problem.at(leaves), start)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.problem, _, *leaves = inputs
        ctx.save_for_backward(output, *leaves)
        ctx.save_for_forward(output, *leaves)

    @staticmethod
    def backward(ctx, grad):
        x, *leaves = ctx.saved_tensors
        problem = ctx.problem
        wanted = [i for i in range(len(leaves)) if ctx.needs_input_grad[2 + i]]
        along = _Root.apply(_linear(problem, True), _C.zeros_like(grad), grad, x, *leaves)

        def residual(*moving):
            full = list(leaves)
            for i, leaf in zip(wanted, moving):
                full[i] = leaf
            return problem.residual(x, *full)

        found = vjp(residual, *(leaves[i] for i in wanted))[1](-along)
        grads = dict(zip(wanted, found))
        return (None, None, *(grads.get(i) for i in range(len(leaves))))

    @staticmethod
    def jvp(ctx, _problem, _start, *tangents):
        x, *leaves = ctx.saved_tensors
        problem = ctx.problem
        moving = [i for i, t in enumerate(tangents) if t is not None]

        def residual(*values):
            full = list(leaves)
            for i, leaf in zip(moving, values):
                full[i] = leaf
            return problem.residual(x, *full)

        _, change = jvp(
            residual, tuple(leaves[i] for i in moving), tuple(tangents[i] for i in moving)
        )
        return _Root.apply(_linear(problem, False), _C.zeros_like(x), -change, x, *leaves)

    @staticmethod
    def vmap(info, in_dims, problem, start, *leaves):
        places = in_dims[1:]
        if problem.maps:
            start = _batched(start, places[0], info.batch_size)
            return _Root.apply(problem.mapped(places[1:]), start, *leaves), 0
        rows = [
            _Root.apply(problem, *(_example(t, d, i) for t, d in zip((start, *leaves), places)))
            for i in range(info.batch_size)
        ]
        return _C.stack(rows), 0


def _batched(t, dim, size):
    return t.expand([size, *t.shape]) if dim is None else t.movedim(dim, 0)


def _example(t, dim, i):
    return t if dim is None else t.select(dim, i)


# ---- solving ---------------------------------------------------------------------------------------------------------------


def _largest(t):
    return t.abs().max().item() if t.numel() else 0.0


def _solve_linear(function, start):
    """w with function(w) = 0, for an affine function."""
    offset, push = linearize(function, _C.zeros_like(start))
    if not math.isfinite(_largest(offset)):
        raise _C.SpoolError("implicit derivative: the equation's derivative is not finite")
    found = gmres(lambda w: push(w.reshape(start.shape)).reshape([-1]), -offset.reshape([-1]))
    return found.reshape(start.shape)


def _by_steps(tol, max_iter):
    """Steps x + function(x) until they are small."""

    def solve(function, x):
        limit = 8 * finfo(x.dtype).eps if tol is None else tol
        for _ in range(max_iter):
            step = function(x)
            x = x + step
            change, size = _largest(step), _largest(x)
            if not math.isfinite(change + size):
                break
            if change <= limit * max(1.0, size):
                return x
        raise _C.SpoolError(
            f"fixed_point: no convergence in {max_iter} steps (the last changed x by {change:.1e}, expected at most "
            f"{limit:.1e} of it); raise max_iter or tol, or start nearer"
        )

    return solve


def _checked(solve, tol):
    """solve, whose result is looked at."""

    def checked(function, start):
        x = solve(function, start)
        if not isinstance(x, Tensor) or x.shape != start.shape or x.dtype != start.dtype:
            raise _C.ShapeError(
                f"custom_root: solve must return a Tensor of x0's shape {tuple(start.shape)} and dtype {start.dtype}"
            )
        limit = math.sqrt(finfo(x.dtype).eps) if tol is None else tol
        left = _largest(function(x))
        if not left <= limit * max(1.0, _largest(x)):
            raise _C.SpoolError(
                f"custom_root: solve did not find a root: func is {left:.1e} there, expected at most {limit:.1e} times "
                "the largest element of x; pass tol, or a solver that goes on longer"
            )
        return x.detach()

    return checked


# ---- the interface ---------------------------------------------------------------------------------------------------------


def _solution(op, problem, x0, leaves):
    if not isinstance(x0, Tensor) or not x0.is_floating_point():
        raise TypeError(f"{op}: x0 must be a floating point Tensor")
    x = _Root.apply(problem, x0.detach(), *leaves)
    if _C.is_grad_enabled():
        apart = problem.residual(x.detach(), *(leaf.detach() for leaf in leaves))
        if apart.requires_grad:
            raise _C.SpoolError(
                f"{op}: func uses tensors that require gradients and are no arguments of it; pass them behind x0"
            )
    return x


def _arguments(op, args):
    leaves, structure = flatten(args)
    check_tensors(leaves, op, "arguments")
    return leaves, structure


@_C._boundary
def custom_root(func, solve, x0, *args, tol=None):
    """x with ``func(x, *args) = 0``, found by ``solve``, with the derivatives of the equation.

    Parameters
    ----------
    func : callable
        ``func(x, *args)`` returns a tensor of ``x``'s shape. What is differentiated by must be among ``args``.
    solve : callable
        ``solve(function, x0)`` returns x, for ``function = lambda x: func(x, *args)``. It computes with plain values: nothing is
        recorded, and inside :func:`vmap` it runs example by example.
    x0 : Tensor
        Where ``solve`` starts; floating point. Nothing is differentiated by it.
    args
        Trees of tensors.
    tol : float or None
        How large ``func`` may be at the solution, in multiples of x's largest element, or of 1; None: the root of the precision.

    Returns
    -------
    Tensor
        Of ``x0``'s shape and dtype; differentiable by ``args`` to any order, in forward and reverse mode. Each derivative
        solves linear systems by GMRES, of which only products with ``func``'s derivative are needed.

    Raises
    ------
    SpoolError
        ``solve`` did not find a root; the derivative by x is singular there; ``func`` uses tensors that require gradients
        and are not among ``args``.

    >>> import spool
    >>> def newton(function, x):
    ...     for _ in range(20):
    ...         value, slope = spool.func.jvp(function, (x,), (spool.ones_like(x),))
    ...         x = x - value / slope
    ...     return x
    >>> def cube_root(a):
    ...     return spool.func.custom_root(lambda x, a: x**3 - a, newton, spool.tensor(1.0), a)
    >>> cube_root(spool.tensor(8.0)), spool.func.grad(cube_root)(spool.tensor(8.0))
    (tensor(2.), tensor(0.0833))
    """
    leaves, structure = _arguments("custom_root", args)
    problem = _Problem(
        lambda x, *a: func(x, *unflatten(structure, a)), _checked(solve, tol), maps=False
    )
    return _solution("custom_root", problem, x0, leaves)


@_C._boundary
def fixed_point(func, x0, *args, tol=None, max_iter=1000):
    """x with ``func(x, *args) = x``, found by repeating, with the derivatives of the equation.

    Parameters
    ----------
    func : callable
        ``func(x, *args)`` returns a tensor of ``x``'s shape. What is differentiated by must be among ``args``.
    x0 : Tensor
        Where to start; floating point. Nothing is differentiated by it.
    args
        Trees of tensors.
    tol : float or None
        The steps end when none changes an element of x by more than that, in multiples of x's largest element, or of 1; None:
        eight times the precision.
    max_iter : int
        The most steps. None of them is recorded.

    Returns
    -------
    Tensor
        Of ``x0``'s shape and dtype; differentiable as the result of :func:`custom_root`. :func:`vmap` takes all examples in one
        go, until the last has converged.

    Raises
    ------
    SpoolError
        No convergence in ``max_iter`` steps, or what :func:`custom_root` raises.

    >>> import spool
    >>> def root(a):
    ...     return spool.func.fixed_point(lambda x, a: (x + a / x) / 2, spool.ones_like(a), a)
    >>> root(spool.tensor(9.0)), spool.func.grad(root)(spool.tensor(9.0))
    (tensor(3.), tensor(0.1667))
    """
    leaves, structure = _arguments("fixed_point", args)
    problem = _Problem(
        lambda x, *a: func(x, *unflatten(structure, a)) - x, _by_steps(tol, max_iter), maps=True
    )
    return _solution("fixed_point", problem, x0, leaves)
