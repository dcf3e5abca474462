# SPDX-License-Identifier: Apache-2.0
"""Sampling of point clouds: which token may follow, and how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.utils import ModelOutput

from .ring_cache import RingCache
from .tokenization_points import SORT_KEY, TOKENS_PER_POINT, TokenLayout

GrammarLevel = Literal[
    "types",  # every slot holds its kind of token, and a cloud ends where a point may start
    "full",  # also: the points come in the order of the tokenizer
]


class PointGrammar(LogitsProcessor):
    """Forbids the tokens that cannot continue a valid cloud; every allowed one can be completed.

    The values allowed in a slot are an interval [low, last]: the low end is the smallest value
    with which the point can still end up at or above the previous one in the sort key.

    Args:
        layout: The vocabulary.
        level: `GrammarLevel`.
        min_points: A cloud may not end before it has so many points.
        max_points: A cloud must end when it has so many points.
    """

    def __init__(
        self,
        layout: TokenLayout,
        *,
        level: GrammarLevel = "types",
        min_points: int = 1,
        max_points: int | None = None,
    ) -> None:
        if level not in ("types", "full"):
            raise ValueError(f"`grammar` must be 'types' or 'full', got {level!r}.")
        if min_points < 0 or (max_points is not None and max_points < max(min_points, 1)):
            raise ValueError(
                "`max_points` must be at least 1 and at least `min_points`, "
                f"got {max_points} and {min_points}."
            )
        self.layout, self.level = layout, level
        self.min_points, self.max_points = min_points, max_points

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Sets the scores of forbidden tokens to minus infinity. [B, L], [B, V] -> [B, V]"""
        return scores.masked_fill(~self.allowed(input_ids), -torch.inf)

    def allowed(self, input_ids: Tensor) -> Tensor:
        """Which token may come next in each row, all rows being equally long.

        Args:
            input_ids: Sequences so far, from their first start token. [B, L]

        Returns:
            Booleans. [B, V]
        """
        layout = self.layout
        done = input_ids.shape[1] - TOKENS_PER_POINT
        num_points, slot = divmod(done, TOKENS_PER_POINT)
        low, end = layout.slot_range(slot)
        ids = torch.arange(layout.vocab_size, device=input_ids.device)
        lowest = self._lowest(input_ids, slot) if self.level == "full" and num_points else None
        lowest = ids.new_zeros(len(input_ids)) if lowest is None else lowest
        if slot == 0 and num_points == self.max_points:
            lowest = lowest + (end - low)  # nothing but the end is left
        allowed = (ids >= low + lowest[:, None]) & (ids < end)
        if slot == 0:
            may_end = (num_points >= self.min_points) | (low + lowest >= end)
            allowed[:, layout.eos_token_id] = may_end
        finished = (input_ids == layout.eos_token_id).any(1)
        padding = ids == layout.pad_token_id
        return torch.where(finished[:, None], padding, allowed)

    def _lowest(self, input_ids: Tensor, slot: int) -> Tensor:
        """Smallest value of the slot, counted from its first id, that keeps the order. [B]"""
        layout = self.layout
        start = input_ids.shape[1] - slot
        firsts = [layout.slot_range(s)[0] for s in range(TOKENS_PER_POINT)]
        tops = [layout.slot_range(s)[1] - layout.slot_range(s)[0] - 1 for s in range(4)]
        previous, current = {}, {}
        for s, name in enumerate(layout.token_order):
            previous[name] = input_ids[:, start - TOKENS_PER_POINT + s] - firsts[s]
            # A value still to come may be as large as its slot allows.
            given = input_ids[:, start + s] - firsts[s] if s < slot else None
            current[name] = torch.full_like(previous[name], tops[s]) if given is None else given
        position = SORT_KEY.index(layout.token_order[slot])
        before, name, after = SORT_KEY[:position], SORT_KEY[position], SORT_KEY[position + 1 :]
        above = _compare(previous, current, before) > 0
        repeats = _compare(previous, current, after) >= 0  # the same value again can be completed
        lowest = previous[name] + (~repeats).long()
        return lowest.masked_fill(above, 0)


def _compare(previous: dict[str, Tensor], current: dict[str, Tensor], names: str) -> Tensor:
    """Lexicographic comparison of two points on some axes: 1 current is larger, 0 equal, -1. [B]"""
    result = torch.zeros_like(previous["y"])
    for name in names:
        result = torch.where(result == 0, (current[name] - previous[name]).sign(), result)
    return result


class SeededSampling(LogitsProcessor):
    """Draws by argmax: scores plus Gumbel noise from one random stream per row.

    A row's draws depend on its own stream only, so an avatar does not change with its neighbours
    in a batch, and the global random state is left alone. Use with `do_sample=False`.

    Args:
        generators: One per row.
        temperature: Divides the scores; 0 is greedy.
        min_p: Tokens less likely than this share of the likeliest are cut off first.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        *,
        temperature: float = 1.0,
        min_p: float = 0.0,
    ) -> None:
        if temperature < 0 or not 0 <= min_p <= 1:
            raise ValueError(
                "`temperature` must not be negative and `min_p` must lie in [0, 1], "
                f"got {temperature} and {min_p}."
            )
        self.generators, self.temperature, self.min_p = generators, temperature, min_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores whose argmax is a draw. [B, L], [B, V] -> [B, V]"""
        if self.temperature == 0:
            return scores
        logits = scores.float() / self.temperature
        if self.min_p > 0:
            threshold = logits.amax(-1, keepdim=True) + torch.tensor(self.min_p).log().item()
            logits = logits.masked_fill(logits < threshold, -torch.inf)
        rows = [
            torch.empty(scores.shape[1], device=generator.device).exponential_(generator=generator)
            for generator in self.generators
        ]
        # The logarithm of an exponential variable is minus a Gumbel one.
        return logits - torch.stack(rows).to(logits).log()


@dataclass
class PointGenerationOutput(ModelOutput):
    """Generated sequences and what the network thought at each of their tokens.

    Args:
        input_ids: Four starts, points, four ends, padding. [B, 4 (N + 2)]
        token_hidden_states: Final hidden states of the points' tokens, zero at padding (paper
            Eq. 4). [B, N, 4, D]
        num_points: Points of each row. [B]
    """

    input_ids: Tensor | None = None
    token_hidden_states: Tensor | None = None
    num_points: Tensor | None = None


class PointGenerationMixin:
    """Generation of whole clouds on top of `GenerationMixin.generate`."""

    @torch.no_grad()
    def generate_points(
        self,
        encoder_hidden_states: Tensor,
        *,
        seeds: Sequence[int] | None = None,
        grammar: GrammarLevel = "types",
        min_points: int = 1,
        max_points: int = 20000,
        temperature: float = 1.0,
        min_p: float = 0.05,
        **kwargs: object,
    ) -> PointGenerationOutput:
        """Samples one cloud for each row of the conditioning.

        Args:
            encoder_hidden_states: [B, M, cross_attention_size]
            seeds: One per row, of its random draws; the default is 0, 1, 2, ...
            grammar: `GrammarLevel`.
            min_points: Fewest points of a cloud.
            max_points: Most points of a cloud.
            temperature: Of the sampling; 0 is greedy.
            min_p: Cuts off tokens less likely than this share of the likeliest one.
            **kwargs: Go to `generate`, for instance `streamer` or `cache_implementation`.
        """
        batch, layout = len(encoder_hidden_states), self.config.layout
        seeds = range(batch) if seeds is None else seeds
        if len(seeds) != batch:
            raise ValueError(f"`seeds` must hold one seed per row, got {len(seeds)} for {batch}.")
        device = encoder_hidden_states.device
        generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        processors = LogitsProcessorList(
            [
                PointGrammar(layout, level=grammar, min_points=min_points, max_points=max_points),
                SeededSampling(generators, temperature=temperature, min_p=min_p),
            ]
        )
        if "cache_implementation" not in kwargs:
            kwargs.setdefault("past_key_values", RingCache(self.config))
        prompt = torch.full((batch, TOKENS_PER_POINT), layout.bos_token_id, device=device)
        output = self.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            encoder_hidden_states=encoder_hidden_states,
            logits_processor=processors,
            do_sample=False,
            # One more than the points need: the last token gets its state when E is predicted.
            max_new_tokens=TOKENS_PER_POINT * max_points + 1,
            output_hidden_states=-1,  # those of the last layer alone
            return_dict_in_generate=True,
            **kwargs,
        )
        states = torch.cat([step[-1] for step in output.hidden_states], dim=1)
        return collect_points(output.sequences, states, layout)


def collect_points(
    sequences: Tensor, hidden_states: Tensor, layout: TokenLayout
) -> PointGenerationOutput:
    """Completes generated sequences to the tokenizer's form.

    Args:
        sequences: As `generate` returns them, padded after the first end token. [B, 4 + T]
        hidden_states: Of all tokens that have been fed back, so of all but the last. [B, 3 + T, D]
        layout: The vocabulary.
    """
    body = sequences[:, TOKENS_PER_POINT:]
    lengths = (body < layout.bos_token_id).sum(1)
    num_points = lengths // TOKENS_PER_POINT
    most = int(num_points.max())
    total = TOKENS_PER_POINT * (most + 2)
    input_ids = sequences.new_full((len(sequences), total), layout.pad_token_id)
    states = hidden_states[:, TOKENS_PER_POINT : TOKENS_PER_POINT * (most + 1)]
    states = states.unflatten(1, (most, TOKENS_PER_POINT)).clone()
    for row, count in enumerate(num_points.tolist()):
        end = TOKENS_PER_POINT * (count + 1)
        input_ids[row, :end] = sequences[row, :end]
        input_ids[row, end : end + TOKENS_PER_POINT] = layout.eos_token_id
        states[row, count:] = 0
    return PointGenerationOutput(input_ids, states, num_points)
