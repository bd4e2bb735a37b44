"""Transforms of functions: ``grad``, ``vjp``, ``jvp``, ``vmap``, Jacobians and Hessians, Taylor mode; solutions of equations;
modules as functions.

Arguments and results may be trees (tuples, lists, dicts) of tensors. All transforms nest in any order, with themselves, too:
each call is a level of its own, and a tensor carries its level, so that nested derivatives are not confused.

>>> import spool
>>> def f(x):
...     return (x * x * x).sum()
>>> spool.func.vmap(spool.func.grad(spool.func.grad(f)))(spool.tensor([1.0, 2.0]))
tensor([ 6., 12.])
"""

from .batching import vmap
from .fallbacks import vmap_fallbacks
from .forward import hvp, jvp, linearize
from .implicit import custom_root, fixed_point
from .jacobians import hessian, jacfwd, jacrev
from .modules import functional_call, stack_module_state
from .reverse import grad, grad_and_value, vjp
from .taylor import jet, laplacian, nth_derivative

__all__ = [
    "custom_root",
    "fixed_point",
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "hvp",
    "jacfwd",
    "jacrev",
    "jet",
    "jvp",
    "laplacian",
    "linearize",
    "nth_derivative",
    "stack_module_state",
    "vjp",
    "vmap",
    "vmap_fallbacks",
]
