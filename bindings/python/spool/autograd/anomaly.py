"""Anomaly mode: every recorded op remembers the user's line, and what goes wrong in its gradient names that line."""

from .. import _C

__all__ = [
    "detect_anomaly",
    "is_anomaly_check_nan_enabled",
    "is_anomaly_enabled",
    "set_detect_anomaly",
]

_ON, _NAN = 1, 2  # SP_ANOMALY_ON, SP_ANOMALY_NAN


def _mode():
    mode = _C._anomaly_mode(False, False)
    _C._anomaly_mode(mode & _ON, mode & _NAN)
    return mode


def is_anomaly_enabled():
    """Whether anomaly mode is on."""
    return bool(_mode() & _ON)


def is_anomaly_check_nan_enabled():
    """Whether anomaly mode is on and looks for NaN."""
    return bool(_mode() & _NAN)


class set_detect_anomaly:
    """Switch anomaly mode on or off, for all threads; as a context manager, until the end of the block.

    Parameters
    ----------
    mode : bool
        Whether ops that are recorded remember their line, and backwards name it.
    check_nan : bool
        Whether a NaN in a gradient that an op's backward yields is an error.

    Examples
    --------
    >>> import spool
    >>> with spool.autograd.set_detect_anomaly(True):
    ...     print(spool.autograd.is_anomaly_enabled())
    True
    >>> spool.autograd.is_anomaly_enabled()
    False
    """

    def __init__(self, mode, check_nan=True):
        self._before = _C._anomaly_mode(bool(mode), bool(check_nan))

    def __enter__(self):
        return None

    def __exit__(self, *exception):
        _C._anomaly_mode(self._before & _ON, self._before & _NAN)


class detect_anomaly:
    """Context manager: find the forward line of an op whose gradient fails or is NaN.

    Ops recorded inside the block remember the user's line. A backward that runs inside it raises where an op's backward fails,
    or, with ``check_nan``, yields a NaN, and names the op and that line. An exception of a hook or a custom backward keeps its
    type and message, and is given the line as a note (``__notes__``). Each gradient is looked at, so backward waits for each:
    for debugging only.

    Parameters
    ----------
    check_nan : bool
        Whether a NaN in a gradient that an op's backward yields is an error.

    Raises
    ------
    SpoolError
        From a backward inside the block, as above.

    Examples
    --------
    >>> import spool
    >>> x = spool.tensor([0.0], requires_grad=True)
    >>> with spool.autograd.detect_anomaly():
    ...     y = (spool.sqrt(x) * 0).sum()
    ...     try:
    ...         y.backward()
    ...     except spool.SpoolError as error:
    ...         print(str(error).split(";")[0])
    backward: sqrt yields NaN for the gradient of its input 0
    """

    def __init__(self, check_nan=True):
        self._check_nan = bool(check_nan)

    def __enter__(self):
        self._before = _C._anomaly_mode(True, self._check_nan)

    def __exit__(self, *exception):
        _C._anomaly_mode(self._before & _ON, self._before & _NAN)
