"""Optimizers, and schedules of their learning rates in :mod:`spool.optim.lr_scheduler`.

Names and meanings are those of ``torch.optim``; from equal starts, trajectories are equal to rounding.
"""

from . import lr_scheduler
from .adagrad import Adagrad
from .adam import Adam, AdamW
from .optimizer import Optimizer
from .rmsprop import RMSprop
from .sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]
