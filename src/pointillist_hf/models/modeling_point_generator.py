# SPDX-License-Identifier: Apache-2.0
"""The autoregressive point generator (paper Sec. 4.1).

A decoder-only transformer over point tokens. Each layer looks at the portrait and the head
(cross-attention), then at the tokens so far within the window (self-attention), then transforms.
What differs from the textbook: x, y and z share their embeddings, so a slot embedding tells them
apart; positions are only relative (rotary), because a window may start anywhere in a cloud.
`point_head="depth"` and `binding_head="anchored"` depart from the paper, see `depth_point_head`
and `slot_heads`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_sliding_window_causal_mask
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_point_generator import PointGeneratorConfig
from .depth_point_head import DepthPointHead, PointCache, PointWindow
from .point_generator_layers import (
    PointGeneratorLayer,
    PointGeneratorPreTrainedModel,
    count_on,
    rotary_embedding,
)
from .ring_cache import RingCache
from .slot_heads import (
    IGNORED,
    Anchoring,
    FaceAnchors,
    FaceTable,
    PointGeneratorModelOutput,
    embed_heads,
    full_losses,
    typed_logits,
    typed_losses,
)
from .tokenization_points import TOKENS_PER_POINT


class PointGeneratorModel(PointGeneratorPreTrainedModel):
    """The transformer without its output head."""

    def __init__(self, config: PointGeneratorConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.point_head == "flat":
            self.embed_slots = nn.Embedding(TOKENS_PER_POINT, config.hidden_size)
        self.layers = nn.ModuleList(
            PointGeneratorLayer(config, i) for i in range(config.num_hidden_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        if config.point_head == "depth":
            self.depth_head = DepthPointHead(config)
        self.face_anchors = FaceAnchors(config) if config.binding_head == "anchored" else None
        # What the layers count in: tokens, or points.
        self.window_config = config if config.point_head == "flat" else PointWindow(config)
        self.post_init()

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
        inside_window = inputs_embeds.shape[1] <= self.window_config.sliding_window
        if is_plain and inside_window and self.config._attn_implementation == "sdpa":
            # The mask builder would materialise L x L values at L = window.
            return None
        cache = None if past_key_values is None else past_key_values.self_attention_cache
        mask = create_sliding_window_causal_mask(
            config=self.window_config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=cache,
            position_ids=position_ids,
        )
        is_ring = isinstance(cache, RingCache)
        return cache.align_mask(mask, inputs_embeds.shape[1]) if is_ring else mask

    def transform(
        self,
        inputs_embeds: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | dict[str, Tensor] | None,
        encoder_attention_mask: Tensor | None,
        position_ids: Tensor,
        past_key_values: EncoderDecoderCache | None,
    ) -> Tensor:
        """The layers and the last norm, over tokens or points. [B, L, D] -> [B, L, D]"""
        position_embeddings = rotary_embedding(position_ids, self.config, inputs_embeds.dtype)
        self_mask = self.self_mask(inputs_embeds, attention_mask, past_key_values, position_ids)
        cross_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=encoder_attention_mask,
            encoder_hidden_states=encoder_hidden_states,
        )
        hidden_states = inputs_embeds
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                encoder_hidden_states,
                position_embeddings,
                self_mask,
                cross_mask,
                past_key_values=past_key_values,  # by name: checkpointing leaves it out
            )
        return self.norm(hidden_states)

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
        face_anchors: Tensor | FaceTable | None = None,
        **kwargs: object,
    ) -> PointGeneratorModelOutput:
        """Final hidden states of the tokens: what is known once the token is, for the next one.

        With `point_head="depth"` these are the states of the small transformer, at the width of
        the large one, whose own states are the `hidden_states` of the layers, one per point.

        Args:
            input_ids: [B, L]
            encoder_hidden_states: Conditioning tokens. [B, M, cross_attention_size]
            attention_mask: 0 at padded tokens; with the depth head, at whole points. [B, L so far]
            encoder_attention_mask: 0 at padded conditioning tokens. [B, M]
            position_ids: The default counts on from the cache; a window that starts inside a cloud
                must start at a multiple of 4, because the slot follows from the position. [B, L]
            past_key_values: Keys and values of earlier tokens.
            inputs_embeds: In place of `input_ids`, without slot embeddings. With the depth head,
                those of points, from `DepthPointHead.join_tokens`: the states of the large
                transformer are returned, and positions and masks are theirs. [B, L, D]
            use_cache: Whether to return `past_key_values`.
            face_anchors: Of `append_layouts`, with `binding_head="anchored"` [B, F, 6 or more]; or
                what `embed_faces` made of them, where one head is asked about often.
            **kwargs: `output_hidden_states`, `output_attentions` and the like.
        """
        if encoder_hidden_states is None:
            raise ValueError("`encoder_hidden_states` must be given: every layer looks at them.")
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")
        if self.config.point_head == "depth" and input_ids is not None:
            if use_cache or past_key_values is not None:
                past_key_values = PointCache.around(past_key_values, self.window_config)
            hidden_states, anchoring = self.forward_points(
                input_ids,
                encoder_hidden_states,
                attention_mask,
                encoder_attention_mask,
                position_ids,
                past_key_values,
                self.embed_faces(face_anchors),
            )
            return PointGeneratorModelOutput(hidden_states, past_key_values, anchoring=anchoring)
        if isinstance(past_key_values, PointCache):
            raise ValueError(
                "A `PointCache` counts tokens and cannot be used with `inputs_embeds`: give the "
                "cache that they returned."
            )
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.window_config)
        if past_key_values is not None and not isinstance(past_key_values, EncoderDecoderCache):
            # Built without the config, which would truncate the conditioning to the window.
            past_key_values = EncoderDecoderCache(past_key_values, DynamicCache())
        if position_ids is None:
            position_ids = count_on(inputs_embeds, past_key_values)
        if self.config.point_head == "flat":
            inputs_embeds = inputs_embeds + self.embed_slots(position_ids % TOKENS_PER_POINT)
        hidden_states = self.transform(
            inputs_embeds,
            encoder_hidden_states,
            attention_mask,
            encoder_attention_mask,
            position_ids,
            past_key_values,
        )
        return PointGeneratorModelOutput(hidden_states, past_key_values)

    def embed_faces(self, face_anchors: Tensor | FaceTable | None) -> FaceTable | None:
        """The faces of B heads for `binding_head="anchored"`, None for "free". [B, F, 6 or more]"""
        rows = slice(self.config.layout.binding_offset, self.config.layout.bos_token_id)
        return embed_heads(self.face_anchors, face_anchors, self.embed_tokens.weight[rows])

    def forward_points(
        self,
        input_ids: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None,
        encoder_attention_mask: Tensor | None,
        position_ids: Tensor | None,
        past: PointCache | None,
        faces: FaceTable | None = None,
    ) -> tuple[Tensor, Anchoring | None]:
        """What `forward` answers with the depth head. [B, L] -> [B, L, D]

        The layers run over the points that the tokens complete. The state after token t is the one
        that slot t + 1 is predicted from, so the depth head runs over the points of these slots.
        """
        if isinstance(attention_mask, dict):
            raise ValueError(
                "Masks of static caches cannot be used with `input_ids` and `point_head='depth'`. "
                "Give a mask [B, L] or none."
            )
        num_new, batch = input_ids.shape[1], len(input_ids)
        if past is not None and past.pending_ids is not None:
            input_ids = torch.cat([past.pending_ids, input_ids], dim=1)
        length = input_ids.shape[1]
        num_points, num_pending = divmod(length, TOKENS_PER_POINT)
        embeddings, bindings = self.embed_tokens(input_ids), None
        if faces is not None:
            embeddings, bindings = self.face_anchors.embed_bindings(embeddings, input_ids, faces)
        states = self.depth_head.initial_state(batch).to(embeddings.dtype)
        if past is not None and past.point_state is not None:
            states = past.point_state
        if num_points:
            points = self.depth_head.join_tokens(embeddings[:, : length - num_pending])
            if position_ids is None:
                cache = None if past is None else past.self_attention_cache
                point_ids = count_on(points, cache)
            else:
                # A point is where its last token is, and that one is among the new ones.
                last = TOKENS_PER_POINT - 1 - (length - num_new)
                point_ids = position_ids[:, last::TOKENS_PER_POINT] // TOKENS_PER_POINT
            if attention_mask is not None:
                attention_mask = attention_mask[:, TOKENS_PER_POINT - 1 :: TOKENS_PER_POINT]
            new_states = self.transform(
                points,
                encoder_hidden_states,
                attention_mask,
                encoder_attention_mask,
                point_ids,
                past,
            )
            states = torch.cat([states, new_states.to(states.dtype)], dim=1)
        if past is not None:
            past.point_state = states[:, -1:]
            past.pending_ids = input_ids[:, length - num_pending :]

        first, start = divmod(length - num_new + 1, TOKENS_PER_POINT)
        missing = TOKENS_PER_POINT * (num_points + 1) - length
        embeddings = nn.functional.pad(embeddings, (0, 0, 0, missing))
        anchoring = None
        if faces is not None:
            anchoring = Anchoring.of_points(self.face_anchors, faces, bindings, num_points + 1)
        hidden_states = self.depth_head(
            states[:, first:],
            embeddings[:, TOKENS_PER_POINT * first :],
            num_steps=TOKENS_PER_POINT if first < num_points else num_pending + 1,
            rests=None if anchoring is None else anchoring.rests(first),
        )
        if anchoring is not None:
            anchoring = anchoring[length - num_new : length]
        return hidden_states.flatten(1, 2)[:, start : start + num_new], anchoring


class PointGeneratorForCausalLM(PointGeneratorPreTrainedModel, GenerationMixin):
    """The generator with its output head; `decoding.generation.generate_points` makes clouds."""

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
        face_anchors: Tensor | FaceTable | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: object,
    ) -> CausalLMOutputWithCrossAttentions:
        """Logits of the next token, and the loss if labels are given.

        The arguments are those of `PointGeneratorModel`, and two more. `labels` [B, L] are the
        ids to predict, aligned with `input_ids` (they are shifted here), -100 being skipped; with
        labels and `loss_head="typed"` there are no logits. `logits_to_keep` is a number of last
        positions, or indices; 0 keeps all. With `point_head="depth"` the logits of tokens that
        the slot cannot hold are the lowest finite number, and the last of `hidden_states` is that
        of the tokens, all others being of points.

        Raises:
            ValueError: `inputs_embeds` with `point_head="depth"`: they tell nothing of the tokens.
        """
        if inputs_embeds is not None and self.config.point_head == "depth":
            raise ValueError("`inputs_embeds` cannot be used with `point_head='depth'`, ids can.")
        outputs = self.model(
            input_ids=input_ids,
            encoder_hidden_states=encoder_hidden_states,
            attention_mask=attention_mask,
            encoder_attention_mask=encoder_attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            face_anchors=face_anchors,
            **kwargs,
        )
        states, past = outputs.last_hidden_state, outputs.past_key_values
        hidden_states, logits, loss = outputs.hidden_states, None, None
        if self.config.point_head == "depth" and hidden_states is not None:
            # In three of four steps of a generation no layer ran that could be recorded.
            hidden_states = (*hidden_states[:-1], states)
        if labels is None or self.config.loss_head == "full":
            seen = states.shape[1] if past is None else past.get_seq_length()
            logits = self.next_token_logits(states, seen, logits_to_keep, outputs.anchoring)
        if labels is not None:
            losses = self.token_losses(states, labels, logits, outputs.anchoring)
            loss = losses.sum() / (labels[:, 1:] != IGNORED).sum()
        return CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=logits,
            past_key_values=past,
            hidden_states=hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
        )

    def next_token_logits(
        self,
        last_hidden_state: Tensor,
        seen: int,
        logits_to_keep: int | Tensor,
        anchoring: Anchoring | None = None,
    ) -> Tensor:
        """Logits at some positions, the last being that of token number `seen`. -> [B, K, V]"""
        last_only = isinstance(logits_to_keep, int)
        states = last_hidden_state[:, -logits_to_keep:] if last_only else last_hidden_state
        if anchoring is not None:
            anchoring = anchoring[-states.shape[1] :]
        if self.config.point_head == "flat":
            return self.lm_head(states if last_only else states[:, logits_to_keep])
        slot = seen % TOKENS_PER_POINT
        logits = typed_logits(states, self.lm_head.weight, self.config.layout, slot, anchoring)
        return logits if last_only else logits[:, logits_to_keep]

    def token_losses(
        self,
        last_hidden_state: Tensor,
        labels: Tensor,
        logits: Tensor | None = None,
        anchoring: Anchoring | None = None,
    ) -> Tensor:
        """Negative log-likelihood of every label, under the configured `loss_head`.

        Args:
            last_hidden_state: Of sequences that start at a point. [B, L, D]
            labels: Aligned with the tokens; -100 is skipped. [B, L]
            logits: Of all tokens, if they are known; only `loss_head="full"` looks at them.
            anchoring: As the model returned it, with anchored bindings.

        Returns:
            Nats, aligned with the labels, zero where there is none. [B, L]
        """
        if self.config.loss_head == "typed":
            weight = self.lm_head.weight
            layout = self.config.layout
            return typed_losses(last_hidden_state, labels, weight, layout, anchoring)
        return full_losses(self.lm_head(last_hidden_state) if logits is None else logits, labels)
