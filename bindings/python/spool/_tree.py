"""Trees of values: nested tuples, lists, dicts and named tuples, flattened and built up again."""

from . import _C


def flatten(tree):
    """The leaves in order, and the structure that :func:`unflatten` takes.

    Anything but tuple, list, dict and None is a leaf; None is structure. Dicts are walked in their own order.
    """
    return _C._tree_flatten(tree)


def unflatten(structure, leaves):
    """The tree of that structure with these leaves."""
    return _C._tree_unflatten(structure, leaves)


def tree_map(function, tree):
    """The tree with every leaf replaced by function(leaf)."""
    leaves, structure = flatten(tree)
    return unflatten(structure, [function(leaf) for leaf in leaves])


def broadcast_prefix(prefix, tree, what):
    """A prefix of tree's structure, such as one number for all, as one value a leaf of tree.

    Raises ValueError, naming ``what``, when the structures differ.
    """
    result = []
    _broadcast(prefix, tree, what, result)
    return result


def _broadcast(prefix, tree, what, result):
    if prefix is None or not isinstance(prefix, (tuple, list, dict)):
        result.extend([prefix] * len(flatten(tree)[0]))
        return
    if isinstance(prefix, dict):
        if not isinstance(tree, dict) or prefix.keys() != tree.keys():
            raise ValueError(f"{what}: a dict that does not match the arguments")
        for key in tree:
            _broadcast(prefix[key], tree[key], what, result)
        return
    if not isinstance(tree, (tuple, list)) or len(prefix) != len(tree):
        raise ValueError(
            f"{what}: {len(prefix)} entries for {len(tree) if isinstance(tree, (tuple, list)) else 'one'} value(s)"
        )
    for part, value in zip(prefix, tree):
        _broadcast(part, value, what, result)
