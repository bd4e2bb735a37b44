"""Losses as modules: each calls the function of its name in :mod:`spool.nn.functional`.

Where nothing else is said, a result has the target's shape for a reduction of 'none', otherwise it is one number.
"""

from __future__ import annotations

from . import functional as F
from .module import Module

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "MSELoss",
    "MarginRankingLoss",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PoissonNLLLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TripletMarginLoss",
]

_REDUCTIONS = ("none", "mean", "sum")


class _Loss(Module):
    """A loss with a reduction: 'none', 'mean' or 'sum'."""

    _reductions = _REDUCTIONS

    def __init__(self, *, reduction: str = "mean"):
        super().__init__()
        if reduction not in self._reductions:
            raise ValueError(
                f"{type(self).__name__}: reduction must be one of {self._reductions}, not {reduction!r}"
            )
        self.reduction = reduction


class _WeightedLoss(_Loss):
    """With a buffer ``weight``, or None."""

    def __init__(self, weight=None, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.register_buffer("weight", weight)


class NLLLoss(_WeightedLoss):
    """Negative log likelihood of classes, of log-probabilities: ``-input[i, target[i]]``, reduced.

    Shapes: input ``(C)``, ``(N, C)`` or ``(N, C, d1, ...)``, target int64 of that shape without C.

    Parameters
    ----------
    weight : Tensor, optional
        ``(C)``: what each class counts.
    ignore_index : int
        Targets of this value do not count.
    reduction : {'mean', 'sum', 'none'}
    """

    def __init__(self, weight=None, *, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__(weight, reduction=reduction)
        self.ignore_index = ignore_index

    def forward(self, input, target):
        return F.nll_loss(
            input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction
        )


class CrossEntropyLoss(_WeightedLoss):
    """Cross entropy of unnormalised scores and classes: ``NLLLoss`` of ``log_softmax`` over the classes.

    Shapes: input ``(C)``, ``(N, C)`` or ``(N, C, d1, ...)``, target int64 of that shape without C, or probabilities of that shape.

    Parameters
    ----------
    weight : Tensor, optional
        ``(C)``: what each class counts.
    ignore_index : int
        Target classes of this value do not count.
    reduction : {'mean', 'sum', 'none'}
    label_smoothing : float
        The share of the target that is spread evenly over all classes.

    Examples
    --------
    >>> import spool
    >>> spool.nn.CrossEntropyLoss()(spool.zeros(3, 2), spool.tensor([0, 1, 1]))
    tensor(0.6931)
    """

    def __init__(
        self,
        weight=None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ):
        super().__init__(weight, reduction=reduction)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input, target):
        return F.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class MSELoss(_Loss):
    """The mean (or sum) of ``(input - target)**2``; shapes are equal.

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}
    """

    def forward(self, input, target):
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """The mean (or sum) of ``abs(input - target)``; shapes are equal.

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}
    """

    def forward(self, input, target):
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """With ``d = abs(input - target)``: ``d**2 / (2 * beta)`` below ``beta``, ``d - beta / 2`` from there on.

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}
    beta : float
        Where the parabola ends; 0 for none.
    """

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0):
        super().__init__(reduction=reduction)
        self.beta = beta

    def forward(self, input, target):
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """With ``d = abs(input - target)``: ``d**2 / 2`` up to ``delta``, ``delta * (d - delta / 2)`` from there on (Huber, 1964).

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}
    delta : float
        Where the parabola ends, positive.
    """

    def __init__(self, *, reduction: str = "mean", delta: float = 1.0):
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input, target):
        return F.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class BCELoss(_WeightedLoss):
    """``-(target * log(input) + (1 - target) * log(1 - input))`` of probabilities.

    Parameters
    ----------
    weight : Tensor, optional
        What each element counts.
    reduction : {'mean', 'sum', 'none'}
    """

    def forward(self, input, target):
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_WeightedLoss):
    """:class:`BCELoss` of the sigmoid of scores, computed without overflow.

    Parameters
    ----------
    weight : Tensor, optional
        What each element counts.
    reduction : {'mean', 'sum', 'none'}
    pos_weight : Tensor, optional
        What the part of ``target`` counts beside that of ``1 - target``.
    """

    def __init__(self, weight=None, *, reduction: str = "mean", pos_weight=None):
        super().__init__(weight, reduction=reduction)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input, target):
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class KLDivLoss(_Loss):
    """``target * (log(target) - input)`` of log-probabilities and probabilities.

    Parameters
    ----------
    reduction : {'mean', 'batchmean', 'sum', 'none'}
        'batchmean' divides the sum by the first size.
    log_target : bool
        Targets are logarithms, too.
    """

    _reductions = (*_REDUCTIONS, "batchmean")

    def __init__(self, *, reduction: str = "mean", log_target: bool = False):
        super().__init__(reduction=reduction)
        self.log_target = log_target

    def forward(self, input, target):
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class PoissonNLLLoss(_Loss):
    """Negative log likelihood of counts of a Poisson distribution.

    Parameters
    ----------
    log_input : bool
        Inputs are logarithms of the expected counts.
    full : bool
        With Stirling's approximation of the target's term.
    eps : float
    reduction : {'mean', 'sum', 'none'}
    """

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        eps: float = 1e-8,
        *,
        reduction: str = "mean",
    ):
        super().__init__(reduction=reduction)
        self.log_input, self.full, self.eps = log_input, full, eps

    def forward(self, log_input, target):
        return F.poisson_nll_loss(
            log_input, target, self.log_input, self.full, self.eps, reduction=self.reduction
        )


class GaussianNLLLoss(_Loss):
    """``(log(var) + (input - target)**2 / var) / 2``

    Parameters
    ----------
    full : bool
        With the constant term.
    eps : float
        The least variance.
    reduction : {'mean', 'sum', 'none'}
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.full, self.eps = full, eps

    def forward(self, input, target, var):
        return F.gaussian_nll_loss(
            input, target, var, self.full, self.eps, reduction=self.reduction
        )


class SoftMarginLoss(_Loss):
    """``log(1 + exp(-target * input))`` for targets 1 and -1.

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}
    """

    def forward(self, input, target):
        return F.soft_margin_loss(input, target, reduction=self.reduction)


class MultiLabelSoftMarginLoss(_WeightedLoss):
    """The mean over classes ``(*, C)`` of the binary cross entropy of scores.

    Parameters
    ----------
    weight : Tensor, optional
        ``(C)``: what each class counts.
    reduction : {'mean', 'sum', 'none'}
    """

    def forward(self, input, target):
        return F.multilabel_soft_margin_loss(input, target, self.weight, reduction=self.reduction)


class MultiLabelMarginLoss(_Loss):
    """``max(0, 1 - input[y] + input[i])`` over all target classes y and other classes i, divided by C.

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}
    """

    def forward(self, input, target):
        return F.multilabel_margin_loss(input, target, reduction=self.reduction)


class MultiMarginLoss(_WeightedLoss):
    """The mean over classes i other than the target's y of ``max(0, margin - input[y] + input[i])**p``.

    Parameters
    ----------
    p : {1, 2}
    margin : float
    weight : Tensor, optional
        ``(C)``: what each target class counts.
    reduction : {'mean', 'sum', 'none'}
    """

    def __init__(self, p: int = 1, margin: float = 1.0, weight=None, *, reduction: str = "mean"):
        super().__init__(weight, reduction=reduction)
        if p not in (1, 2):
            raise ValueError(f"MultiMarginLoss: p must be 1 or 2, not {p}")
        self.p, self.margin = p, margin

    def forward(self, input, target):
        return F.multi_margin_loss(
            input, target, self.p, self.margin, self.weight, reduction=self.reduction
        )


class HingeEmbeddingLoss(_Loss):
    """The input where the target is 1, ``max(0, margin - input)`` where it is -1.

    Parameters
    ----------
    margin : float
    reduction : {'mean', 'sum', 'none'}
    """

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.margin = margin

    def forward(self, input, target):
        return F.hinge_embedding_loss(input, target, self.margin, reduction=self.reduction)


class MarginRankingLoss(_Loss):
    """``max(0, margin - target * (input1 - input2))``

    Parameters
    ----------
    margin : float
    reduction : {'mean', 'sum', 'none'}
    """

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.margin = margin

    def forward(self, input1, input2, target):
        return F.margin_ranking_loss(input1, input2, target, self.margin, reduction=self.reduction)


class CosineEmbeddingLoss(_Loss):
    """With c the cosine of two vectors: ``1 - c`` for a target of 1, ``max(0, c - margin)`` for -1.

    Parameters
    ----------
    margin : float
    reduction : {'mean', 'sum', 'none'}
    """

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.margin = margin

    def forward(self, input1, input2, target):
        return F.cosine_embedding_loss(
            input1, input2, target, self.margin, reduction=self.reduction
        )


class TripletMarginLoss(_Loss):
    """``max(0, d(anchor, positive) - d(anchor, negative) + margin)``, d being the p-norm of the difference.

    Parameters
    ----------
    margin, p, eps : float
    swap : bool
        Take the smaller one of the distances of the negative to the anchor and to the positive.
    reduction : {'mean', 'sum', 'none'}
    """

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        *,
        reduction: str = "mean",
    ):
        super().__init__(reduction=reduction)
        self.margin, self.p, self.eps, self.swap = margin, p, eps, swap

    def forward(self, anchor, positive, negative):
        return F.triplet_margin_loss(
            anchor,
            positive,
            negative,
            self.margin,
            self.p,
            self.eps,
            self.swap,
            reduction=self.reduction,
        )
