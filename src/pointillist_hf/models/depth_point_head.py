# SPDX-License-Identifier: Apache-2.0
"""The depth head: a small transformer over the four slots of a point.

Paper: the large transformer takes a step per token. Here, with `point_head="depth"`, it takes one
per point, and this one emits the point's tokens in turn, each from the large transformer's state
and the tokens before it: the same chain rule (Eq. 3), so no independence is assumed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_point_generator import PointGeneratorConfig
from .point_generator_layers import PointGeneratorMLP, eager_attention
from .tokenization_points import TOKENS_PER_POINT


class PointWindow:
    """A configuration for caches and masks that count points instead of tokens."""

    def __init__(self, config: PointGeneratorConfig) -> None:
        self.config = config

    @property
    def sliding_window(self) -> int:
        """Points that a point sees, itself included."""
        return self.config.sliding_window // TOKENS_PER_POINT

    def get_text_config(self, **kwargs: object) -> PointWindow:
        """Itself: caches ask for the part of a configuration that is about text."""
        return self

    @property
    def per_layer_config(self) -> list[PointWindow]:
        """Itself for every layer: caches read the window there."""
        return [self] * self.config.num_hidden_layers

    def __getattr__(self, name: str) -> object:
        if name == "config":  # not there yet: copies look for methods before they fill in fields
            raise AttributeError(name)
        return getattr(self.config, name)


class PointCache(EncoderDecoderCache):
    """Keys and values per point, and what is known of the point that is being emitted.

    Args:
        self_attention_cache: Of the points.
        cross_attention_cache: Of the conditioning.
    """

    def __init__(self, self_attention_cache: Cache, cross_attention_cache: Cache) -> None:
        super().__init__(self_attention_cache, cross_attention_cache)
        self.point_state: Tensor | None = None  # after the last complete point [B, 1, D]
        self.pending_ids: Tensor | None = None  # of the point that is not complete [B, 0 to 3]

    @classmethod
    def around(cls, cache: Cache | None, config: PointWindow) -> PointCache:
        """A cache for points in place of the empty one for tokens that `generate` made.

        Raises:
            ValueError: The cache already holds tokens, or its size is fixed.
        """
        if isinstance(cache, PointCache):
            return cache
        if isinstance(cache, EncoderDecoderCache):
            cache = cache.self_attention_cache
        kind = DynamicCache if cache is None else type(cache)
        if cache is not None and (cache.is_compileable or cache.get_seq_length() > 0):
            raise ValueError(
                "`past_key_values` must be a `PointCache` or an empty cache that grows with "
                f"`point_head='depth'`, got a {kind.__name__} of {cache.get_seq_length()} tokens. "
                "Leave `cache_implementation` alone, and go on from the cache that was returned."
            )
        # The cross-attention's is built without the configuration, which would cut it to a window.
        return cls(kind(config=config), DynamicCache())  # ty: ignore[unknown-argument]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens seen so far."""
        num_pending = 0 if self.pending_ids is None else self.pending_ids.shape[1]
        num_points = self.self_attention_cache.get_seq_length(layer_idx)
        return TOKENS_PER_POINT * num_points + num_pending

    @property
    def is_croppable(self) -> bool:
        """Whether single tokens can be taken back: no, they are part of points."""
        return False

    def crop(self, tokens_to_remove: int) -> None:
        """Refused."""
        raise NotImplementedError("Tokens cannot be taken back from a `PointCache`.")

    def reset(self) -> None:
        """Forgets everything."""
        super().reset()
        self.point_state = self.pending_ids = None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Takes rows [B] in place of those that are there."""
        super().reorder_cache(beam_idx)
        self._map_rows(lambda rows: rows.index_select(0, beam_idx.to(rows.device)))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps some rows."""
        super().batch_select_indices(indices)
        self._map_rows(lambda rows: rows[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats every row."""
        super().batch_repeat_interleave(repeats)
        self._map_rows(lambda rows: rows.repeat_interleave(repeats, dim=0))

    def _map_rows(self, change: Callable[[Tensor], Tensor]) -> None:
        for name in ("point_state", "pending_ids"):
            if getattr(self, name) is not None:
                setattr(self, name, change(getattr(self, name)))


class SlotAttention(nn.Module):
    """Looks at the earlier slots of the same point."""

    def __init__(self, config: PointGeneratorConfig) -> None:
        super().__init__()
        size = config.depth_hidden_size
        self.dropout = config.attention_dropout
        self.head_dim = size // config.depth_num_attention_heads
        self.q_proj = nn.Linear(size, size, bias=False)
        self.k_proj = nn.Linear(size, size, bias=False)
        self.v_proj = nn.Linear(size, size, bias=False)
        self.o_proj = nn.Linear(size, size, bias=False)

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """[P, S, D], mask [S, S] -> [P, S, D]"""
        query, key, value = (
            project(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        # Written out: fused kernels are made for few long sequences, and these are many short ones.
        attended, _ = eager_attention(
            self,
            query,
            key,
            value,
            mask,
            scaling=self.head_dim**-0.5,
            dropout=self.dropout if self.training else 0.0,
        )
        return self.o_proj(attended.flatten(2))


class DepthLayer(GradientCheckpointingLayer):
    """Attention over the slots, feed-forward, each on normalised states."""

    def __init__(self, config: PointGeneratorConfig) -> None:
        super().__init__()
        size, eps = config.depth_hidden_size, config.rms_norm_eps
        self.slot_attn = SlotAttention(config)
        self.mlp = PointGeneratorMLP(size, config.depth_intermediate_size, config.hidden_act)
        self.slot_attn_norm = nn.RMSNorm(size, eps=eps)
        self.mlp_norm = nn.RMSNorm(size, eps=eps)

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """[P, S, D], mask [S, S] -> [P, S, D]"""
        hidden_states = hidden_states + self.slot_attn(self.slot_attn_norm(hidden_states), mask)
        return hidden_states + self.mlp(self.mlp_norm(hidden_states))


class DepthPointHead(nn.Module):
    """Joins the tokens of a point into one input, and takes a state per point apart into four.

    Each slot has projections of its own, which tell x, y and z apart although they share their
    embeddings: as good as a table per slot, and the table of the head can still be tied.
    """

    def __init__(self, config: PointGeneratorConfig) -> None:
        super().__init__()
        size, depth_size = config.hidden_size, config.depth_hidden_size
        # Embeddings start small; beside the large transformer's states they would go unheard.
        self.token_norm = nn.RMSNorm(size, eps=config.rms_norm_eps)
        self.point_proj = nn.Linear(TOKENS_PER_POINT * size, size, bias=False)
        # Stands for the state before the first point.
        self.embed_start = nn.Embedding(1, size)
        self.state_proj = nn.Linear(size, depth_size, bias=False)
        self.token_projs = nn.ModuleList(
            nn.Linear(size, depth_size, bias=False) for _ in range(TOKENS_PER_POINT - 1)
        )
        self.layers = nn.ModuleList(
            DepthLayer(config) for _ in range(config.depth_num_hidden_layers)
        )
        self.out_proj = nn.Linear(depth_size, size, bias=False)
        self.norm = nn.RMSNorm(size, eps=config.rms_norm_eps)

    def join_tokens(self, embeddings: Tensor) -> Tensor:
        """The large transformer's inputs. [B, 4 P, D] -> [B, P, D]"""
        points = self.token_norm(embeddings).unflatten(1, (-1, TOKENS_PER_POINT))
        # Under autocast too, sums of layers stay as exact as the weights.
        return self.point_proj(points.flatten(2)).to(embeddings.dtype)

    def initial_state(self, batch: int) -> Tensor:
        """In place of the state after the point before the first. [B, 1, D]"""
        return self.embed_start.weight.expand(batch, 1, -1)

    def forward(
        self,
        point_states: Tensor,
        embeddings: Tensor,
        num_steps: int,
        rests: Tensor | None = None,
    ) -> Tensor:
        """States from which the slots of each point are predicted.

        Args:
            point_states: Of the large transformer, after the point before. [B, P, D]
            embeddings: Of the points' tokens; the last of each point is not looked at. [B, 4 P, D]
            num_steps: S, how many slots are wanted.
            rests: Added to the inputs of all slots but the first, see `FaceAnchors.rests`.
                [B, P, depth D]

        Returns:
            [B, P, S, D]
        """
        tokens = self.token_norm(embeddings).unflatten(1, (-1, TOKENS_PER_POINT))
        shared = self.state_proj(point_states)
        later = shared if rests is None else shared + rests
        steps = [shared] + [
            later + project(tokens[:, :, slot])
            for slot, project in enumerate(self.token_projs[: num_steps - 1])
        ]
        hidden_states = torch.stack(steps, dim=2).flatten(0, 1).to(embeddings.dtype)  # [B P, S, D]
        mask = hidden_states.new_full((num_steps, num_steps), -torch.inf).triu(1)
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask)
        states = self.norm(self.out_proj(hidden_states).to(embeddings.dtype))
        return states.unflatten(0, point_states.shape[:2])
