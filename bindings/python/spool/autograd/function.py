"""Functions with derivatives of their own."""

import functools

from .. import _C
from .._C import FunctionCtx, VmapInfo

__all__ = ["Function", "FunctionCtx", "VmapInfo", "once_differentiable"]


class Function(_C.FunctionBase):
    """A function whose derivatives you give, as static methods of a subclass; use it by ``apply``.

    ``forward`` comes in two forms. ``forward(ctx, *args)`` computes and keeps what is needed later on ``ctx``;
    ``forward(*args)`` with ``setup_context(ctx, inputs, output)`` does the two apart, and works inside any nesting of
    ``spool.func``'s transforms (the other in one at a time, and in ``vmap`` if ``generate_vmap_rule`` is set). Nothing is
    recorded while they run. Arguments may be anything; those that are Tensors get gradients.

    What backward and jvp compute with ops is differentiated in turn, so that second derivatives are right or raise: a value
    that ``forward`` computed on the way has no history, and a second derivative that needs it is an error.

    Notes
    -----
    Names and meanings are PyTorch's ``torch.autograd.Function``.

    Examples
    --------
    >>> import spool
    >>> class Cube(spool.autograd.Function):
    ...     @staticmethod
    ...     def forward(x):
    ...         return x * x * x
    ...
    ...     @staticmethod
    ...     def setup_context(ctx, inputs, output):
    ...         ctx.save_for_backward(*inputs)
    ...
    ...     @staticmethod
    ...     def backward(ctx, grad_output):
    ...         (x,) = ctx.saved_tensors
    ...         return grad_output * 3 * x * x
    >>> x = spool.tensor([1.0, 2.0], requires_grad=True)
    >>> Cube.apply(x).sum().backward()
    >>> x.grad
    tensor([ 3., 12.])
    >>> spool.func.grad(spool.func.grad(Cube.apply))(spool.tensor(2.0))
    tensor(12.)
    """

    generate_vmap_rule = False
    """Whether ``vmap`` runs the other methods, inside it, as they are; they must be made of ops then."""

    @staticmethod
    def forward(*args):
        """``forward(ctx, *args)``, or ``forward(*args)`` beside a ``setup_context``: the result, a Tensor or a tuple.

        A result may be an argument, or a view of one; neither may then be written in place. An argument that ``forward``
        itself writes is named by ``ctx.mark_dirty``, and is a result.
        """
        raise NotImplementedError("Function: define a static method forward to use apply")

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Keeps what the derivatives need: ``ctx.save_for_backward(...)``, attributes of ``ctx``.

        Parameters
        ----------
        ctx : FunctionCtx
        inputs : tuple
            All arguments of ``forward``.
        output : Tensor or tuple
            What it returned.
        """
        raise NotImplementedError("Function: setup_context is not defined")

    @staticmethod
    def backward(ctx, *grad_outputs):
        """The gradients of all arguments of ``forward``, in order: Tensors of their shapes, or None.

        Parameters
        ----------
        ctx : FunctionCtx
            ``ctx.saved_tensors``, ``ctx.needs_input_grad`` and the attributes it was given.
        grad_outputs : Tensor or None
            One for each result; zeros stand for none, unless ``ctx.set_materialize_grads(False)`` was called.
        """
        raise NotImplementedError(
            "Function: define a static method backward (or vjp) to use reverse mode"
        )

    vjp = backward

    @staticmethod
    def jvp(ctx, *grad_inputs):
        """The tangents of all results, in order, of those of the arguments; None for zero."""
        raise NotImplementedError("Function: define a static method jvp to use forward mode")

    @staticmethod
    def vmap(info, in_dims, *args):
        """The function of many examples at once: ``(output, out_dims)``.

        Parameters
        ----------
        info : VmapInfo
            ``info.batch_size`` and ``info.randomness``.
        in_dims : tuple
            For each argument the dimension that counts examples, or None where it is the same for all. ``out_dims`` says
            that of the results: one for all, or a tuple.
        """
        raise NotImplementedError(
            "Function: define a static method vmap, or set generate_vmap_rule = True"
        )


_C._function_base(Function)


def _bind(cls, args, kwargs):
    """All arguments of cls.forward by place: what apply() asks for when there are keywords or defaults."""
    import inspect  # costs as much as the rest of the package

    found = inspect.signature(cls.forward).bind(*args, **kwargs)
    found.apply_defaults()
    if found.kwargs:
        raise TypeError(
            f"{cls.__name__}.apply: forward has keyword-only parameters, which get no gradients; make them positional"
        )
    return found.args


def once_differentiable(fn):
    """Decorates a ``backward`` that is not to be differentiated, because it does more than ops do.

    Inside it nothing is recorded. A derivative of what it returned is an error.

    Parameters
    ----------
    fn : callable
        ``backward(ctx, *grad_outputs)``.

    Examples
    --------
    >>> import numpy as np
    >>> import spool
    >>> class Sine(spool.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return spool.tensor(np.sin(x.detach().numpy()))
    ...
    ...     @staticmethod
    ...     @spool.autograd.once_differentiable
    ...     def backward(ctx, grad_output):
    ...         (x,) = ctx.saved_tensors
    ...         return grad_output * spool.tensor(np.cos(x.detach().numpy()))
    >>> x = spool.tensor([0.0, 1.0], requires_grad=True)
    >>> Sine.apply(x).sum().backward()
    >>> x.grad
    tensor([1.0000, 0.5403])
    """

    @functools.wraps(fn)
    def wrapper(ctx, *grad_outputs):
        with _C.no_grad():
            return fn(ctx, *grad_outputs)

    wrapper._once_differentiable = True
    return wrapper
