# SPDX-License-Identifier: Apache-2.0
"""Sampling of point clouds: which token may follow, and how it is drawn."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer
from transformers.utils import ModelOutput

from .compiled_decoder import CompiledDecoder, build_rules
from .cpu_weights import WeightFormat, find_obstacle
from .graph_decoder import GraphDecoder
from .point_streamers import StopOnEvent, stop_on_interrupt
from .ring_cache import RingCache
from .tokenization_points import SORT_KEY, TOKENS_PER_POINT, TokenLayout

GrammarLevel = Literal[
    "types",  # every slot holds its kind of token, and a cloud ends where a point may start
    "full",  # also: the points come in the order of the tokenizer
]
Engine = Literal[
    "auto",  # "compiled" where it can serve, otherwise "reference"
    "reference",  # transformers' `generate`, on any device
    # Kernels on the CPU, a recorded graph on CUDA (which nobody has run yet): the same tokens, but
    # for draws that rounding decides.
    "compiled",
    # The same, but weights, keys and values are rounded: other tokens, faster. The states that meet
    # them are rounded too in int8.
    "compiled-bfloat16",
    "compiled-int8",
]
WEIGHT_FORMATS: dict[Engine, WeightFormat] = {
    "compiled": "exact",
    "compiled-bfloat16": "bfloat16",
    "compiled-int8": "int8",
}
# Further arguments that the compiled engines know.
COMPILED_OPTIONS = {"encoder_hidden_states", "encoder_attention_mask", "streamer", "stop"}


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
        # Float64, because torch makes these numbers alike in all its builds; `cpu_sampling` makes
        # them as well.
        rows = [
            torch.rand(
                scores.shape[1], dtype=torch.float64, device=generator.device, generator=generator
            )
            for generator in self.generators
        ]
        exponential = -torch.log1p(-torch.stack(rows))
        # The logarithm of an exponential variable is minus a Gumbel one.
        return logits - exponential.to(logits).log()


@dataclass
class PointGenerationOutput(ModelOutput):
    """Generated sequences and what the network thought at each of their tokens.

    Args:
        input_ids: Four starts, points, four ends, padding. [B, 4 (N + 2)]
        token_hidden_states: Final hidden states of the points' tokens, zero at padding (paper
            Eq. 4). [B, N, 4, D]
        num_points: Points of each row. [B]
        is_finished: Whether a row ended by itself; if not, its generation was stopped. [B]
    """

    input_ids: Tensor | None = None
    token_hidden_states: Tensor | None = None
    num_points: Tensor | None = None
    is_finished: Tensor | None = None


class PointGenerationMixin:
    """Generation of whole clouds, by `GenerationMixin.generate` or by compiled kernels."""

    @torch.no_grad()
    def generate_points(
        self,
        encoder_hidden_states: Tensor,
        *,
        engine: Engine = "auto",
        seeds: Sequence[int] | None = None,
        num_return_sequences: int = 1,
        grammar: GrammarLevel = "types",
        min_points: int = 1,
        max_points: int = 20000,
        temperature: float = 1.0,
        min_p: float = 0.05,
        **kwargs: object,
    ) -> PointGenerationOutput:
        """Samples clouds for each row of the conditioning.

        Ctrl-C ends the generation, and the points so far are returned; so does `stop`.

        Args:
            encoder_hidden_states: [B, M, cross_attention_size]
            engine: `Engine`.
            seeds: One per cloud, of its random draws; the default is 0, 1, 2, ...
            num_return_sequences: Clouds of each row, one after the other in the result.
            grammar: `GrammarLevel`.
            min_points: Fewest points of a cloud.
            max_points: Most points of a cloud.
            temperature: Of the sampling; 0 is greedy.
            min_p: Cuts off tokens less likely than this share of the likeliest one.
            **kwargs: `streamer`, for instance a `PointStreamer`; `stop`, a `threading.Event` that
                ends the generation when it is set; `encoder_attention_mask` [B, M]; others go to
                `generate`, for instance `cache_implementation`, and want the reference engine.

        Raises:
            ValueError: The arguments contradict each other, or the engine cannot serve them.
            KeyboardInterrupt: Before the first point was complete.
        """
        kwargs["encoder_hidden_states"] = encoder_hidden_states
        for name in ("encoder_hidden_states", "encoder_attention_mask"):
            if kwargs.get(name) is not None:
                kwargs[name] = kwargs[name].repeat_interleave(num_return_sequences, dim=0)
        batch, device = len(kwargs["encoder_hidden_states"]), encoder_hidden_states.device
        seeds = range(batch) if seeds is None else seeds
        if len(seeds) != batch:
            raise ValueError(f"`seeds` must hold one seed per cloud, got {len(seeds)} for {batch}.")
        layout = self.config.layout
        rules = PointGrammar(layout, level=grammar, min_points=min_points, max_points=max_points)
        generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        sampling = SeededSampling(generators, temperature=temperature, min_p=min_p)
        engine = self.choose_engine(engine, kwargs)
        stop = kwargs.pop("stop", None) or threading.Event()
        with stop_on_interrupt(stop) as interruption:
            if engine == "reference":
                sequences, states = self._generate_by_reference(rules, sampling, stop, **kwargs)
            else:
                conditioning = kwargs["encoder_hidden_states"], kwargs.get("encoder_attention_mask")
                if device.type == "cuda":
                    decoder = GraphDecoder(self, *conditioning, grammar=rules, sampling=sampling)
                else:
                    decoder = CompiledDecoder(
                        self,
                        *conditioning,
                        rules=build_rules(layout, rules, sampling),
                        seeds=seeds,
                        weight_format=WEIGHT_FORMATS[engine],
                    )
                prompt = torch.full((batch, TOKENS_PER_POINT), layout.bos_token_id, device=device)
                pieces = decoder.decode()
                sequences, states = _join_pieces(prompt, pieces, stop, kwargs.get("streamer"))
        output = collect_points(sequences, states.to(encoder_hidden_states.dtype), layout)
        if interruption.is_set() and not output.num_points.any():
            raise KeyboardInterrupt
        return output

    def choose_engine(self, engine: Engine, options: Mapping[str, object] | None = None) -> Engine:
        """The engine that serves: of "auto", the fastest that gives the reference's tokens.

        Args:
            engine: `Engine`.
            options: The conditioning and the further arguments of `generate_points`.
        """
        options = options or {}
        if engine not in get_args(Engine):
            raise ValueError(f"`engine` must be one of {get_args(Engine)}, got {engine!r}.")
        if engine == "reference":
            return engine
        states = options.get("encoder_hidden_states")
        device = self.device if states is None else states.device
        obstacle = None
        # Nobody has run the graphs yet: on GPUs they must be asked for by name.
        if engine != "compiled" or device.type != "cuda":
            obstacle = find_obstacle(self)
            if obstacle is None and device.type != "cpu":
                obstacle = f"the conditioning is on {device}, not on the CPU"
        foreign = sorted({*options} - COMPILED_OPTIONS)
        if obstacle is None and foreign:
            obstacle = f"`{foreign[0]}` is for `generate`"
        if obstacle is None:
            return "compiled" if engine == "auto" else engine
        if engine == "auto":
            return "reference"
        raise ValueError(
            f"`engine` {engine!r} cannot serve this call: {obstacle}. Take 'auto' or 'reference'."
        )

    def _generate_by_reference(
        self, rules: PointGrammar, sampling: SeededSampling, stop: threading.Event, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Sequences [B, 4 + T], and hidden states of all tokens but the last. [B, 3 + T, D]"""
        states = kwargs["encoder_hidden_states"]
        prompt = states.new_full(
            (len(states), TOKENS_PER_POINT), rules.layout.bos_token_id, dtype=torch.long
        )
        if "cache_implementation" not in kwargs:
            kwargs.setdefault("past_key_values", RingCache(self.config))
        output = self.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            logits_processor=LogitsProcessorList([rules, sampling]),
            stopping_criteria=StoppingCriteriaList([StopOnEvent(stop)]),
            do_sample=False,
            # One more than the points need: the last token gets its state when E is predicted.
            max_new_tokens=TOKENS_PER_POINT * rules.max_points + 1,
            output_hidden_states=-1,  # those of the last layer alone
            return_dict_in_generate=True,
            **kwargs,
        )
        return output.sequences, torch.cat([step[-1] for step in output.hidden_states], dim=1)


def _join_pieces(
    prompt: Tensor,
    pieces: Iterator[tuple[Tensor, Tensor]],
    stop: threading.Event,
    streamer: BaseStreamer | None,
) -> tuple[Tensor, Tensor]:
    """What `_generate_by_reference` returns, from the pieces of a decoder."""
    sequences, states = [prompt], []
    if streamer is not None:
        streamer.put(prompt.cpu())
    for tokens, hidden in pieces:
        sequences.append(tokens)
        states.append(hidden)
        if streamer is not None:
            for column in tokens.cpu().unbind(1):
                streamer.put(column)
        if stop.is_set():
            break
    if streamer is not None:
        streamer.end()
    return torch.cat(sequences, dim=1), torch.cat(states, dim=1)


def collect_points(
    sequences: Tensor, hidden_states: Tensor, layout: TokenLayout
) -> PointGenerationOutput:
    """Completes generated sequences to the tokenizer's form.

    Args:
        sequences: As `generate` returns them, padded after the first end token. [B, 4 + T]
        hidden_states: Of all tokens that have been fed back, so of all but the last. [B, 3 + T, D]
        layout: The vocabulary.
    """
    # A point whose last token has no state, because the generation was stopped there, is left out.
    body = sequences[:, TOKENS_PER_POINT : hidden_states.shape[1]]
    num_points = (body < layout.bos_token_id).sum(1) // TOKENS_PER_POINT
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
    is_finished = (sequences == layout.eos_token_id).any(1)
    return PointGenerationOutput(input_ids, states, num_points, is_finished)
