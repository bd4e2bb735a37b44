"""What ``vmap`` could not run batched."""

from __future__ import annotations

from typing import Dict

from .. import _C

__all__ = ["vmap_fallbacks"]


def vmap_fallbacks() -> Dict[str, int]:
    """Ops that :func:`vmap` has run slice by slice in this process, and how often.

    Every op of the table has a batched rule, so that there is nothing here unless an op was added without one; the first time,
    each says so on stderr. :func:`spool.explain` lists them, too.

    Returns
    -------
    dict of str to int
        Calls by the op's name in the table.

    Examples
    --------
    >>> import spool
    >>> rows = spool.func.vmap(spool.softmax, in_dims=(0, None))(spool.ones(2, 3), 0)
    >>> spool.func.vmap_fallbacks()
    {}
    """
    return _C._vmap_fallbacks()
