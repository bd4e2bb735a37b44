"""How ops are run: counts since the start or the last reset.

``stats()`` counts kernels run on the caller (``inline_runs``), by the device's worker (``queued_runs``), by a caller that
waited (``helped_runs``), their sum (``eager_launches``), compiled regions (``plan_runs``) and ``synchronizations``.
"""

from ._C import _launch_reset as reset_stats
from ._C import _launch_stats as stats

__all__ = ["reset_stats", "stats"]
