"""Attention as modules: MultiheadAttention and the encoder of Transformers (Vaswani et al., 2017)."""

from __future__ import annotations

import copy
import math

from .. import _C
from . import functional as F
from . import init
from .container import ModuleList
from .dropout import Dropout
from .linear import Linear
from .module import Module
from .normalization import LayerNorm
from .parameter import Parameter

__all__ = ["MultiheadAttention", "TransformerEncoder", "TransformerEncoderLayer"]


def _float_mask(mask, dtype):
    """A mask to add to scores: True in a bool one is for keys that do not take part."""
    if mask is None or mask.dtype != _C.bool:
        return mask
    return _C.where(mask, -math.inf, _C.zeros((), dtype=dtype))


class MultiheadAttention(Module):
    """Attention of several heads, each on a projection of its own.

    Shapes: query ``(L, N, E)``, key ``(S, N, kdim)``, value ``(S, N, vdim)``; ``(N, L, E)`` and so on if ``batch_first``; or
    without N.

    Parameters
    ----------
    embed_dim : int
        E, which ``num_heads`` divides.
    num_heads : int
    dropout : float
        Probability with which weights are dropped while training.
    bias : bool
        With biases of the projections.
    kdim, vdim : int, optional
        Sizes of keys and values, if not E.
    batch_first : bool
    dtype : spool.dtype, optional

    Raises
    ------
    ValueError
        ``num_heads`` does not divide ``embed_dim``.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype=None,
    ):
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise ValueError(
                f"MultiheadAttention: {num_heads} heads do not divide embed_dim, {embed_dim}"
            )
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        self.batch_first, self.head_dim = batch_first, embed_dim // num_heads
        self._same = self.kdim == embed_dim and self.vdim == embed_dim
        sizes = {"q_proj_weight": embed_dim, "k_proj_weight": self.kdim, "v_proj_weight": self.vdim}
        options = {"dtype": dtype or _C.float32}
        for name, size in sizes.items():
            value = None if self._same else Parameter(_C.empty(embed_dim, size, **options))
            self.register_parameter(name, value)
        whole = Parameter(_C.empty(3 * embed_dim, embed_dim, **options)) if self._same else None
        self.register_parameter("in_proj_weight", whole)
        value = Parameter(_C.zeros(3 * embed_dim, **options)) if bias else None
        self.register_parameter("in_proj_bias", value)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, dtype=dtype)
        self._reset_parameters()

    def _reset_parameters(self):
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if getattr(self, name) is not None:
                init.xavier_uniform_(getattr(self, name))
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)

    def _project(self, query, key, value):
        """q, k and v ``(N, L, E)``, by one product where all are the same tensor."""
        bias = self.in_proj_bias
        if self._same and query is key and key is value:
            return F.linear(query, self.in_proj_weight, bias).chunk(3, -1)
        if self._same:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None, None, None) if bias is None else bias.chunk(3)
        return tuple(F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases))

    def _heads(self, x):
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, -1).transpose(1, 2)

    def _mask(self, attn_mask, key_padding_mask, batch, dtype):
        """Both masks as one that is added to scores ``(N, H, L, S)``; None for none."""
        mask = _float_mask(attn_mask, dtype)
        if mask is not None and mask.ndim == 3:
            mask = mask.reshape(batch, self.num_heads, *mask.shape[1:])
        if key_padding_mask is None:
            return mask
        padding = _float_mask(key_padding_mask, dtype)
        padding = padding.reshape(batch, 1, 1, padding.shape[-1])
        return padding if mask is None else mask + padding

    def forward(
        self,
        query,
        key,
        value,
        key_padding_mask=None,
        need_weights: bool = True,
        attn_mask=None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ):
        """The result and, if ``need_weights``, the weights.

        Parameters
        ----------
        query, key, value : Tensor
        key_padding_mask : Tensor, optional
            ``(N, S)``: bool, True for keys that do not take part, or floating, added to their scores.
        need_weights : bool
            Without, nothing of size L * S is held.
        attn_mask : Tensor, optional
            ``(L, S)`` or ``(N * num_heads, L, S)``, bool or floating likewise.
        average_attn_weights : bool
            Weights are the means over heads.
        is_causal : bool
            ``attn_mask`` is the causal mask; it must be given nevertheless, as in PyTorch.

        Returns
        -------
        tuple
            ``(L, N, E)`` or ``(N, L, E)`` or ``(L, E)``, and weights ``(N, L, S)``, ``(N, H, L, S)`` without average, or None.
        """
        if is_causal and attn_mask is None:
            raise ValueError("MultiheadAttention: is_causal needs attn_mask, which it describes")
        inputs, single = (query, key, value), query.ndim == 2
        if single or not self.batch_first:
            same = query is key and key is value
            query = query.unsqueeze(0) if single else query.transpose(0, 1)
            others = (x.unsqueeze(0) if single else x.transpose(0, 1) for x in inputs[1:])
            key, value = (query, query) if same else others
        q, k, v = map(self._heads, self._project(query, key, value))
        p = self.dropout if self.training else 0.0
        causal = is_causal and key_padding_mask is None and not need_weights
        mask = None
        if not causal:
            mask = self._mask(attn_mask, key_padding_mask, query.shape[0], query.dtype)
        weights = None
        if need_weights:
            scores = (q * self.head_dim**-0.5) @ k.transpose(2, 3)
            weights = F.softmax(scores if mask is None else scores + mask, -1)
            weights = F.dropout(weights, p, True) if p > 0 else weights
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, p, causal)
        mixed = mixed.transpose(1, 2)
        result = self.out_proj(mixed.reshape(*mixed.shape[:2], self.embed_dim))
        if single:
            return result.squeeze(0), None if weights is None else weights.squeeze(0)
        return result if self.batch_first else result.transpose(0, 1), weights


_ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu}


class TransformerEncoderLayer(Module):
    """Self-attention and two linear layers, each beside what it gets and normalised.

    Shapes: ``(S, N, E)``, ``(N, S, E)`` if ``batch_first``, or ``(S, E)``, to the same.

    Parameters
    ----------
    d_model, nhead : int
        E, and the number of heads.
    dim_feedforward : int
        Size between the linear layers.
    dropout : float
    activation : {'relu', 'gelu'} or callable
    layer_norm_eps : float
    batch_first : bool
    norm_first : bool
        Normalise what goes into attention and linear layers rather than the sums behind them.
    bias : bool
    dtype : spool.dtype, optional
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation="relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        dtype=None,
    ):
        super().__init__()
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias, batch_first=batch_first, dtype=dtype
        )
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, dtype=dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, dtype=dtype)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)
        if isinstance(activation, str) and activation not in _ACTIVATIONS:
            raise ValueError(
                f"TransformerEncoderLayer: activation should be relu or gelu, not {activation!r}"
            )
        self.activation = _ACTIVATIONS[activation] if isinstance(activation, str) else activation

    def _attend(self, x, mask, padding, is_causal):
        return self.dropout1(
            self.self_attn(
                x, x, x, padding, need_weights=False, attn_mask=mask, is_causal=is_causal
            )[0]
        )

    def _feed(self, x):
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))

    def forward(self, src, src_mask=None, src_key_padding_mask=None, is_causal: bool = False):
        """``src_mask`` and ``src_key_padding_mask`` as MultiheadAttention's ``attn_mask`` and ``key_padding_mask``."""
        if self.norm_first:
            x = src + self._attend(self.norm1(src), src_mask, src_key_padding_mask, is_causal)
            return x + self._feed(self.norm2(x))
        x = self.norm1(src + self._attend(src, src_mask, src_key_padding_mask, is_causal))
        return self.norm2(x + self._feed(x))


class TransformerEncoder(Module):
    """Copies of a layer, one behind the other.

    Parameters
    ----------
    encoder_layer : TransformerEncoderLayer
    num_layers : int
    norm : Module, optional
        What comes last.
    """

    def __init__(self, encoder_layer: Module, num_layers: int, norm: Module | None = None):
        super().__init__()
        self.layers = ModuleList(copy.deepcopy(encoder_layer) for _ in range(num_layers))
        self.num_layers = num_layers
        self.norm = norm

    def forward(self, src, mask=None, src_key_padding_mask=None, is_causal: bool | None = None):
        """``mask`` and ``src_key_padding_mask`` go to every layer; ``is_causal`` says that ``mask`` is the causal one."""
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, bool(is_causal))
        return src if self.norm is None else self.norm(src)
