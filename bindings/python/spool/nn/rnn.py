"""Recurrent networks: RNN, LSTM, GRU, and the cells that they repeat.

Products with the inputs of all steps are one; only those with the states go step by step.
"""

from __future__ import annotations

import math

from .. import _C
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter

__all__ = ["GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNCell"]


# ---- one step: what the input gave (N, gates * H), the states, weights and bias of the state -> states


def _rnn_step(nonlinearity, x, states, w, b):
    function = F.tanh if nonlinearity == "tanh" else F.relu
    return (function(x + F.linear(states[0], w, b)),)


def _lstm_step(x, states, w, b):
    h, c = states
    i, f, g, o = (x + F.linear(h, w, b)).chunk(4, -1)
    c = F.sigmoid(f) * c + F.sigmoid(i) * F.tanh(g)
    return F.sigmoid(o) * F.tanh(c), c


def _gru_step(x, states, w, b):
    (h,) = states
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, -1), F.linear(h, w, b).chunk(3, -1)
    z = F.sigmoid(xz + hz)
    n = F.tanh(xn + F.sigmoid(xr + hr) * hn)
    return (n + z * (h - n),)


def _check_size(what, x, size):
    if x.shape[-1] != size:
        raise _C.ShapeError(f"{what}: expected a last size of {size}, got shape {tuple(x.shape)}")


class _Gated(Module):
    """With parameters for `_gates` gates of ``hidden_size``, and `_states` states."""

    _gates = _states = 1

    def reset_parameters(self):
        """Draw all parameters from ``[-1 / sqrt(hidden_size), 1 / sqrt(hidden_size)]``."""
        bound = 1 / math.sqrt(self.hidden_size) if self.hidden_size else 0
        for p in self.parameters():
            init.uniform_(p, -bound, bound)


class _Cell(_Gated):
    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, *, dtype=None):
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows, options = self._gates * hidden_size, {"dtype": dtype or _C.float32}
        self.weight_ih = Parameter(_C.empty(rows, input_size, **options))
        self.weight_hh = Parameter(_C.empty(rows, hidden_size, **options))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(_C.empty(rows, **options)) if bias else None)
        self.reset_parameters()

    def _step(self, x, states):
        raise NotImplementedError

    def _run(self, input, hx):
        """One step; states of zeros where None are given."""
        if input.ndim not in (1, 2):
            raise _C.ShapeError(
                f"{type(self).__name__}: expected (N, input_size) or (input_size), got shape {tuple(input.shape)}"
            )
        _check_size(type(self).__name__, input, self.input_size)
        if hx is None:
            shape = [*input.shape[:-1], self.hidden_size]
            hx = (_C.zeros(*shape, dtype=input.dtype),) * self._states
        return self._step(F.linear(input, self.weight_ih, self.bias_ih), hx)

    def extra_repr(self):
        bias = "" if self.bias else f", bias={self.bias}"
        return f"{self.input_size}, {self.hidden_size}{bias}"


class RNNCell(_Cell):
    """``tanh(W_ih x + b_ih + W_hh h + b_hh)``, or with relu.

    Shapes: ``(N, input_size)`` and ``(N, hidden_size)`` to ``(N, hidden_size)``; or without N.

    Parameters
    ----------
    input_size, hidden_size : int
    bias : bool
    nonlinearity : {'tanh', 'relu'}
    dtype : spool.dtype, optional
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        dtype=None,
    ):
        super().__init__(input_size, hidden_size, bias, dtype=dtype)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNNCell: nonlinearity is tanh or relu, not {nonlinearity!r}")
        self.nonlinearity = nonlinearity

    def _step(self, x, states):
        return _rnn_step(self.nonlinearity, x, states, self.weight_hh, self.bias_hh)

    def forward(self, input, hx=None):
        return self._run(input, None if hx is None else (hx,))[0]

    def extra_repr(self):
        other = "" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}"
        return super().extra_repr() + other


class LSTMCell(_Cell):
    """A step of long short-term memory (Hochreiter, Schmidhuber, 1997).

    Shapes: ``(N, input_size)`` and a pair of states ``(N, hidden_size)`` to such a pair; or without N.

    Parameters
    ----------
    input_size, hidden_size : int
    bias : bool
    dtype : spool.dtype, optional
    """

    _gates, _states = 4, 2

    def _step(self, x, states):
        return _lstm_step(x, states, self.weight_hh, self.bias_hh)

    def forward(self, input, hx=None):
        return self._run(input, hx)


class GRUCell(_Cell):
    """A step of a gated recurrent unit (Cho et al., 2014).

    Shapes: ``(N, input_size)`` and ``(N, hidden_size)`` to ``(N, hidden_size)``; or without N.

    Parameters
    ----------
    input_size, hidden_size : int
    bias : bool
    dtype : spool.dtype, optional
    """

    _gates, _states = 3, 1

    def _step(self, x, states):
        return _gru_step(x, states, self.weight_hh, self.bias_hh)

    def forward(self, input, hx=None):
        return self._run(input, None if hx is None else (hx,))[0]


class _Recurrent(_Gated):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype=None,
    ):
        super().__init__()
        kind = type(self).__name__
        if num_layers < 1:
            raise ValueError(f"{kind}: num_layers must be at least 1, got {num_layers}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"{kind}: dropout must be a probability, got {dropout}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.bidirectional = bidirectional
        self._ways = ["", "_reverse"] if bidirectional else [""]
        options = {"dtype": dtype or _C.float32}
        for layer in range(num_layers):
            size = input_size if layer == 0 else hidden_size * len(self._ways)
            rows = self._gates * hidden_size
            for way in self._ways:
                shapes = {"weight_ih": (rows, size), "weight_hh": (rows, hidden_size)}
                if bias:
                    shapes.update(bias_ih=(rows,), bias_hh=(rows,))
                for name, shape in shapes.items():
                    value = Parameter(_C.empty(*shape, **options))
                    self.register_parameter(f"{name}_l{layer}{way}", value)
        self.reset_parameters()

    def flatten_parameters(self):
        """Nothing: parameters need not lie together here."""

    def _step(self, x, states, w, b):
        raise NotImplementedError

    def _run_way(self, xs, states, layer, way):
        """Outputs ``(T, N, H)`` and last states of one layer in one direction."""
        w, u, b, c = (
            self._parameters.get(f"{name}_l{layer}{way}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        steps = F.linear(xs, w, b).unbind(0)
        outputs = []
        for x in reversed(steps) if way else steps:
            states = self._step(x, states, u, c)
            outputs.append(states[0])
        if not outputs:
            return _C.zeros(0, xs.shape[1], self.hidden_size, dtype=xs.dtype), states
        return _C.stack(outputs[::-1] if way else outputs), states

    def _first_states(self, hx, batch, dtype):
        count = self.num_layers * len(self._ways)
        shape = (count, batch, self.hidden_size)
        if hx is None:
            return [_C.zeros(*shape, dtype=dtype)] * self._states
        for state in hx:
            if tuple(state.shape) != shape:
                raise _C.ShapeError(
                    f"{type(self).__name__}: expected states of shape {shape}, got {tuple(state.shape)}"
                )
        return hx

    def _run(self, input, hx):
        """Outputs and a tuple of last states, for an input with a batch or without."""
        single = input.ndim == 2
        if input.ndim not in (2, 3):
            raise _C.ShapeError(
                f"{type(self).__name__}: expected an input of 2 or 3 dimensions, got shape {tuple(input.shape)}"
            )
        _check_size(type(self).__name__, input, self.input_size)
        xs = input.unsqueeze(1) if single else input
        xs = xs.transpose(0, 1) if self.batch_first and not single else xs
        if single and hx is not None:
            hx = tuple(h.unsqueeze(1) for h in hx)
        first = self._first_states(hx, xs.shape[1], xs.dtype)
        last, index = [], 0
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                xs = F.dropout(xs, self.dropout, True)
            outputs = []
            for way in self._ways:
                ys, states = self._run_way(xs, tuple(s[index] for s in first), layer, way)
                outputs.append(ys)
                last.append(states)
                index += 1
            xs = outputs[0] if len(outputs) == 1 else _C.cat(outputs, -1)
        ends = tuple(_C.stack([states[k] for states in last]) for k in range(self._states))
        if single:
            return xs.squeeze(1), tuple(end.squeeze(1) for end in ends)
        return xs.transpose(0, 1) if self.batch_first else xs, ends

    def extra_repr(self):
        parts = [f"{self.input_size}, {self.hidden_size}"]
        defaults = {
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
        }
        for name, default in defaults.items():
            if getattr(self, name) != default:
                parts.append(f"{name}={getattr(self, name)}")
        return ", ".join(parts)


_DOC = """{what}

    Shapes: input ``(L, N, input_size)``, ``(N, L, input_size)`` if ``batch_first``, or ``(L, input_size)``; states
    ``(num_layers * directions, N, hidden_size)``, zeros if left out. The result is the outputs of the last layer, with
    ``hidden_size * directions`` features, and the last states{states}.

    Parameters
    ----------
    input_size, hidden_size : int
    num_layers : int{more}
    bias : bool
    batch_first : bool
    dropout : float
        Probability with which outputs of all layers but the last are dropped while training.
    bidirectional : bool
        Two directions, whose outputs stand side by side.
    dtype : spool.dtype, optional
    """


class RNN(_Recurrent):
    __doc__ = _DOC.format(
        what="A recurrent network (Elman, 1990): :class:`RNNCell` step by step.",
        states="",
        more="\n    nonlinearity : {'tanh', 'relu'}",
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype=None,
    ):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNN: nonlinearity is tanh or relu, not {nonlinearity!r}")
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            dtype=dtype,
        )
        self.nonlinearity = nonlinearity

    def _step(self, x, states, w, b):
        return _rnn_step(self.nonlinearity, x, states, w, b)

    def forward(self, input, hx=None):
        output, (last,) = self._run(input, None if hx is None else (hx,))
        return output, last


class LSTM(_Recurrent):
    __doc__ = _DOC.format(
        what="Long short-term memory (Hochreiter, Schmidhuber, 1997): :class:`LSTMCell` step by step.",
        states=", a pair of hidden and cell states",
        more="",
    )

    _gates, _states = 4, 2

    def _step(self, x, states, w, b):
        return _lstm_step(x, states, w, b)

    def forward(self, input, hx=None):
        return self._run(input, hx)


class GRU(_Recurrent):
    __doc__ = _DOC.format(
        what="Gated recurrent units (Cho et al., 2014): :class:`GRUCell` step by step.",
        states="",
        more="",
    )

    _gates, _states = 3, 1

    def _step(self, x, states, w, b):
        return _gru_step(x, states, w, b)

    def forward(self, input, hx=None):
        output, (last,) = self._run(input, None if hx is None else (hx,))
        return output, last
