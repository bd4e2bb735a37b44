"""How ops are run: counts since the start or the last reset.

``stats()`` counts kernels run on the caller (``inline_runs``), by the device's worker
(``queued_runs``), by a caller that waited (``helped_runs``), all of these at the moment they are
issued (``eager_launches``), compiled regions (``plan_runs``) and ``synchronizations``.
"""

from ._C import reset_stats, stats

__all__ = ["reset_stats", "stats"]
