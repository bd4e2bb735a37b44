"""``Module``: the base of all layers and models.

Invariants
----------
1. Parameters, buffers and submodules live in three dicts of the instance, in the order of their assignment, and nowhere else;
   ``__getattr__`` finds them there. A name is in at most one of the dicts.
2. Everything that walks the tree of modules visits a shared module, parameter or buffer once, at its first name.
3. A module holds no compiled state: what ``spool.jit`` makes of ``forward`` takes parameters as inputs, whatever they are.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any, Dict, Iterator, Tuple

from .. import _C
from .._C import Tensor
from .hooks import HookHandle, HookTable
from .parameter import Parameter

__all__ = ["IncompatibleKeys", "Module"]


class IncompatibleKeys(namedtuple("IncompatibleKeys", ["missing_keys", "unexpected_keys"])):
    """What :meth:`Module.load_state_dict` did not find, and what it had no place for: lists of keys."""

    __slots__ = ()

    def __repr__(self):
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return super().__repr__()


def _indented(text, by=2):
    first, *rest = text.split("\n")
    return "\n".join([first, *(" " * by + line for line in rest)])


class Module:
    """The base class of layers and models.

    A subclass assigns parameters and submodules in ``__init__``, after ``super().__init__()``, and computes in ``forward``;
    calling the module runs ``forward`` with the hooks around it.

    Attributes
    ----------
    training : bool
        What :meth:`train` and :meth:`eval` set; layers such as dropout look at it.

    Examples
    --------
    >>> import spool
    >>> from spool import nn
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden, self.out = nn.Linear(4, 8), nn.Linear(8, 2)
    ...     def forward(self, x):
    ...         return self.out(self.hidden(x).relu())
    >>> net = Net()
    >>> net(spool.ones(3, 4)).shape
    spool.Size([3, 2])
    >>> [name for name, _ in net.named_parameters()]
    ['hidden.weight', 'hidden.bias', 'out.weight', 'out.bias']
    """

    training: bool

    def __init__(self) -> None:
        fields = self.__dict__
        fields["training"] = True
        fields["_parameters"] = {}
        fields["_buffers"] = {}
        fields["_modules"] = {}
        fields["_transient_buffers"] = set()
        fields["_hooks"] = None

    # ---- computing

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass defines it."""
        raise NotImplementedError(
            f'Module [{type(self).__name__}] is missing the required "forward" function'
        )

    @_C._boundary
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooks is None:
            return self.forward(*args, **kwargs)
        return self._hooks.call(self, args, kwargs)

    def _hook_table(self) -> HookTable:
        if "_hooks" not in self.__dict__:
            raise self._too_early("a hook")
        if self._hooks is None:
            self.__dict__["_hooks"] = HookTable()
        return self._hooks

    def register_forward_pre_hook(
        self, hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> HookHandle:
        """Call ``hook(module, args)`` before ``forward``; what it returns, if not None, takes the place of the arguments.

        Parameters
        ----------
        hook : callable
        prepend : bool
            Run it before the hooks that are there already.
        with_kwargs : bool
            The hook is called with ``(module, args, kwargs)`` and returns None or ``(args, kwargs)``.

        Returns
        -------
        HookHandle
            Its ``remove()`` takes the hook off.
        """
        return self._hook_table().add("before", (hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> HookHandle:
        """Call ``hook(module, args, output)`` after ``forward``; what it returns, if not None, takes the place of the output.

        Parameters
        ----------
        hook : callable
        prepend : bool
            Run it before the hooks that are there already.
        with_kwargs : bool
            The hook is called with ``(module, args, kwargs, output)``.
        always_call : bool
            Call it, with None for the output, when ``forward`` raises, too.
        """
        return self._hook_table().add("after", (hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(self, hook, prepend: bool = False) -> HookHandle:
        """Call ``hook(module, grad_output)`` when the gradients of the outputs are known.

        ``grad_output`` is a tuple, one entry an output of ``forward``, None where there is no gradient. What the hook returns,
        if not None, takes its place; that needs a module with one differentiable output.
        """
        return self._hook_table().add("before_backward", (hook,), prepend)

    def register_full_backward_hook(self, hook, prepend: bool = False) -> HookHandle:
        """Call ``hook(module, grad_input, grad_output)`` when the gradients of the inputs are known.

        Both are tuples, one entry a positional argument or output of ``forward``, None where there is no gradient. What the hook
        returns, if not None, takes the place of ``grad_input``; that needs one input that requires gradients. A hook is
        called once each input that requires gradients has got one: never, if backward does not reach one of them.
        """
        return self._hook_table().add("after_backward", (hook,), prepend)

    # ---- attributes

    def _too_early(self, what):
        return AttributeError(
            f"{type(self).__name__}: cannot assign {what} before Module.__init__() was called"
        )

    def _table(self, name, what) -> dict:
        table = self.__dict__.get(name)
        if table is None:
            raise self._too_early(what)
        return table

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__
        for table in ("_parameters", "_buffers", "_modules"):
            entries = fields.get(table)
            if entries is not None and name in entries:
                return entries[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        fields = self.__dict__
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._check_name(name, "module")
            self._forget(name)
            self._table("_modules", "a module")[name] = value
        elif name in fields.get("_parameters", ()):
            if value is not None:
                raise TypeError(
                    f"cannot assign '{type(value).__name__}' as parameter '{name}' (nn.Parameter or None expected)"
                )
            fields["_parameters"][name] = None
        elif name in fields.get("_modules", ()):
            if value is not None:
                raise TypeError(
                    f"cannot assign '{type(value).__name__}' as child module '{name}' (nn.Module or None expected)"
                )
            fields["_modules"][name] = None
        elif name in fields.get("_buffers", ()):
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(
                    f"cannot assign '{type(value).__name__}' as buffer '{name}' (Tensor or None expected)"
                )
            fields["_buffers"][name] = value
        else:
            object.__setattr__(self, name, value)

    def _forget(self, name) -> bool:
        """Takes a name out of wherever it is."""
        fields = self.__dict__
        found = name in fields
        fields.pop(name, None)
        for table in ("_parameters", "_buffers", "_modules"):
            entries = fields.get(table)
            if entries is not None and name in entries:
                del entries[name]
                found = True
        fields.get("_transient_buffers", set()).discard(name)
        return found

    def __delattr__(self, name: str) -> None:
        if not self._forget(name):
            object.__delattr__(self, name)

    def __dir__(self):
        fields = self.__dict__
        return sorted(
            {
                *dir(type(self)),
                *fields,
                *fields.get("_parameters", ()),
                *fields.get("_buffers", ()),
                *fields.get("_modules", ()),
            }
        )

    def _check_name(self, name, what, table=None):
        if not isinstance(name, str):
            raise TypeError(f"{what} name should be a string, got {type(name).__name__}")
        if "." in name:
            raise KeyError(f'{what} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{what} name can\'t be empty string ""')
        if table is not None and name not in table and hasattr(self, name):
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter, or None for one that is left out, under a name of its own.

        Raises
        ------
        KeyError
            The name is empty, has a dot, or is taken by something else.
        TypeError
            ``param`` is no Parameter.
        ValueError
            ``param`` was computed: parameters are leaves.
        """
        table = self._table("_parameters", "parameters")
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{type(param).__name__}' object to parameter '{name}' (nn.Parameter or None required)"
            )
        if param is not None and param.grad_fn is not None:
            raise ValueError(
                f"cannot assign non-leaf Tensor to parameter '{name}': parameters must be leaves"
            )
        self._check_name(name, "parameter")
        if name not in table:
            self._forget(name)
        table[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that belongs to the module's state but is not trained.

        Parameters
        ----------
        name : str
        tensor : Tensor or None
        persistent : bool
            Whether it is part of :meth:`state_dict`.

        Raises
        ------
        KeyError
            The name is empty, has a dot, or is taken by something else.
        TypeError
            ``tensor`` is no Tensor.
        """
        table = self._table("_buffers", "buffers")
        self._check_name(name, "buffer", table)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' (Tensor or None required)"
            )
        table[name] = tensor
        (self._transient_buffers.discard if persistent else self._transient_buffers.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule, or None, under a name of its own.

        Raises
        ------
        KeyError
            The name is empty, has a dot, or is taken by something else.
        TypeError
            ``module`` is no Module.
        """
        table = self._table("_modules", "a module")
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._check_name(name, "module", table)
        table[name] = module

    register_module = add_module

    # ---- the tree

    def named_children(self) -> Iterator[Tuple[str, Module]]:
        """(name, module) of the modules right below this one."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """The modules right below this one."""
        for _, module in self.named_children():
            yield module

    def named_modules(
        self, memo: set | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[Tuple[str, Module]]:
        """(dotted name, module) of this module, whose name is ``prefix``, and all below it."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                inner = f"{prefix}.{name}" if prefix else name
                yield from module.named_modules(memo, inner, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        for _, module in self.named_modules():
            yield module

    def _named_members(self, table, prefix, recurse, remove_duplicate):
        seen = set()
        tree = (
            self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
            if recurse
            else [(prefix, self)]
        )
        for place, module in tree:
            for name, value in module.__dict__[table].items():
                if value is None or id(value) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(value))
                yield f"{place}.{name}" if place else name, value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[Tuple[str, Parameter]]:
        """(dotted name, parameter) of this module and, if ``recurse``, all below it."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters of this module and, if ``recurse``, all below it."""
        for _, value in self.named_parameters(recurse=recurse):
            yield value

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[Tuple[str, Tensor]]:
        """(dotted name, buffer) of this module and, if ``recurse``, all below it."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers of this module and, if ``recurse``, all below it."""
        for _, value in self.named_buffers(recurse=recurse):
            yield value

    def get_submodule(self, target: str) -> Module:
        """The module of a dotted name; this one for an empty name.

        Raises
        ------
        AttributeError
            There is no such module.
        """
        module: Module = self
        for name in target.split(".") if target else ():
            found = module._modules.get(name)
            if found is None:
                raise AttributeError(f"{type(module).__name__} has no submodule '{name}'")
            module = found
        return module

    def _get_member(self, table, target, what):
        place, _, name = target.rpartition(".")
        found = self.get_submodule(place).__dict__[table].get(name)
        if found is None:
            raise AttributeError(f"{type(self).__name__} has no {what} '{target}'")
        return found

    def get_parameter(self, target: str) -> Parameter:
        """The parameter of a dotted name; AttributeError if there is none."""
        return self._get_member("_parameters", target, "parameter")

    def get_buffer(self, target: str) -> Tensor:
        """The buffer of a dotted name; AttributeError if there is none."""
        return self._get_member("_buffers", target, "buffer")

    # ---- changing all of it

    def apply(self, fn):
        """Call ``fn(module)`` for all modules below this one, then for this one; returns self."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def train(self, mode: bool = True):
        """Set ``training`` here and in all modules below; returns self."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self):
        """Set ``training`` to False here and in all modules below; returns self."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True):
        """Have all parameters require gradients, or not; returns self."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or set them to zero."""
        for parameter in self.parameters():
            if parameter.grad is None:
                continue
            if set_to_none:
                parameter.grad = None
            else:
                parameter.grad = parameter.grad.detach().zero_()

    def _convert(self, convert):
        for parameter in self.parameters():
            grad = parameter.grad
            parameter.grad = None
            parameter.data = convert(parameter.data)
            if grad is not None:
                parameter.grad = convert(grad.detach())
        for module in self.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = convert(buffer)
        return self

    def _to_floating(self, dtype):
        return self._convert(lambda t: t.to(dtype) if t.is_floating_point() else t)

    @_C._boundary
    def to(self, *args: Any, **kwargs: Any):
        """Convert floating point parameters, gradients and buffers; the same parameter objects stay.

        Called as ``to(dtype)``, ``to(device)``, ``to(device, dtype)`` or ``to(tensor)``, as :meth:`Tensor.to`.

        Raises
        ------
        TypeError
            The dtype is not floating point.
        NotImplementedError
            There is no such device.
        """
        dtype = _C.empty(0).to(*args, **kwargs).dtype  # what the arguments ask of a float32 tensor
        given = [a for a in (*args, *kwargs.values()) if isinstance(a, (_C.dtype, type, Tensor))]
        if not dtype.is_floating_point:
            raise TypeError(f"Module.to: only floating point dtypes are accepted, got {dtype}")
        return self._to_floating(dtype) if given else self

    def float(self):
        """Convert floating point parameters and buffers to float32; returns self."""
        return self._to_floating(_C.float32)

    def double(self):
        """Convert floating point parameters and buffers to float64; returns self."""
        return self._to_floating(_C.float64)

    def cpu(self):
        """self: the CPU is the one device there is."""
        return self

    # ---- state

    def get_extra_state(self) -> Any:
        """What else belongs to :meth:`state_dict`; a subclass that defines it defines :meth:`set_extra_state`, too."""
        raise NotImplementedError("get_extra_state: this module has no extra state")

    def set_extra_state(self, state: Any) -> None:
        """Take back what :meth:`get_extra_state` returned."""
        raise NotImplementedError("set_extra_state: this module has no extra state")

    def _has_extra_state(self):
        return type(self).get_extra_state is not Module.get_extra_state

    def _own_state(self) -> Dict[str, Tensor | None]:
        kept = {k: v for k, v in self._buffers.items() if k not in self._transient_buffers}
        return {**self._parameters, **kept}

    def state_dict(
        self, *, destination: dict | None = None, prefix: str = "", keep_vars: bool = False
    ) -> Dict[str, Any]:
        """A dict of all parameters and persistent buffers, by dotted name.

        Parameters
        ----------
        destination : dict, optional
            Where to put them; a new dict if None.
        prefix : str
            In front of each name.
        keep_vars : bool
            Give the parameters themselves. By default, tensors that share their memory, without history.
        """
        destination = {} if destination is None else destination
        for name, value in self._own_state().items():
            if value is not None:
                destination[prefix + name] = value if keep_vars else value.detach()
        if self._has_extra_state():
            destination[prefix + "_extra_state"] = self.get_extra_state()
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(
                    destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars
                )
        return destination

    @_C._boundary
    def load_state_dict(
        self, state_dict: Dict[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Take over parameters and buffers from a dict as :meth:`state_dict` gives.

        Nothing is changed unless everything fits.

        Parameters
        ----------
        state_dict : dict of str to Tensor
            Values are copied, and converted to the dtypes that are there.
        strict : bool
            Keys must match exactly.
        assign : bool
            Keep the tensors given in place of copying them; parameters become new objects with the dtypes given.

        Returns
        -------
        IncompatibleKeys
            ``missing_keys`` and ``unexpected_keys``, both empty if ``strict``.

        Raises
        ------
        SpoolError
            A tensor has another shape, or keys are missing or unexpected and ``strict`` is set. The message names them all.
        TypeError
            ``state_dict`` is no dict.
        """
        if not hasattr(state_dict, "keys"):
            raise TypeError(
                f"Expected state_dict to be dict-like, got {type(state_dict).__name__}."
            )
        plan, errors, missing, used = [], [], [], set()
        for place, module in self.named_modules(remove_duplicate=False):
            prefix = f"{place}." if place else ""
            for name, value in module._own_state().items():
                key = prefix + name
                if value is None:
                    continue
                used.add(key)
                if key not in state_dict:
                    missing.append(key)
                else:
                    plan.append((module, name, value, state_dict[key]))
                    errors += _misfit(key, value, state_dict[key])
            if module._has_extra_state():
                key = prefix + "_extra_state"
                used.add(key)
                if key in state_dict:
                    plan.append((module, None, None, state_dict[key]))
                else:
                    missing.append(key)
        unexpected = [key for key in state_dict.keys() if key not in used]
        if strict and unexpected:
            errors.insert(0, f"Unexpected key(s) in state_dict: {_quoted(unexpected)}. ")
        if strict and missing:
            errors.insert(0, f"Missing key(s) in state_dict: {_quoted(missing)}. ")
        if errors:
            raise _C.SpoolError(
                f"Error(s) in loading state_dict for {type(self).__name__}:\n\t"
                + "\n\t".join(errors)
            )
        with _C.no_grad():
            for module, name, value, given in plan:
                module._load(name, value, given, assign)
        return IncompatibleKeys(missing, unexpected)

    def _load(self, name, value, given, assign):
        if name is None:
            self.set_extra_state(given)
        elif not assign:
            value.copy_(given)
        elif name in self._parameters:
            self._parameters[name] = (
                given
                if isinstance(given, Parameter)
                else Parameter(given, requires_grad=value.requires_grad)
            )
        else:
            self._buffers[name] = given

    # ---- text

    def extra_repr(self) -> str:
        """What stands in the parentheses of the module's text."""
        return ""

    def _get_name(self):
        return type(self).__name__

    def __repr__(self):
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({name}): {_indented(repr(m))}" for name, m in self._modules.items()]
        if not children and len(lines) <= 1:
            return f"{self._get_name()}({extra})"
        return f"{self._get_name()}(\n  " + "\n  ".join(lines + children) + "\n)"


def _quoted(keys):
    return ", ".join(f'"{key}"' for key in keys)


def _misfit(key, value, given):
    if not isinstance(given, Tensor):
        return [f'"{key}": expected a Tensor, got {type(given).__name__}. ']
    if given.shape != value.shape:
        return [
            f"size mismatch for {key}: copying a param with shape {given.shape} from checkpoint, "
            f"the shape in current model is {value.shape}."
        ]
    return []
