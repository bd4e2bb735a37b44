"""Linear systems of which only products with the matrix are known."""

import math

from .. import _C
from .._dtypes import finfo

__all__ = ["gmres"]

_MOST_STEPS = 500


def gmres(product, wanted):
    """w with product(w) = wanted, a vector of real numbers: GMRES without restarts.

    Steps are at most the vector's size, and 500; each keeps one vector.

    Raises
    ------
    SpoolError
        The matrix is singular, or the steps were too few.

    Notes
    -----
    Saad and Schultz: GMRES, a generalized minimal residual algorithm for solving nonsymmetric linear systems, 1986.
    """
    eps, scale = finfo(wanted.dtype).eps, wanted.norm().item()
    if scale == 0:
        return _C.zeros_like(wanted)
    directions, system = [wanted / scale], _Triangle(scale)
    for _ in range(min(wanted.numel(), _MOST_STEPS)):
        image = product(directions[-1])
        length = image.norm().item()
        column, rest = _orthogonal(image, _C.stack(directions))
        left = rest.norm().item()
        last = not left > eps * length
        system.append(column, 0.0 if last else left, eps * length)
        if last or system.error <= eps * scale:
            break
        directions.append(rest / left)
    if not system.error <= math.sqrt(eps) * scale:
        raise _C.SpoolError(
            f"implicit derivative: the linear system for it was not solved in {len(system.columns)} steps (what is left over is "
            f"{system.error / scale:.1e} of the right-hand side): the equation's derivative by its solution is singular, or nearly"
        )
    factors = _C.tensor(system.solve(), dtype=wanted.dtype)
    return factors @ _C.stack(directions[: len(system.columns)])


def _orthogonal(image, directions):
    """image's products with the directions, and what is left without them; twice, against rounding."""
    first = directions @ image
    rest = image - first @ directions
    second = directions @ rest
    return (first + second).tolist(), rest - second @ directions


class _Triangle:
    """The small least-squares problem, made triangular by rotations column by column."""

    def __init__(self, scale):
        self.columns, self.rotations, self.right = [], [], [scale]

    @property
    def error(self):
        return abs(self.right[-1])

    def append(self, column, below, noise):
        """A column of the matrix; what is left at its end and is mere noise says that it depends on those before."""
        for i, (c, s) in enumerate(self.rotations):
            column[i : i + 2] = c * column[i] + s * column[i + 1], c * column[i + 1] - s * column[i]
        length = math.hypot(column[-1], below)
        c, s = (column[-1] / length, below / length) if length > 8 * noise else (1.0, math.inf)
        column[-1] = length
        self.columns.append(column)
        self.rotations.append((c, s))
        self.right[-1:] = c * self.right[-1], -s * self.right[-1]

    def solve(self):
        found = [0.0] * len(self.columns)
        for i in reversed(range(len(found))):
            known = sum(self.columns[j][i] * found[j] for j in range(i + 1, len(found)))
            found[i] = (self.right[i] - known) / self.columns[i][i]
        return found
