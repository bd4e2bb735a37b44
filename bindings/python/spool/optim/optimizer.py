"""``Optimizer``: parameter groups, state, and what happens around a step.

Invariants
----------
1. A parameter is in one group of an optimizer. ``state`` is keyed by the parameter object, which Module.to() and
   load_state_dict() keep.
2. A step of all parameters of a group is one op that takes them all, with their gradients and states, and changes them in
   place: one launch. Under ``spool.jit`` it is part of the plan, and numbers that change from step to step (rates, counts) are
   its inputs.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections import defaultdict
from typing import Any, Callable, Dict, Iterable

from .. import _C
from .._C import Tensor

__all__ = ["Optimizer", "required"]


class _Required:
    def __repr__(self):
        return "<required parameter>"


required = _Required()
_numbers = itertools.count()


class StepHookHandle:
    """What takes a hook off again, at ``remove()`` or at the end of a ``with`` block."""

    def __init__(self, hooks: dict, number: int):
        self._hooks, self._number = hooks, number

    def remove(self) -> None:
        """Take the hook off; again does nothing."""
        self._hooks.pop(self._number, None)

    def __enter__(self):
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


class Optimizer:
    """The base of all optimizers. A subclass defines :meth:`_update`, which changes one group of parameters.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Parameters, or groups of them: dicts with ``params`` and options that differ from the defaults.
    defaults : dict
        Options of groups that do not say otherwise.

    Attributes
    ----------
    param_groups : list of dict
        ``params`` and the options of each group; changing an option (``group['lr']``) counts from the next step.
    state : dict
        What is remembered of each parameter, by parameter.
    defaults : dict

    Raises
    ------
    TypeError
        ``params`` is a tensor or a set, or holds something else than tensors.
    ValueError
        There are no parameters, one is no leaf, or stands in two groups.
    """

    _states_like_params = True

    def __init__(self, params: Iterable[Any], defaults: Dict[str, Any]):
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got Tensor"
            )
        self.defaults = defaults
        self.state: Dict[Tensor, Dict[str, Any]] = defaultdict(dict)
        self.param_groups: list = []
        self._before: dict = {}
        self._after: dict = {}
        self._steps_taken = 0
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    # ---- groups

    @_C._boundary
    def add_param_group(self, param_group: Dict[str, Any]) -> None:
        """Add parameters with options of their own, for instance layers that are trained from now on.

        Parameters
        ----------
        param_group : dict
            ``params``, a tensor or an iterable of them, and options.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group).__name__}")
        params = param_group["params"]
        if isinstance(params, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the ordering of tensors in "
                "sets will change between runs. Please use a list instead."
            )
        params = [params] if isinstance(params, Tensor) else list(params)
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(
                    f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}"
                )
            if not p.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
        group = {**param_group, "params": params}
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise ValueError(
                    f"parameter group didn't specify a value of required optimization parameter {name}"
                )
            group.setdefault(name, default)
        if len({id(p) for p in params}) != len(params):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters", stacklevel=3
            )
        known = {id(p) for g in self.param_groups for p in g["params"]}
        if known & {id(p) for p in params}:
            raise ValueError("some parameters appear in more than one parameter group")
        self._check_options(group)
        self.param_groups.append(group)

    def _check_options(self, group: Dict[str, Any]) -> None:
        """Raises ValueError for an option that makes no sense."""
        for name in ("lr", "eps", "weight_decay", "momentum", "lr_decay", "momentum_decay"):
            if name in group and not group[name] >= 0.0:
                raise ValueError(f"Invalid {name} value: {group[name]}")
        for i, beta in enumerate(group.get("betas", ())):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"Invalid beta parameter at index {i}: {beta}")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or set them to zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if set_to_none:
                    p.grad = None
                else:
                    p.grad = p.grad.detach().zero_()

    # ---- steps

    def _advance(self, params: list, grads: list, names: tuple, start: float = 0.0) -> dict:
        """Counts a step of each parameter. What steps need, by their number: parameter, states and gradient, of one
        parameter after the other. States that are not there yet are filled with ``start``.
        """
        tensors: Dict[int, list] = {}
        for p, g in zip(params, grads):
            state = self.state[p]
            step = state["step"] = state.get("step", 0) + 1
            row = tensors.get(step)
            if row is None:
                row = tensors[step] = []
            row.append(p)
            value = complex(start, start) if p.is_complex() else start
            for name in names:
                if name not in state:
                    state[name] = _C.full_like(p, value)
                row.append(state[name])
            row.append(g)
        return tensors

    def _update(self, group: Dict[str, Any], params: list, grads: list) -> None:
        """Changes the parameters of a group that have gradients."""
        raise NotImplementedError(f"{type(self).__name__}: an optimizer defines _update()")

    @_C._boundary
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change all parameters that have a gradient.

        Parameters
        ----------
        closure : callable, optional
            Called first, with gradients recorded: computes the loss anew and its gradients.

        Returns
        -------
        object
            What ``closure`` returned, or None.
        """
        for hook in tuple(self._before.values()):
            hook(self, (closure,), {})
        with _C.no_grad():
            loss = self._take_step(closure)
        self._steps_taken += 1
        for hook in tuple(self._after.values()):
            hook(self, (closure,), {})
        return loss

    def _take_step(self, closure):
        loss = None
        if closure is not None:
            with _C.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(group, params, [p.grad for p in params])
        return loss

    def _add_hook(self, hooks, hook):
        number = next(_numbers)
        hooks[number] = hook
        return StepHookHandle(hooks, number)

    def register_step_pre_hook(self, hook) -> StepHookHandle:
        """Call ``hook(optimizer, args, kwargs)`` before each step."""
        return self._add_hook(self._before, hook)

    def register_step_post_hook(self, hook) -> StepHookHandle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return self._add_hook(self._after, hook)

    # ---- state

    def _numbered(self):
        return {id(p): i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}

    def state_dict(self) -> Dict[str, Any]:
        """``{'state': {number: dict}, 'param_groups': [dict]}``, with numbers in place of parameters.

        Tensors are those of the optimizer, not copies.
        """
        numbers = self._numbered()
        groups = [
            {**group, "params": [numbers[id(p)] for p in group["params"]]}
            for group in self.param_groups
        ]
        state = {numbers[id(p)]: dict(s) for p, s in self.state.items() if id(p) in numbers}
        return {"state": state, "param_groups": groups}

    @_C._boundary
    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Take over options and state of a dict as :meth:`state_dict` gives, for parameters in the same order.

        Tensors are copied, those of floating dtype converted to their parameter's.

        Raises
        ------
        ValueError
            There are other groups, or groups of other sizes, or a state tensor has not its parameter's shape.
        """
        groups = state_dict["param_groups"]
        if len(groups) != len(self.param_groups):
            raise ValueError(
                f"loaded state dict has {len(groups)} parameter groups, the optimizer {len(self.param_groups)}"
            )
        for mine, given in zip(self.param_groups, groups):
            if len(mine["params"]) != len(given["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of optimizer's group: "
                    f"{len(given['params'])} parameters for {len(mine['params'])}"
                )
        params = [p for group in self.param_groups for p in group["params"]]
        keys = [key for group in groups for key in group["params"]]
        state = defaultdict(dict)
        for key, param in zip(keys, params):
            if key in state_dict["state"]:
                entries = state_dict["state"][key]
                adopt = _adopted if self._states_like_params else _copied
                state[param] = {k: adopt(k, v, param) for k, v in entries.items()}
        self.state = state
        self.param_groups = [
            {
                **copy.deepcopy({k: v for k, v in given.items() if k != "params"}),
                "params": mine["params"],
            }
            for mine, given in zip(self.param_groups, groups)
        ]

    def __getstate__(self):
        return {**self.__dict__, "_before": {}, "_after": {}}

    def __repr__(self):
        lines = []
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return f"{type(self).__name__} (\n" + "\n".join(lines) + "\n)"


def _copied(key, value, param):
    if isinstance(value, list):
        return [_copied(key, v, param) for v in value]
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


def _adopted(key, value, param):
    if not isinstance(value, Tensor):
        return copy.deepcopy(value)
    if value.ndim and value.shape != param.shape:
        raise ValueError(
            f"load_state_dict: {key} has shape {tuple(value.shape)}, its parameter {tuple(param.shape)}"
        )
    dtype = param.dtype if value.is_floating_point() and param.is_floating_point() else value.dtype
    return value.detach().to(dtype, copy=True)
