# SPDX-License-Identifier: Apache-2.0
"""A layer of the point generator (paper Sec. 4.1 and Fig. 3), and what its models have in common.

Pre-norm, RMSNorm, no biases. Keys and values go through transformers' caches, so that generation
sees each conditioning token once and each earlier token for as long as it is in the window.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.output_capturing import OutputRecorder

from ..guarded_push import GuardedPush
from .configuration_point_generator import PointGeneratorConfig
from .slot_heads import FaceAnchors, OffsetLogits
from .strict_loading import StrictLoading


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding: channel i turns together with channel i + half."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def rotary_embedding(
    position_ids: Tensor, config: PointGeneratorConfig, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles. [B or 1, L] -> [B or 1, 1, L, head_dim / 2]"""
    half = config.head_dim // 2
    # Angles stay in float32: bfloat16 cannot tell position 10,000 from 10,001.
    exponents = torch.arange(half, device=position_ids.device, dtype=torch.float32) / half
    angles = position_ids[:, None, :, None].float() * config.rope_theta**-exponents
    return angles.cos().to(dtype), angles.sin().to(dtype)


def count_on(inputs: Tensor, past: Cache | None) -> Tensor:
    """Positions that follow those in the cache. [B, L, ...] -> [1, L]"""
    seen = 0 if past is None else past.get_seq_length()
    return (torch.arange(inputs.shape[1], device=inputs.device) + seen)[None]


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, Tensor]:
    """Attention written out, for those who want to look at the weights."""
    scores = query @ key.mT * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    # No coarser than float32, and float64 stays what it is.
    precise = torch.promote_types(query.dtype, torch.float32)
    weights = scores.softmax(-1, dtype=precise).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class PointGeneratorAttention(nn.Module):
    """Multi-head attention; the keys come from `key_size` wide states."""

    def __init__(self, config: PointGeneratorConfig, layer_idx: int, key_size: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.scaling = config.head_dim**-0.5
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(key_size, config.hidden_size, bias=False)
        self.v_proj = nn.Linear(key_size, config.hidden_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def split_heads(self, states: Tensor) -> Tensor:
        """[B, L, D] -> [B, heads, L, head_dim]"""
        return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, is_causal: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Runs the configured attention function and joins the heads. -> [B, L, D]"""
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
        output, weights = attention(
            self,
            query,
            key,
            value,
            mask,
            scaling=self.scaling,
            dropout=self.config.attention_dropout if self.training else 0.0,
            is_causal=is_causal,
        )
        return self.o_proj(output.flatten(2)), weights


class PointGeneratorSelfAttention(PointGeneratorAttention):
    """Looks back over the window."""

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        past_key_values: EncoderDecoderCache | None,
    ) -> tuple[Tensor, Tensor | None]:
        """States [B, L, D], and the attention weights if they are computed."""
        query = rotate_pairs(self.split_heads(self.q_proj(hidden_states)), *position_embeddings)
        key = rotate_pairs(self.split_heads(self.k_proj(hidden_states)), *position_embeddings)
        value = self.split_heads(self.v_proj(hidden_states))
        if past_key_values is not None:
            cache = past_key_values.self_attention_cache
            key, value = cache.update(key, value, self.layer_idx)
        is_causal = attention_mask is None and query.shape[2] > 1
        return self.attend(query, key, value, attention_mask, is_causal=is_causal)


class PointGeneratorCrossAttention(PointGeneratorAttention):
    """Looks at the conditioning tokens; their keys are projected once per generation."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None,
        past_key_values: EncoderDecoderCache | None,
    ) -> tuple[Tensor, Tensor | None]:
        """States [B, L, D], and the attention weights if they are computed."""
        query = self.split_heads(self.q_proj(hidden_states))
        if past_key_values is not None and past_key_values.is_updated.get(self.layer_idx):
            layer = past_key_values.cross_attention_cache.layers[self.layer_idx]
            key, value = layer.keys, layer.values
        else:
            key = self.split_heads(self.k_proj(encoder_hidden_states))
            value = self.split_heads(self.v_proj(encoder_hidden_states))
            if past_key_values is not None:
                cache = past_key_values.cross_attention_cache
                key, value = cache.update(key, value, self.layer_idx)
                past_key_values.is_updated[self.layer_idx] = True
        return self.attend(query, key, value, attention_mask, is_causal=False)


class PointGeneratorMLP(nn.Module):
    """Gated feed-forward network."""

    def __init__(self, hidden_size: int, intermediate_size: int, hidden_act: str) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)
        self.act_fn = ACT2FN[hidden_act]

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]"""
        gate = self.act_fn(self.gate_proj(hidden_states))
        return self.down_proj(gate * self.up_proj(hidden_states))


class PointGeneratorLayer(GradientCheckpointingLayer):
    """Cross-attention, self-attention, feed-forward, each on normalised states (paper Fig. 3)."""

    def __init__(self, config: PointGeneratorConfig, layer_idx: int) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        self.cross_attn = PointGeneratorCrossAttention(
            config, layer_idx, config.cross_attention_size
        )
        self.self_attn = PointGeneratorSelfAttention(config, layer_idx, size)
        self.mlp = PointGeneratorMLP(size, config.intermediate_size, config.hidden_act)
        self.cross_attn_norm = nn.RMSNorm(size, eps=eps)
        self.self_attn_norm = nn.RMSNorm(size, eps=eps)
        self.mlp_norm = nn.RMSNorm(size, eps=eps)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        self_mask: Tensor | None = None,
        cross_mask: Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> Tensor:
        """[B, L, D] -> [B, L, D]"""
        seen, _ = self.cross_attn(
            self.cross_attn_norm(hidden_states), encoder_hidden_states, cross_mask, past_key_values
        )
        hidden_states = hidden_states + seen
        recalled, _ = self.self_attn(
            self.self_attn_norm(hidden_states), position_embeddings, self_mask, past_key_values
        )
        hidden_states = hidden_states + recalled
        return hidden_states + self.mlp(self.mlp_norm(hidden_states))


class PointGeneratorPreTrainedModel(GuardedPush, StrictLoading, PreTrainedModel):
    """What the generator tells transformers about itself."""

    config_class = PointGeneratorConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["PointGeneratorLayer", "DepthLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]  # noqa: RUF012  where it is not used
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": PointGeneratorLayer,
        "attentions": OutputRecorder(PointGeneratorSelfAttention, index=1, layer_name="self_attn"),
        "cross_attentions": OutputRecorder(
            PointGeneratorCrossAttention, index=1, layer_name="cross_attn"
        ),
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.RMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, OffsetLogits):
            init.zeros_(module.weight)
        elif isinstance(module, FaceAnchors):
            init.constant_(module.scale, self.config.initializer_range)
