"""Modules as functions of their parameters and buffers: ``functional_call``, ``stack_module_state``."""

from .. import _C
from ..nn import Module
from .arguments import Tensor

__all__ = ["functional_call", "stack_module_state"]

_TABLES = ("_parameters", "_buffers")


def _places(module):
    """Dotted name -> (table, key) of every parameter and buffer, those that share a tensor each by itself."""
    found = {}
    for prefix, part in module.named_modules(remove_duplicate=False):
        for table in _TABLES:
            for key, value in part.__dict__[table].items():
                if value is not None:
                    found[f"{prefix}.{key}" if prefix else key] = (part.__dict__[table], key)
    return found


def _merged(dicts):
    if isinstance(dicts, dict):
        return dicts
    if not isinstance(dicts, (tuple, list)) or not all(isinstance(d, dict) for d in dicts):
        raise ValueError(
            "functional_call: parameters and buffers must be a dict or a tuple of dicts, not "
            f"{type(dicts).__name__}"
        )
    merged = {}
    for part in dicts:
        twice = sorted(merged.keys() & part.keys())
        if twice:
            raise ValueError(f"functional_call: {twice} stand in several of the dicts")
        merged.update(part)
    return merged


def _with_ties(given, places):
    """given, with a value for every name whose tensor is given by another name."""
    names_of = {}
    for name, (table, key) in places.items():
        names_of.setdefault(id(table[key]), []).append(name)
    full = {}
    for names in names_of.values():
        present = [name for name in names if name in given]
        if len({id(given[name]) for name in present}) > 1:
            raise ValueError(
                f"functional_call: {present} are one tensor of the module, but were given different values; pass one of "
                "them, or tie_weights=False"
            )
        if present:
            full.update(dict.fromkeys(names, given[present[0]]))
    return full


def _check_names(given, full, places):
    unexpected = sorted(given.keys() - places.keys())
    missing = sorted(places.keys() - full.keys())
    if unexpected or missing:
        raise RuntimeError(
            f"functional_call: strict, but the module has no {unexpected}, and no value was given for {missing}"
        )


@_C._boundary
def functional_call(
    module, parameter_and_buffer_dicts, args=None, kwargs=None, *, tie_weights=True, strict=False
):
    """``module(*args, **kwargs)`` with other tensors in the place of its parameters and buffers.

    Parameters
    ----------
    module : Module
        As it was once the call is over, also when that fails.
    parameter_and_buffer_dicts : dict or tuple of dict
        Tensors by dotted names, as ``named_parameters()`` and ``named_buffers()`` yield them. What is not named stays; names
        that the module does not have are passed over. What the call assigns anew is put into a single dict.
    args : tuple or one argument
    kwargs : dict
    tie_weights : bool
        A tensor that the module has under several names is replaced under all of them.
    strict : bool
        Every parameter and buffer must be given, and no other name.

    Raises
    ------
    ValueError
        A name stands in several dicts; names of one tensor were given different values.
    TypeError
        A value is not a Tensor.
    RuntimeError
        ``strict``, and names are missing or unknown.

    >>> import spool
    >>> model = spool.nn.Linear(2, 1)
    >>> params = {"weight": spool.tensor([[1.0, 2.0]]), "bias": spool.tensor([0.5])}
    >>> spool.func.functional_call(model, params, spool.tensor([10.0, 1.0]))
    tensor([12.5000])
    """
    given = _merged(parameter_and_buffer_dicts)
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"functional_call: '{name}' must be a Tensor, not {type(value).__name__}"
            )
    places = _places(module)
    full = (
        _with_ties(given, places)
        if tie_weights
        else {name: value for name, value in given.items() if name in places}
    )
    if strict:
        _check_names(given, full, places)
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    before = [(*places[name], places[name][0][places[name][1]]) for name in full]
    try:
        for name, value in full.items():
            table, key = places[name]
            table[key] = value
        return module(*args, **(kwargs or {}))
    finally:
        _take_back(given, full, places)
        for table, key, value in before:
            table[key] = value


def _take_back(given, full, places):
    """What the call assigned goes into the dict."""
    for name in given.keys() & full.keys():
        table, key = places[name]
        if table.get(key) is not full[name]:
            given[name] = table.get(key)


@_C._boundary
def stack_module_state(models):
    """The parameters and the buffers of models of one class, each stacked along a new first dimension, for :func:`vmap`.

    Parameters
    ----------
    models : sequence of Module
        Of one class, all in training or all in evaluation mode.

    Returns
    -------
    (params, buffers) : (dict, dict)
        New tensors by dotted names; the parameters are leaves that require gradients where the models' do.

    Raises
    ------
    RuntimeError
        No models, or models of several classes, modes or ``requires_grad``.

    >>> import spool
    >>> models = [spool.nn.Linear(2, 3) for _ in range(4)]
    >>> params, buffers = spool.func.stack_module_state(models)
    >>> def run(params, x):
    ...     return spool.func.functional_call(models[0], params, x)
    >>> spool.func.vmap(run, in_dims=(0, None))(params, spool.ones(2)).shape
    spool.Size([4, 3])
    """
    models = list(models)
    if not models:
        raise RuntimeError("stack_module_state: expected at least one model, got none")
    if not all(isinstance(model, Module) and type(model) is type(models[0]) for model in models):
        raise RuntimeError("stack_module_state: expected models of one class")
    if len({model.training for model in models}) > 1:
        raise RuntimeError("stack_module_state: expected all models in training mode, or none")
    return _stacked(models, "named_parameters"), _stacked(models, "named_buffers")


def _stacked(models, members):
    tables = [dict(getattr(model, members)()) for model in models]
    if any(table.keys() != tables[0].keys() for table in tables):
        raise RuntimeError(
            "stack_module_state: expected the same parameters and buffers in all models"
        )
    return {name: _stack(name, [table[name] for table in tables]) for name in tables[0]}


def _stack(name, values):
    wanted = {value.requires_grad for value in values}
    if len(wanted) > 1:
        raise RuntimeError(f"stack_module_state: '{name}' requires gradients in some models only")
    return _C.stack([value.detach() for value in values]).requires_grad_(wanted.pop())
