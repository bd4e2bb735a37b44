"""Modules made of modules, and lists and dicts of modules and parameters."""

from __future__ import annotations

import operator
from typing import Any, Dict, Iterable, Iterator

from .._C import Tensor
from .module import Module, _indented
from .parameter import Parameter

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]


def _place(what, index, count):
    index = operator.index(index)
    if not -count <= index < count:
        raise IndexError(f"{what}: index {index} is out of range for {count} entries")
    return index % count


class _ModulesInOrder(Module):
    """What Sequential and ModuleList share: entries named by their numbers."""

    def _values(self):
        return list(self._modules.values())

    def _renumber(self, modules):
        self._modules.clear()
        for i, module in enumerate(modules):
            self.add_module(str(i), module)

    def __len__(self):
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._values())

    def _key(self, index):
        return list(self._modules)[_place(type(self).__name__, index, len(self))]

    def __setitem__(self, index, module):
        self.add_module(self._key(index), module)

    def __delitem__(self, index):
        values = self._values()
        if isinstance(index, slice):
            del values[index]
        else:
            del values[_place(type(self).__name__, index, len(self))]
        self._renumber(values)

    def append(self, module: Module):
        """Add a module at the end; returns self."""
        self.add_module(str(len(self)), module)
        return self

    def insert(self, index: int, module: Module):
        """Put a module before position ``index``; returns self."""
        values = self._values()
        if not -len(values) <= index <= len(values):
            raise IndexError(
                f"{type(self).__name__}: index {index} is out of range for {len(values)} entries"
            )
        values.insert(index, module)
        self._renumber(values)
        return self

    def extend(self, modules: Iterable[Module]):
        """Add modules at the end; returns self."""
        for module in list(modules):
            self.append(module)
        return self

    def pop(self, index: int = -1) -> Module:
        """Take a module out and return it."""
        module = self[index]
        del self[index]
        return module


class Sequential(_ModulesInOrder):
    """Modules, each called with the result of the one before.

    Parameters
    ----------
    *args : Module, or one dict of str to Module
        A dict gives the modules names.

    Examples
    --------
    >>> import spool
    >>> from spool import nn
    >>> nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=2, bias=True)
    )
    """

    def __init__(self, *args):
        super().__init__()
        entries = args[0].items() if len(args) == 1 and isinstance(args[0], dict) else None
        for name, module in entries or ((str(i), m) for i, m in enumerate(args)):
            self.add_module(name, module)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return type(self)(dict(list(self._modules.items())[index]))
        return self._modules[self._key(index)]

    def __delitem__(self, index):
        keys = list(self._modules)[index] if isinstance(index, slice) else [self._key(index)]
        for key in keys:
            del self._modules[key]
        if all(key.isdigit() for key in self._modules):
            self._renumber(self._values())

    def __add__(self, other):
        if not isinstance(other, Sequential):
            return NotImplemented
        return Sequential(*self, *other)

    def forward(self, input):
        for module in self._modules.values():
            input = module(input)
        return input


class ModuleList(_ModulesInOrder):
    """A list of modules; it computes nothing itself.

    Parameters
    ----------
    modules : iterable of Module, optional
    """

    def __init__(self, modules: Iterable[Module] | None = None):
        super().__init__()
        self.extend(modules or ())

    def __getitem__(self, index):
        if isinstance(index, slice):
            return type(self)(self._values()[index])
        return self._modules[self._key(index)]

    def __iadd__(self, modules):
        return self.extend(modules)

    def __add__(self, other):
        return ModuleList([*self, *other])

    def __repr__(self):
        """Equal neighbours stand together: (0-2): 3 x ..."""
        groups: list = []
        for i, module in enumerate(self):
            text = repr(module)
            if groups and groups[-1][2] == text:
                groups[-1][1] = i
            else:
                groups.append([i, i, text])
        if not groups:
            return f"{self._get_name()}()"
        lines = [
            _indented(f"({a}): {text}" if a == b else f"({a}-{b}): {b - a + 1} x {text}")
            for a, b, text in groups
        ]
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"


class ModuleDict(Module):
    """A dict of modules, by name and in order; it computes nothing itself.

    Parameters
    ----------
    modules : dict of str to Module, or iterable of pairs, optional
    """

    def __init__(self, modules=None):
        super().__init__()
        self.update(modules or {})

    def __getitem__(self, key: str) -> Module:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self):
        return len(self._modules)

    def __iter__(self):
        return iter(self._modules)

    def __contains__(self, key):
        return key in self._modules

    def clear(self) -> None:
        """Take all modules out."""
        self._modules.clear()

    def pop(self, key: str) -> Module:
        """Take a module out and return it."""
        return self._modules.pop(key)

    def keys(self):
        """The names."""
        return self._modules.keys()

    def values(self):
        """The modules."""
        return self._modules.values()

    def items(self):
        """(name, module) pairs."""
        return self._modules.items()

    def update(self, modules) -> None:
        """Add or replace modules, of a dict or an iterable of pairs."""
        for key, module in dict(modules).items():
            self[key] = module


def _parameter(value) -> Parameter:
    if isinstance(value, Parameter):
        return value
    if isinstance(value, Tensor):
        return Parameter(value, requires_grad=value.is_floating_point())
    raise TypeError(
        f"a list or dict of parameters holds Parameters and Tensors, not {type(value).__name__}"
    )


def _parameter_line(name, value):
    sizes = "x".join(map(str, value.shape))
    dtype = str(value.dtype)
    return f"({name}): Parameter containing: [{dtype} of size {sizes}]"


class ParameterList(Module):
    """A list of parameters. Tensors become parameters that share their memory.

    Parameters
    ----------
    values : iterable of Parameter or Tensor, optional
    """

    def __init__(self, values: Iterable[Any] | None = None):
        super().__init__()
        self.extend(values or ())

    def _values(self):
        return list(self._parameters.values())

    def __len__(self):
        return len(self._parameters)

    def __iter__(self):
        return iter(self._values())

    def __getitem__(self, index):
        if isinstance(index, slice):
            return type(self)(self._values()[index])
        return self._parameters[str(_place("ParameterList", index, len(self)))]

    def __setitem__(self, index, value):
        self.register_parameter(str(_place("ParameterList", index, len(self))), _parameter(value))

    def __iadd__(self, values):
        return self.extend(values)

    def append(self, value):
        """Add a parameter at the end; returns self."""
        self.register_parameter(str(len(self)), _parameter(value))
        return self

    def extend(self, values):
        """Add parameters at the end; returns self."""
        for value in list(values):
            self.append(value)
        return self

    def extra_repr(self):
        return "\n".join(_parameter_line(k, v) for k, v in self._parameters.items())

    def __repr__(self):
        lines = self.extra_repr()
        return f"ParameterList(\n  {_indented(lines)}\n)" if lines else "ParameterList()"


class ParameterDict(Module):
    """A dict of parameters, by name and in order. Tensors become parameters that share their memory.

    Parameters
    ----------
    parameters : dict of str to Parameter or Tensor, or iterable of pairs, optional
    """

    def __init__(self, parameters: Any = None):
        super().__init__()
        self.update(parameters or {})

    def __getitem__(self, key: str) -> Parameter:
        return self._parameters[key]

    def __setitem__(self, key: str, value: Tensor) -> None:
        self.register_parameter(key, _parameter(value))

    def __delitem__(self, key: str) -> None:
        del self._parameters[key]

    def __len__(self):
        return len(self._parameters)

    def __iter__(self):
        return iter(self._parameters)

    def __contains__(self, key):
        return key in self._parameters

    def keys(self):
        """The names."""
        return self._parameters.keys()

    def values(self):
        """The parameters."""
        return self._parameters.values()

    def items(self):
        """(name, parameter) pairs."""
        return self._parameters.items()

    def update(self, parameters: Dict[str, Tensor]) -> None:
        """Add or replace parameters, of a dict or an iterable of pairs."""
        for key, value in dict(parameters).items():
            self[key] = value

    def extra_repr(self):
        return "\n".join(_parameter_line(k, v) for k, v in self._parameters.items())

    def __repr__(self):
        lines = self.extra_repr()
        return f"ParameterDict(\n  {_indented(lines)}\n)" if lines else "ParameterDict()"
