# SPDX-License-Identifier: Apache-2.0
"""The bidirectional transformer block that encoder, decoder and regressor share.

Pre-norm, LayerNorm, exact GELU, no bias in query, key and value: the layout of Michelangelo's
point-cloud encoder, whose weights fit in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class BlockAttention(nn.Module):
    """Multi-head attention of `hidden_states` over `context`.

    Args:
        hidden_size: Width of the queries and of the output.
        num_heads: Number of heads.
        context_size: Width of the context; the default is the queries' own.
    """

    def __init__(self, hidden_size: int, num_heads: int, context_size: int | None = None) -> None:
        super().__init__()
        self.head_dim = hidden_size // num_heads
        self.q_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.k_proj = nn.Linear(context_size or hidden_size, hidden_size, bias=False)
        self.v_proj = nn.Linear(context_size or hidden_size, hidden_size, bias=False)
        self.o_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden_states: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, D], [B, M, C], where mask [B, M] is False at padding -> [B, N, D]"""
        projected = (
            self.q_proj(hidden_states),
            self.k_proj(context),
            self.v_proj(context),
        )
        query, key, value = (
            states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for states in projected
        )
        wide = None if mask is None else mask.bool()[:, None, None, :]
        attended = scaled_dot_product_attention(query, key, value, attn_mask=wide)
        return self.o_proj(attended.transpose(1, 2).flatten(2))


class BlockMLP(nn.Sequential):
    """Two layers, four times as wide in between."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(
            nn.Linear(hidden_size, 4 * hidden_size),
            nn.GELU(),
            nn.Linear(4 * hidden_size, hidden_size),
        )


class SelfBlock(nn.Module):
    """Self-attention, then the feed-forward network."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.attention = BlockAttention(hidden_size, num_heads)
        self.mlp = BlockMLP(hidden_size)
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.mlp_norm = nn.LayerNorm(hidden_size)

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, D], mask [B, N] -> [B, N, D]"""
        normed = self.attention_norm(hidden_states)
        hidden_states = hidden_states + self.attention(normed, normed, mask)
        return hidden_states + self.mlp(self.mlp_norm(hidden_states))


class CrossBlock(nn.Module):
    """Attention to a context, then the feed-forward network."""

    def __init__(self, hidden_size: int, num_heads: int, context_size: int) -> None:
        super().__init__()
        self.attention = BlockAttention(hidden_size, num_heads, context_size)
        self.mlp = BlockMLP(hidden_size)
        self.query_norm = nn.LayerNorm(hidden_size)
        self.context_norm = nn.LayerNorm(context_size)
        self.mlp_norm = nn.LayerNorm(hidden_size)

    def forward(self, hidden_states: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, D], [B, M, C], mask [B, M] -> [B, N, D]"""
        queries, keys = self.query_norm(hidden_states), self.context_norm(context)
        hidden_states = hidden_states + self.attention(queries, keys, mask)
        return hidden_states + self.mlp(self.mlp_norm(hidden_states))


def fourier_features(coords: Tensor, num_frequencies: int, *, base: float = 1.0) -> Tensor:
    """Coordinates, then their sines and cosines at octave frequencies.

    The frequencies are recomputed on every call: a buffer outside the checkpoint would be garbage
    after loading.

    Args:
        coords: Roughly in [-1, 1]. [..., 3]
        num_frequencies: Octaves.
        base: Lowest angular frequency; 1 in Michelangelo, pi in NeRF.

    Returns:
        Coordinates, all sines (per axis over the octaves), all cosines. [..., 3 + 6 octaves]
    """
    octaves = 2.0 ** torch.arange(num_frequencies, device=coords.device, dtype=torch.float32)
    angles = (coords.float()[..., None] * base * octaves).flatten(-2).to(coords.dtype)
    return torch.cat([coords, angles.sin(), angles.cos()], dim=-1)
