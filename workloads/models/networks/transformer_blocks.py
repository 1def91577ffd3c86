"""Transformer layers for systems without a public implementation (Muse, Parti, Phenaki), and a cache of keys and values."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from simtti.workloads.torch_calls import TORCH_DTYPES


class KeyValueCache:
    """Keys and values of every layer, in buffers as long as they will get: (batch, heads, length, head dim).

    Written in place and read as views, as Meta's LLaMA does; transformers' DynamicCache would copy the whole cache
    for every token. `length` is how many tokens it holds before the forward pass under way. transformers' models
    take it for one of their own caches.
    """

    is_compileable = False

    def __init__(
        self,
        *,
        layers: int,
        batch: int,
        heads: int,
        length: int,
        head_dim: int,
        dtype: str,
        device: torch.device,
    ):
        shape = (batch, heads, length, head_dim)
        # One allocation each: tensors are told apart by their storage. Noise, since on a real device what was in memory
        # before may be no number, and what is attended to need not have been written.
        self.keys, self.values = (
            [torch.randn(shape, dtype=TORCH_DTYPES[dtype], device=device) for _ in range(layers)]
            for _ in range(2)
        )
        self.length = 0

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append to a layer's keys and values, and return all it has. Releases of transformers differ in what else they hand over."""
        end = self.length + key.shape[-2]
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, self.length : end] = key
        values[:, :, self.length : end] = value
        return keys[:, :, :end], values[:, :, :end]

    def get_seq_length(self, layer: int = 0) -> int:
        return self.length

    def get_query_offset(self, layer: int = 0) -> int:
        return self.length

    def get_mask_sizes(self, query_length: Any, layer: int = 0) -> tuple[int, int]:
        return self.length + int(query_length), 0


class Attention(nn.Module):
    """Multi-head attention over itself, or over a context of another width. No biases."""

    def __init__(self, width: int, heads: int, *, context_width: int | None = None, causal: bool = False):
        super().__init__()
        self.is_cross_attention = context_width is not None
        self.heads, self.causal = heads, causal
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width or width, width, bias=False)
        self.to_v = nn.Linear(context_width or width, width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def project(self, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of (batch, length, width), as (batch, heads, length, head dim)."""
        return self._split(self.to_k(context)), self._split(self.to_v(context))

    def forward(
        self,
        hidden: torch.Tensor,
        context: torch.Tensor | tuple[torch.Tensor, torch.Tensor] | None = None,
        cache: KeyValueCache | None = None,
        layer: int = 0,
    ) -> torch.Tensor:
        query = self._split(self.to_q(hidden))
        key, value = (
            context if isinstance(context, tuple) else self.project(hidden if context is None else context)
        )
        if cache is not None:
            key, value = cache.update(key, value, layer)
        causal = self.causal and query.shape[-2] > 1
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return self.to_out(attended.transpose(1, 2).flatten(2))

    def _split(self, projected: torch.Tensor) -> torch.Tensor:
        batch, length, width = projected.shape
        return projected.view(batch, length, self.heads, width // self.heads).transpose(1, 2)


class FeedForward(nn.Sequential):
    """Two linear layers with GELU between. No biases."""

    def __init__(self, width: int, inner: int):
        super().__init__(nn.Linear(width, inner, bias=False), nn.GELU(), nn.Linear(inner, width, bias=False))


class Layer(nn.Module):
    """Self-attention, cross-attention if there is a context, feed-forward: each after a LayerNorm, with a residual."""

    def __init__(
        self, width: int, heads: int, inner: int, *, context_width: int | None = None, causal: bool = False
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads, causal=causal)
        self.attn2 = None
        if context_width is not None:
            self.norm2 = nn.LayerNorm(width)
            self.attn2 = Attention(width, heads, context_width=context_width)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width, inner)

    def forward(
        self, hidden: torch.Tensor, context: Any = None, cache: KeyValueCache | None = None, layer: int = 0
    ) -> torch.Tensor:
        hidden = hidden + self.attn1(self.norm1(hidden), cache=cache, layer=layer)
        if self.attn2 is not None:
            hidden = hidden + self.attn2(self.norm2(hidden), context)
        return hidden + self.ff(self.norm3(hidden))
