"""Linear algebra: so far vector norms.

vector_norm(x, ord=2, dim=None, keepdim=False, *, dtype=None)    the ord-th root of the sum of |x| ** ord
"""

from ._C import vector_norm

__all__ = ["vector_norm"]
