# SPDX-License-Identifier: Apache-2.0
"""One generation by a step that never changes its shape: CUDA graphs on GPUs.

At batch 1 a GPU waits for Python and for the launching of kernels. So the network's step is
recorded once and replayed for every token: all its tensors stay where they are, keys and values
stand in rings of full size, and the place and the mask of a step follow from a tensor that counts
positions. There are four recordings, one for each slot of a point, because each computes the logits
of its slot alone; with the depth head only the first runs the large transformer. Grammar and
sampling are those of the reference, on the device, and the host looks at the result once per point.

Written against the CPU, where the same step runs under `torch.compile`; it has not been run on a
GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, EncoderDecoderCache

from ..models.modeling_point_generator import PointGeneratorForCausalLM
from ..models.slot_heads import typed_logits
from ..models.tokenization_points import TOKENS_PER_POINT
from .grammar import PointGrammar
from .sampling import SeededSampling

Recording = Literal[
    "cuda-graph",  # recorded and replayed, CUDA only
    "inductor",  # torch.compile with its compiler
    "eager",  # torch.compile without one: only checks that the step is one graph
]
WARM_UP_STEPS = 3  # before a recording, as torch.cuda.graph asks for


class StaticRingLayer(CacheLayerMixin):
    """A ring of keys and values whose place comes from a tensor.

    Args:
        capacity: Tokens, or points, that are kept.
        position: Of the one that comes, shared with the other layers. [1]
    """

    is_sliding = True
    is_compileable = True

    def __init__(self, capacity: int, position: Tensor) -> None:
        super().__init__()
        self.capacity, self.position = capacity, position

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Takes the memory of the ring; zeros, because masked values are still multiplied."""
        batch, heads, _, size = key_states.shape
        self.keys = key_states.new_zeros(batch, heads, self.capacity, size)
        self.values = value_states.new_zeros(batch, heads, self.capacity, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Keeps the one new token; the whole ring. [B, heads, capacity, head_dim]"""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        place = self.position % self.capacity
        self.keys.index_copy_(2, place, key_states)
        self.values.index_copy_(2, place, value_states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys, and the position of the first; not used, the mask being given."""
        return self.capacity, 0

    def get_seq_length(self) -> int:
        """Tokens seen so far; reading it waits for the device."""
        return int(self.position)

    def get_max_length(self) -> int:
        """Tokens that are kept at most."""
        return self.capacity


class GraphDecoder:
    """Decodes B clouds, point by point.

    Args:
        model: The generator, on any device.
        encoder_hidden_states: [B, M, cross_attention_size]
        encoder_attention_mask: 0 at padded conditioning tokens. [B, M]
        grammar: Which tokens may follow.
        sampling: How they are drawn.
        recording: `Recording`.
    """

    def __init__(
        self,
        model: PointGeneratorForCausalLM,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        *,
        grammar: PointGrammar,
        sampling: SeededSampling,
        recording: Recording = "cuda-graph",
    ) -> None:
        self.model, self.grammar, self.sampling = model, grammar, sampling
        self.context, self.context_mask = encoder_hidden_states, None
        if encoder_attention_mask is not None:
            self.context_mask = self._attention_mask(encoder_attention_mask.bool())
        self.recording = recording
        config, device = model.config, encoder_hidden_states.device
        batch, layout = len(encoder_hidden_states), config.layout
        self.tokens_per_step = TOKENS_PER_POINT if config.point_head == "depth" else 1
        longest = TOKENS_PER_POINT * (grammar.max_points + 1)
        self.capacity = min(config.sliding_window, longest) // self.tokens_per_step
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        # What is fed: the last token, or the last point, whose tokens are replaced one by one.
        self.fed = torch.full((batch, self.tokens_per_step), layout.bos_token_id, device=device)
        self.point_state = encoder_hidden_states.new_zeros(batch, 1, config.hidden_size)
        self.places = torch.arange(self.capacity, device=device)
        layers = [
            StaticRingLayer(self.capacity, self.position) for _ in range(config.num_hidden_layers)
        ]
        self.cache = EncoderDecoderCache(Cache(layers), DynamicCache())
        # The prompt, the points, and one end.
        self.ids = torch.full((batch, longest + 1), layout.pad_token_id, device=device)
        self.ids[:, :TOKENS_PER_POINT] = layout.bos_token_id
        self.length = self.tokens_per_step  # of what has been fed or will be next
        step = self.step_slot if config.point_head == "depth" else self.step
        self.steps = [partial(step, slot) for slot in range(TOKENS_PER_POINT)]

    def _attention_mask(self, is_seen: Tensor) -> Tensor:
        """What is seen as the attention function wants it. [B or 1, keys] -> [B or 1, 1, 1, keys]

        Ready for use: transformers would look at the numbers of a mask, which cannot be recorded.
        """
        mask = is_seen[:, None, None]
        if self.model.config._attn_implementation != "eager":
            return mask
        dtype = self.context.dtype
        return torch.where(mask, 0.0, torch.finfo(dtype).min).to(dtype)

    def run_layers(self, **inputs: Tensor) -> Tensor:
        """Feeds a token or a point at `position`: final hidden states. [B, 1, D]"""
        mask = self._attention_mask((self.places <= self.position)[None])
        output = self.model.model(
            encoder_hidden_states=self.context,
            encoder_attention_mask=self.context_mask,
            attention_mask={"sliding_attention": mask},
            position_ids=self.position[None],
            past_key_values=self.cache,
            use_cache=True,
            **inputs,
        )
        return output.last_hidden_state

    def step(self, slot: int) -> tuple[Tensor, Tensor]:
        """Feeds a token: logits of the slot that comes [B, V], final hidden states [B, D]."""
        return self._predict(self.run_layers(input_ids=self.fed), slot)

    def step_slot(self, slot: int) -> tuple[Tensor, Tensor]:
        """`step` with the depth head, where the first slot feeds a point, and others nothing."""
        network = self.model.model
        embeddings, depth_head = network.embed_tokens(self.fed), network.depth_head
        if slot == 0:
            state = self.run_layers(inputs_embeds=depth_head.join_tokens(embeddings))
            self.point_state.copy_(state)
        states = depth_head(self.point_state, embeddings, slot + 1)[:, 0]
        return self._predict(states[:, -1:], slot)

    def _predict(self, states: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        """Logits of a slot [B, V] and the states themselves [B, D], from states [B, 1, D]."""
        weight, layout = self.model.lm_head.weight, self.model.config.layout
        return typed_logits(states, weight, layout, slot)[:, -1], states[:, -1]

    def record(self, step: Callable[[], tuple[Tensor, Tensor]]) -> Callable:
        """A step in its fastest form. It must have run once, so that its caches are there."""
        if self.recording != "cuda-graph":

            def run() -> tuple[Tensor, Tensor]:
                return step()

            # torch keeps a few forms of a code only, and each recording is a form of its own.
            run.__code__ = run.__code__.replace()
            return torch.compile(run, backend=self.recording, fullgraph=True, dynamic=False)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            # Position and tokens do not move: the same place of the ring is written again.
            for _ in range(WARM_UP_STEPS):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = step()

        def replay() -> tuple[Tensor, Tensor]:
            graph.replay()
            return results

        return replay

    def decode(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pieces of the sequences, until all rows have ended.

        Yields:
            Tokens as they were drawn, padding after the end [B, T]; final hidden states of the
            tokens that were fed: the prompt's, then the drawn ones'. [B, T, D]
        """
        end, size = self.model.config.eos_token_id, self.tokens_per_step
        recorded: dict[Callable, Callable] = {}
        # Nobody asks for states within the prompt's point.
        hidden_size = self.model.config.hidden_size
        states = [self.context.new_zeros(len(self.ids), hidden_size)] * (size - 1)
        while True:
            length, slot = self.length, self.length % TOKENS_PER_POINT
            step = self.steps[slot]
            logits, hidden = recorded.get(step, step)()
            if step not in recorded:
                recorded[step] = self.record(step)
            states.append(hidden.clone())
            if slot == 0 or size == 1:
                self.position.add_(1)
            if length >= TOKENS_PER_POINT:
                seen = self.ids[:, :length]
                scores = self.sampling(seen, self.grammar(seen, logits.float()))
                self.ids[:, length] = scores.argmax(-1)
            self.fed[:, length % size] = self.ids[:, length]
            self.length = length = length + 1
            # The first token of a point tells whether there is one: the host waits for it alone.
            if length > TOKENS_PER_POINT and length % TOKENS_PER_POINT == 1:
                fresh = self.ids[:, max(length - TOKENS_PER_POINT, TOKENS_PER_POINT) : length]
                yield fresh, torch.stack(states, dim=1)
                states = []
                if bool((self.ids[:, :length] == end).any(1).all()):
                    return
