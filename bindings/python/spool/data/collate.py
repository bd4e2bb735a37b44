"""Batches of items, and items as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .. import _C

__all__ = ["default_collate", "default_convert"]


def _is_array(value):
    return hasattr(value, "__array_interface__") or type(value).__module__ == "numpy"


def _stacked(tensors):
    first = tensors[0]
    if any(t.shape != first.shape for t in tensors):
        raise _C.ShapeError(
            "default_collate: each tensor of a batch must have one shape, got "
            f"{[tuple(t.shape) for t in tensors]}; pass a collate_fn that pads or lists them"
        )
    with _C.no_grad():
        return _C.stack(list(tensors))


def _rebuilt(sample, values):
    """values in a sequence or mapping of sample's kind, if that can be made of them."""
    if isinstance(sample, tuple) and hasattr(sample, "_fields"):
        return type(sample)(*values)
    try:
        return type(sample)(values)
    except TypeError:
        return values


def default_collate(batch):
    """One batch of a list of items.

    Parameters
    ----------
    batch : list
        Tensors and arrays of equal shapes are stacked in a new dimension 0; numbers become a tensor (float64, int64 or bool);
        texts stay a list. Dicts and sequences are taken entry by entry: a list of pairs becomes a pair of batches.

    Returns
    -------
    object
        With the structure of one item.

    Raises
    ------
    ShapeError
        Tensors of different shapes.
    RuntimeError
        Sequences of different lengths.
    TypeError
        Something else is in the items.

    Examples
    --------
    >>> from spool.data import default_collate
    >>> default_collate([(1.5, "a"), (2.5, "b")])
    [tensor([1.5000, 2.5000], dtype=spool.float64), ('a', 'b')]
    """
    first = batch[0]
    if isinstance(first, _C.Tensor):
        return _stacked(batch)
    if _is_array(first):
        import numpy as np

        return _C.tensor(np.stack([np.asarray(item) for item in batch]))
    if isinstance(first, (bool, int, float)):
        dtype = _C.float64 if isinstance(first, float) else None
        return _C.tensor(list(batch), dtype=dtype)
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        return _rebuilt(
            first, {key: default_collate([item[key] for item in batch]) for key in first}
        )
    if isinstance(first, Sequence):
        if any(len(item) != len(first) for item in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        values = [default_collate(entries) for entries in zip(*batch)]
        return values if type(first) is tuple else _rebuilt(first, values)
    raise TypeError(
        "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found "
        f"{type(first).__name__}"
    )


def default_convert(data):
    """An item with its arrays as tensors; what else it is made of stays."""
    if isinstance(data, _C.Tensor):
        return data
    if _is_array(data) and getattr(data, "dtype", None) is not None and data.dtype.kind in "biuf":
        return _C.tensor(data)
    if isinstance(data, Mapping):
        return _rebuilt(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        values = [default_convert(value) for value in data]
        return values if type(data) is tuple else _rebuilt(data, values)
    return data
