"""Losses and distances of :mod:`spool.nn.functional`."""

import math
import warnings

from .. import _C

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "margin_ranking_loss",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "pairwise_distance",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
]


def _difference(op, input, target):
    if input.shape != target.shape:
        warnings.warn(
            f"{op}: a target of shape {tuple(target.shape)} is broadcast with an input of shape {tuple(input.shape)}, "
            "which is seldom meant; reshape one of them",
            stacklevel=3,
        )
    return input - target


def _same_shape(op, input, target):
    if input.shape != target.shape:
        raise _C.ShapeError(
            f"{op}: a target of shape {tuple(target.shape)} for an input of shape {tuple(input.shape)}; expected the same"
        )


def _reduced(op, losses, reduction):
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise ValueError(f"{op}: reduction must be 'none', 'mean' or 'sum', not {reduction!r}")


# ---- differences


@_C._boundary
def mse_loss(input, target, *, reduction="mean"):
    """The square of ``input - target``.

    Parameters
    ----------
    input, target : Tensor
        Floating point, of one shape; others are broadcast, with a warning.
    reduction : {'mean', 'sum', 'none'}

    Returns
    -------
    Tensor
        The input's shape for 'none', otherwise one number.

    Raises
    ------
    ShapeError
        The shapes do not broadcast.
    ValueError
        There is no such reduction.
    """
    difference = _difference("mse_loss", input, target)
    return _reduced("mse_loss", difference * difference, reduction)


@_C._boundary
def l1_loss(input, target, *, reduction="mean"):
    """The absolute value of ``input - target``, whose derivative at 0 is 0.

    Parameters, result and errors are those of :func:`mse_loss`.
    """
    return _reduced("l1_loss", _difference("l1_loss", input, target).abs(), reduction)


@_C._boundary
def smooth_l1_loss(input, target, *, reduction="mean", beta=1.0):
    """With ``d = abs(input - target)``: ``d**2 / (2 * beta)`` below ``beta``, ``d - beta / 2`` from there on.

    Parameters
    ----------
    beta : float
        Where the parabola ends; 0 makes it :func:`l1_loss`.

    Others, result and errors are those of :func:`mse_loss`; ValueError for a negative ``beta``.
    """
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: beta must not be negative, got {beta}")
    d = _difference("smooth_l1_loss", input, target).abs()
    losses = d if beta == 0 else _C.where(d < beta, d * d * (0.5 / beta), d - 0.5 * beta)
    return _reduced("smooth_l1_loss", losses, reduction)


@_C._boundary
def huber_loss(input, target, *, reduction="mean", delta=1.0):
    """With ``d = abs(input - target)``: ``d**2 / 2`` up to ``delta``, ``delta * (d - delta / 2)`` from there on (Huber, 1964).

    Parameters
    ----------
    delta : float
        Where the parabola ends, positive.

    Others, result and errors are those of :func:`mse_loss`; ValueError if ``delta`` is not positive.
    """
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be positive, got {delta}")
    d = _difference("huber_loss", input, target).abs()
    losses = _C.where(d <= delta, d * d * 0.5, (d - 0.5 * delta) * delta)
    return _reduced("huber_loss", losses, reduction)


# ---- classes


def _class_losses(logp, target, weight, ignore_index):
    """One loss a target, 0 for those ignored, and the weight of each."""
    valid = target != ignore_index
    safe = _C.where(valid, target, 0)
    losses = _C.nll_loss(logp, safe, reduction="none")
    weights = valid.to(logp.dtype)
    if weight is not None:
        weights = weights * weight[safe]
    return losses, weights


def _check_weight(op, input, weight):
    classes = input.shape[1 if input.ndim > 1 else 0] if input.ndim else 0
    if weight is not None and tuple(weight.shape) != (classes,):
        raise _C.ShapeError(
            f"{op}: weight has shape {tuple(weight.shape)}, expected one number for each of {classes} classes"
        )


@_C._boundary
def nll_loss(input, target, weight=None, *, ignore_index=-100, reduction="mean"):
    """Minus the log-probability of each target's class.

    Parameters
    ----------
    input : Tensor
        Log-probabilities ``(C)``, ``(N, C)`` or ``(N, C, d1, ...)``.
    target : Tensor
        Classes, int64, of the input's shape without C.
    weight : Tensor, optional
        ``(C)``: what each class counts; 'mean' divides by the targets' weights together.
    ignore_index : int
        Targets of this value do not count.
    reduction : {'mean', 'sum', 'none'}

    Returns
    -------
    Tensor
        The target's shape for 'none', otherwise one number; NaN for the mean of no targets.

    Raises
    ------
    IndexError
        A class is out of range.
    ShapeError
        The shapes do not go together.
    """
    if weight is None:
        return _C.nll_loss(input, target, reduction=reduction, ignore_index=ignore_index)
    _check_weight("nll_loss", input, weight)
    losses, weights = _class_losses(input, target, weight, ignore_index)
    losses = losses * weights
    if reduction == "mean":
        return losses.sum() / weights.sum()
    return _reduced("nll_loss", losses, reduction)


@_C._boundary
def cross_entropy(
    input, target, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    """Cross entropy of unnormalised scores and true classes, or their probabilities.

    Parameters
    ----------
    input : Tensor
        Scores ``(C)``, ``(N, C)`` or ``(N, C, d1, ...)``.
    target : Tensor
        Classes, int64, of the input's shape without C; or probabilities of the input's shape.
    weight : Tensor, optional
        ``(C)``: what each class counts.
    ignore_index : int
        Target classes of this value do not count.
    reduction : {'mean', 'sum', 'none'}
    label_smoothing : float
        In [0, 1]: the share of the target that is spread evenly over all classes.

    Returns
    -------
    Tensor
        The target's shape (without C) for 'none', otherwise one number.

    Raises
    ------
    IndexError
        A class is out of range.
    ShapeError
        The shapes do not go together.
    ValueError
        ``label_smoothing`` is not in [0, 1], or there is no such reduction.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(
            f"cross_entropy: label_smoothing must be between 0 and 1, got {label_smoothing}"
        )
    _check_weight("cross_entropy", input, weight)
    if target.is_floating_point() and target.ndim == input.ndim:
        return _soft_cross_entropy(input, target, weight, reduction, label_smoothing)
    if weight is None and label_smoothing == 0:
        return _C.cross_entropy(input, target, reduction=reduction, ignore_index=ignore_index)
    dim = 1 if input.ndim > 1 else 0
    logp = _C.log_softmax(input, dim)
    losses, weights = _class_losses(logp, target, weight, ignore_index)
    losses = losses * weights
    if label_smoothing:
        even = logp if weight is None else logp * _along(weight, logp, dim)
        even = _C.where(target != ignore_index, -even.sum(dim), 0.0)
        share = label_smoothing / input.shape[dim]
        losses = losses * (1 - label_smoothing) + even * share
    if reduction == "mean":
        return losses.sum() / weights.sum()
    return _reduced("cross_entropy", losses, reduction)


def _along(weight, x, dim):
    return weight.reshape(*[-1 if d == dim else 1 for d in range(x.ndim)])


def _soft_cross_entropy(input, target, weight, reduction, label_smoothing):
    _same_shape("cross_entropy", input, target)
    dim = 1 if input.ndim > 1 else 0
    logp = _C.log_softmax(input, dim)
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / input.shape[dim]
    if weight is not None:
        logp = logp * _along(weight, logp, dim)
    return _reduced("cross_entropy", -(logp * target).sum(dim), reduction)


@_C._boundary
def multi_margin_loss(input, target, p=1, margin=1.0, weight=None, *, reduction="mean"):
    """The mean over classes i other than the target's y of ``max(0, margin - input[y] + input[i])**p``.

    Parameters
    ----------
    input : Tensor
        ``(N, C)`` or ``(C)``
    target : Tensor
        int64 classes, ``(N)`` or ``()``.
    p : {1, 2}
    margin : float
    weight : Tensor, optional
        ``(C)``: what each target class counts.
    reduction : {'mean', 'sum', 'none'}
    """
    if p not in (1, 2):
        raise ValueError(f"multi_margin_loss: p must be 1 or 2, not {p}")
    _check_weight("multi_margin_loss", input, weight)
    places = target.unsqueeze(-1)
    losses = (margin - input.gather(-1, places) + input).clamp(min=0)
    if p == 2:
        losses = losses * losses
    if weight is not None:
        losses = losses * weight[places]
    losses = losses.scatter(-1, places, 0.0)  # not the target's own
    return _reduced("multi_margin_loss", losses.mean(-1), reduction)


@_C._boundary
def multilabel_margin_loss(input, target, *, reduction="mean"):
    """``max(0, 1 - input[y] + input[i])`` over all target classes y and other classes i, summed and divided by C.

    Parameters
    ----------
    input : Tensor
        ``(N, C)`` or ``(C)``
    target : Tensor
        int64 classes of that shape; those from the first -1 on do not count.
    reduction : {'mean', 'sum', 'none'}
    """
    _same_shape("multilabel_margin_loss", input, target)
    counts = (target >= 0).to(_C.int64).cumprod(-1)
    safe = target * counts
    chosen = _C.zeros_like(target).scatter_add(-1, safe, counts) > 0
    pairs = (1 - input.gather(-1, safe).unsqueeze(-1) + input.unsqueeze(-2)).clamp(min=0)
    pairs = pairs * counts.unsqueeze(-1).to(input.dtype) * (~chosen).unsqueeze(-2).to(input.dtype)
    losses = pairs.sum([-2, -1]) / input.shape[-1]
    return _reduced("multilabel_margin_loss", losses, reduction)


# ---- probabilities


def _log_from(x):
    """log(x), at least -100, with derivative 0 where x is 0."""
    some = x > 0
    return _C.where(some, _C.where(some, x, 1.0).log().clamp(min=-100.0), -100.0)


@_C._boundary
def binary_cross_entropy(input, target, weight=None, *, reduction="mean"):
    """``-(target * log(input) + (1 - target) * log(1 - input))``, the logarithms at least -100.

    Parameters
    ----------
    input, target : Tensor
        Probabilities of one shape.
    weight : Tensor, optional
        Broadcasts with them: what each element counts.
    reduction : {'mean', 'sum', 'none'}
    """
    _same_shape("binary_cross_entropy", input, target)
    losses = -(target * _log_from(input) + (1 - target) * _log_from(1 - input))
    losses = losses if weight is None else losses * weight
    return _reduced("binary_cross_entropy", losses, reduction)


@_C._boundary
def binary_cross_entropy_with_logits(
    input, target, weight=None, *, reduction="mean", pos_weight=None
):
    """:func:`binary_cross_entropy` of ``sigmoid(input)``, computed without overflow.

    Parameters
    ----------
    input, target : Tensor
        Scores and probabilities of one shape.
    weight : Tensor, optional
        Broadcasts with them: what each element counts.
    reduction : {'mean', 'sum', 'none'}
    pos_weight : Tensor, optional
        Broadcasts with them: what the part of ``target`` counts beside that of ``1 - target``.
    """
    _same_shape("binary_cross_entropy_with_logits", input, target)
    logs = _C.logsigmoid(input)
    if pos_weight is not None:
        logs = logs * ((pos_weight - 1) * target + 1)
    losses = (1 - target) * input - logs
    losses = losses if weight is None else losses * weight
    return _reduced("binary_cross_entropy_with_logits", losses, reduction)


@_C._boundary
def kl_div(input, target, *, reduction="mean", log_target=False):
    """The Kullback-Leibler divergence ``target * (log(target) - input)``, elementwise.

    Parameters
    ----------
    input : Tensor
        Log-probabilities.
    target : Tensor
        Probabilities, or their logarithms; broadcast with the input.
    reduction : {'mean', 'batchmean', 'sum', 'none'}
        'batchmean' divides the sum by the first size, as the definition has it.
    log_target : bool
    """
    if log_target:
        losses = target.exp() * (target - input)
    else:
        losses = _C.xlogy(target, target) - target * input
    if reduction == "batchmean":
        return losses.sum() / (input.shape[0] if input.ndim else 1)
    return _reduced("kl_div", losses, reduction)


@_C._boundary
def poisson_nll_loss(input, target, log_input=True, full=False, eps=1e-8, *, reduction="mean"):
    """Negative log likelihood of counts of a Poisson distribution, without the term of the target alone.

    Parameters
    ----------
    input : Tensor
        The expected counts, or their logarithms if ``log_input``.
    target : Tensor
        Counts of that shape.
    full : bool
        Add Stirling's approximation of ``log(target!)`` for targets above 1.
    eps : float
        Added to an expected count before its logarithm is taken.
    reduction : {'mean', 'sum', 'none'}
    """
    if log_input:
        losses = input.exp() - target * input
    else:
        losses = input - target * (input + eps).log()
    if full:
        large = _C.where(target > 1, target, 1.0)
        rest = large * large.log() - large + 0.5 * (2 * math.pi * large).log()
        losses = losses + _C.where(target > 1, rest, 0.0)
    return _reduced("poisson_nll_loss", losses, reduction)


@_C._boundary
def gaussian_nll_loss(input, target, var, full=False, eps=1e-6, *, reduction="mean"):
    """Negative log likelihood of normal distributions: ``(log(var) + (input - target)**2 / var) / 2``.

    Parameters
    ----------
    input, target : Tensor
        Expected and found values of one shape.
    var : Tensor
        Variances of that shape, or with a last size of 1, or without the last dimension.
    full : bool
        Add the constant ``log(2 * pi) / 2``.
    eps : float
        What a variance counts for at least; gradients pass nevertheless.
    reduction : {'mean', 'sum', 'none'}
    """
    if not eps > 0:
        raise ValueError(f"gaussian_nll_loss: eps must be positive, got {eps}")
    if var.shape != input.shape and var.shape == input.shape[:-1]:
        var = var.unsqueeze(-1)
    fixed = var.detach()
    var = var + (fixed.clamp(min=eps) - fixed)
    difference = input - target
    losses = 0.5 * (var.log() + difference * difference / var)
    if full:
        losses = losses + 0.5 * math.log(2 * math.pi)
    return _reduced("gaussian_nll_loss", losses, reduction)


@_C._boundary
def soft_margin_loss(input, target, *, reduction="mean"):
    """``log(1 + exp(-target * input))`` for targets 1 and -1, computed without overflow."""
    return _reduced("soft_margin_loss", -_C.logsigmoid(target * input), reduction)


@_C._boundary
def multilabel_soft_margin_loss(input, target, weight=None, *, reduction="mean"):
    """The mean over the last dimension's classes of :func:`binary_cross_entropy_with_logits`.

    Parameters
    ----------
    input, target : Tensor
        Scores and 0 or 1, ``(*, C)``.
    weight : Tensor, optional
        ``(C)``: what each class counts.
    reduction : {'mean', 'sum', 'none'}
    """
    losses = -(target * _C.logsigmoid(input) + (1 - target) * _C.logsigmoid(-input))
    losses = losses if weight is None else losses * weight
    return _reduced("multilabel_soft_margin_loss", losses.mean(-1), reduction)


# ---- distances


@_C._boundary
def cosine_similarity(x1, x2, dim=1, eps=1e-8):
    """The cosine of the angle between vectors along ``dim``; lengths count for at least ``eps``."""
    n1 = _C.norm(x1, 2.0, [dim], True).clamp(min=eps)
    n2 = _C.norm(x2, 2.0, [dim], True).clamp(min=eps)
    return ((x1 / n1) * (x2 / n2)).sum(dim)


@_C._boundary
def pairwise_distance(x1, x2, p=2.0, eps=1e-6, keepdim=False):
    """The p-norm of ``x1 - x2 + eps`` along the last dimension."""
    return _C.norm(x1 - x2 + eps, float(p), [-1], keepdim)


@_C._boundary
def hinge_embedding_loss(input, target, margin=1.0, *, reduction="mean"):
    """The input where the target is 1, ``max(0, margin - input)`` where it is -1."""
    losses = _C.where(target == 1, input, 0.0)
    losses = losses + _C.where(target == -1, (margin - input).clamp(min=0), 0.0)
    return _reduced("hinge_embedding_loss", losses, reduction)


@_C._boundary
def margin_ranking_loss(input1, input2, target, margin=0.0, *, reduction="mean"):
    """``max(0, margin - target * (input1 - input2))``: a target of 1 wants the first to be larger, -1 the second."""
    losses = (margin - target * (input1 - input2)).clamp(min=0)
    return _reduced("margin_ranking_loss", losses, reduction)


@_C._boundary
def cosine_embedding_loss(input1, input2, target, margin=0.0, *, reduction="mean"):
    """With c the cosine along the last dimension: ``1 - c`` for a target of 1, ``max(0, c - margin)`` for -1.

    Parameters
    ----------
    input1, input2 : Tensor
        ``(N, D)`` or ``(D)``
    target : Tensor
        ``(N)`` or ``()``
    margin : float
    reduction : {'mean', 'sum', 'none'}
    """
    tiny = 1e-12
    squares = ((input1 * input1).sum(-1) + tiny) * ((input2 * input2).sum(-1) + tiny)
    cosine = (input1 * input2).sum(-1) / squares.sqrt()
    losses = _C.where(target == 1, 1 - cosine, 0.0)
    losses = losses + _C.where(target == -1, (cosine - margin).clamp(min=0), 0.0)
    return _reduced("cosine_embedding_loss", losses, reduction)


@_C._boundary
def triplet_margin_loss(
    anchor, positive, negative, margin=1.0, p=2.0, eps=1e-6, swap=False, *, reduction="mean"
):
    """``max(0, d(anchor, positive) - d(anchor, negative) + margin)``, d being :func:`pairwise_distance`.

    Parameters
    ----------
    anchor, positive, negative : Tensor
        ``(*, D)``
    margin, p, eps : float
    swap : bool
        Take the smaller one of the distances of the negative to the anchor and to the positive.
    reduction : {'mean', 'sum', 'none'}
    """
    near, far = (pairwise_distance(anchor, x, p, eps) for x in (positive, negative))
    if swap:
        far = _C.minimum(far, pairwise_distance(positive, negative, p, eps))
    return _reduced("triplet_margin_loss", (near - far + margin).clamp(min=0), reduction)
