# SPDX-License-Identifier: Apache-2.0
"""The autoregressive point generator (paper Sec. 4.1).

A decoder-only transformer over point tokens. Each layer looks at the portrait and the head
(cross-attention), then at the tokens so far within the window (self-attention), then transforms.
What differs from the textbook: x, y and z share their embeddings, so a slot embedding tells them
apart; positions are only relative (rotary), because a window may start anywhere in a cloud.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_sliding_window_causal_mask
from transformers.modeling_outputs import (
    BaseModelOutputWithPastAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
)
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_point_generator import PointGeneratorConfig
from .generation_point_generator import PointGenerationMixin
from .point_generator_layers import (
    PointGeneratorCrossAttention,
    PointGeneratorLayer,
    PointGeneratorSelfAttention,
)
from .ring_cache import RingCache
from .tokenization_points import TOKENS_PER_POINT


class PointGeneratorPreTrainedModel(PreTrainedModel):
    """What the generator tells transformers about itself."""

    config_class = PointGeneratorConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["PointGeneratorLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
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


class PointGeneratorModel(PointGeneratorPreTrainedModel):
    """The transformer without its output head."""

    def __init__(self, config: PointGeneratorConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_slots = nn.Embedding(TOKENS_PER_POINT, config.hidden_size)
        self.layers = nn.ModuleList(
            PointGeneratorLayer(config, i) for i in range(config.num_hidden_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_init()

    def rotary_embedding(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the rotary angles. [B or 1, L] -> [B or 1, 1, L, head_dim / 2]"""
        half = self.config.head_dim // 2
        # Angles stay in float32: bfloat16 cannot tell position 10,000 from 10,001.
        exponents = torch.arange(half, device=position_ids.device, dtype=torch.float32) / half
        angles = position_ids[:, None, :, None].float() * self.config.rope_theta**-exponents
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def self_mask(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | dict[str, Tensor] | None,
        past_key_values: EncoderDecoderCache | None,
        position_ids: Tensor,
    ) -> Tensor | None:
        """The causal window as the attention function wants it; None is plain causal."""
        if isinstance(attention_mask, dict):
            return attention_mask["sliding_attention"]
        is_plain = past_key_values is None and attention_mask is None
        inside_window = inputs_embeds.shape[1] <= self.config.sliding_window
        if is_plain and inside_window and self.config._attn_implementation == "sdpa":
            # The mask builder would materialise L x L values at L = window.
            return None
        cache = None if past_key_values is None else past_key_values.self_attention_cache
        mask = create_sliding_window_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=cache,
            position_ids=position_ids,
        )
        is_ring = isinstance(cache, RingCache)
        return cache.align_mask(mask, inputs_embeds.shape[1]) if is_ring else mask

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | dict[str, Tensor] | None = None,
        encoder_attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: object,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Final hidden states of the tokens.

        Args:
            input_ids: [B, L]
            encoder_hidden_states: Conditioning tokens. [B, M, cross_attention_size]
            attention_mask: 0 at padded tokens. [B, L so far]
            encoder_attention_mask: 0 at padded conditioning tokens. [B, M]
            position_ids: The default counts on from the cache; a window that starts inside a cloud
                must start at a multiple of 4, because the slot follows from the position. [B, L]
            past_key_values: Keys and values of earlier tokens.
            inputs_embeds: In place of `input_ids`, without slot embeddings. [B, L, D]
            use_cache: Whether to return `past_key_values`.
            **kwargs: `output_hidden_states`, `output_attentions` and the like.
        """
        if encoder_hidden_states is None:
            raise ValueError("`encoder_hidden_states` must be given: every layer looks at them.")
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if past_key_values is not None and not isinstance(past_key_values, EncoderDecoderCache):
            # Built without the config, which would truncate the conditioning to the window.
            past_key_values = EncoderDecoderCache(past_key_values, DynamicCache())
        if position_ids is None:
            seen = 0 if past_key_values is None else past_key_values.get_seq_length()
            position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device) + seen
            position_ids = position_ids[None]

        hidden_states = inputs_embeds + self.embed_slots(position_ids % TOKENS_PER_POINT)
        position_embeddings = self.rotary_embedding(position_ids, hidden_states.dtype)
        self_mask = self.self_mask(inputs_embeds, attention_mask, past_key_values, position_ids)
        cross_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=encoder_attention_mask,
            encoder_hidden_states=encoder_hidden_states,
        )
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                encoder_hidden_states,
                position_embeddings,
                self_mask,
                cross_mask,
                past_key_values,
            )
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values
        )


class PointGeneratorForCausalLM(
    PointGenerationMixin, PointGeneratorPreTrainedModel, GenerationMixin
):
    """The generator with its output head: next-token logits, loss, sampling."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: PointGeneratorConfig) -> None:
        super().__init__(config)
        self.model = PointGeneratorModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: object,
    ) -> CausalLMOutputWithCrossAttentions:
        """Logits of the next token, and the loss if labels are given.

        The arguments are those of `PointGeneratorModel`, and two more. `labels` [B, L] are the
        ids to predict, aligned with `input_ids` (they are shifted here), -100 being skipped; with
        labels and `loss_head="typed"` there are no logits. `logits_to_keep` is a number of last
        positions, or indices; 0 keeps all.
        """
        outputs = self.model(
            input_ids=input_ids,
            encoder_hidden_states=encoder_hidden_states,
            attention_mask=attention_mask,
            encoder_attention_mask=encoder_attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        states = outputs.last_hidden_state
        logits, loss = None, None
        if labels is not None and self.config.loss_head == "typed":
            loss = self.slot_losses(states, labels).mean()
        else:
            keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else None
            logits = self.lm_head(states[:, logits_to_keep if keep is None else keep])
            if labels is not None:
                loss = cross_entropy(
                    logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100
                )
        return CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
        )

    def slot_losses(self, last_hidden_state: Tensor, labels: Tensor) -> Tensor:
        """Negative log-likelihood of every label under the slot's own part of the vocabulary.

        Equal to the masked softmax of grammar level "types", at a third of the cost. The sequences
        must start at a point boundary.

        Args:
            last_hidden_state: [B, L, D]
            labels: Aligned with the tokens; -100 is skipped. [B, L]

        Returns:
            Nats of the K labels that count, ordered by slot. [K]
        """
        layout = self.config.layout
        losses = []
        for slot in range(TOKENS_PER_POINT):
            # The token in this slot is predicted from the one before it.
            first = slot or TOKENS_PER_POINT
            targets = labels[:, first::TOKENS_PER_POINT]
            states = last_hidden_state[:, first - 1 :: TOKENS_PER_POINT][:, : targets.shape[1]]
            wanted = targets != -100
            targets, states = targets[wanted], states[wanted]
            low, high = layout.slot_range(slot)
            weight = self.lm_head.weight[low:high]
            if slot == 0:  # a cloud may end only where a point may start
                weight = torch.cat([weight, self.lm_head.weight[layout.eos_token_id][None]])
                targets = torch.where(targets == layout.eos_token_id, high, targets)
            logits = states @ weight.T
            losses.append(cross_entropy(logits.float(), targets - low, reduction="none"))
        return torch.cat(losses)
