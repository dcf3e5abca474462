# SPDX-License-Identifier: Apache-2.0
"""Generation of whole clouds, by transformers' `generate` or by one of the compiled engines."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer
from transformers.utils import ModelOutput

from ..models.modeling_point_generator import PointGeneratorForCausalLM
from ..models.ring_cache import RingCache
from ..models.tokenization_points import TOKENS_PER_POINT, TokenLayout
from .cpu.decoder import CompiledDecoder, build_rules
from .cpu.weights import WeightFormat, find_obstacle
from .grammar import GrammarLevel, PointGrammar
from .graph_decoder import GraphDecoder
from .guidance import Guidance, check_guidance, count_streams, spread_rows
from .options import (
    OWN_OPTIONS,
    check_anchors,
    check_context,
    check_count,
    check_options,
    list_seeds,
)
from .sampling import SeededSampling
from .streamers import FirstRows, StopOnEvent, stop_on_interrupt

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


@torch.no_grad()
def generate_points(
    model: PointGeneratorForCausalLM,
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
    guidance_scale: float = 1.0,
    unconditional_states: Tensor | None = None,
    **kwargs: object,
) -> PointGenerationOutput:
    """Samples clouds for each row of the conditioning.

    Ctrl-C ends the generation, and the points so far are returned; so does `stop`.

    Args:
        model: The generator.
        encoder_hidden_states: [B, M, cross_attention_size]
        engine: `Engine`.
        seeds: One per cloud, of its random draws; the default is 0, 1, 2, ...
        num_return_sequences: Clouds of each row, one after the other in the result.
        grammar: `GrammarLevel`.
        min_points: Fewest points of a cloud.
        max_points: Most points of a cloud.
        temperature: Of the sampling; 0 is greedy.
        min_p: Cuts off tokens less likely than this share of the likeliest one.
        guidance_scale: How far from what the head alone suggests towards what the portrait adds; 1
            is the network's word, more exaggerates. Other scales than 1 take twice the work.
        unconditional_states: The conditioning with the portrait hidden, for other scales than 1
            alone, see `AvatarConditioner.hide_portraits`. [B, M, cross_attention_size]
        **kwargs: `streamer`, for instance a `PointStreamer`; `stop`, a `threading.Event` that
            ends the generation when it is set; `encoder_attention_mask` [B, M]; `face_anchors`
            of `HeadRig.face_anchors` [B, F, 6], for anchored bindings alone, with columns of
            `append_layouts` if the generator has `layout_heights`; and what
            `generate` knows of caches, for instance `cache_implementation` and `use_cache`, which
            wants the reference engine.

    Raises:
        ValueError: The arguments contradict each other, or the engine cannot serve them.
        KeyboardInterrupt: Before the first point was complete.
    """
    check_options(kwargs)
    check_context(model, encoder_hidden_states, kwargs.get("encoder_attention_mask"))
    check_anchors(model, kwargs.get("face_anchors"), len(encoder_hidden_states))
    scale = check_guidance(guidance_scale, encoder_hidden_states, unconditional_states)
    num_return_sequences = check_count(num_return_sequences)
    seeds = list_seeds(seeds, len(encoder_hidden_states) * num_return_sequences)
    kwargs["encoder_hidden_states"] = encoder_hidden_states
    blind = unconditional_states if count_streams(scale) > 1 else None
    spread_rows(kwargs, num_return_sequences, blind)
    rules = build_grammar(model, grammar, min_points, max_points)
    generators = [torch.Generator(encoder_hidden_states.device).manual_seed(s) for s in seeds]
    draw = {"temperature": temperature, "min_p": min_p, "num_plain_slots": rules.num_plain_slots}
    sampling = SeededSampling(generators, **draw)
    engine = choose_engine(model, engine, kwargs, scale)
    stop = kwargs.pop("stop", None) or threading.Event()
    with stop_on_interrupt(stop) as interruption:
        if engine == "reference":
            sequences, states = _generate_by_reference(
                model, rules, sampling, scale, stop, **kwargs
            )
        else:
            decoder = _build_decoder(model, engine, rules, sampling, scale, seeds, **kwargs)
            sequences, states = _join_pieces(
                len(seeds), rules.layout, decoder.decode(), stop, kwargs.get("streamer")
            )
    output = collect_points(sequences, states.to(encoder_hidden_states.dtype), rules.layout)
    if interruption.is_set() and not output.num_points.any():
        raise KeyboardInterrupt
    return output


def _build_decoder(
    model: PointGeneratorForCausalLM,
    engine: Engine,
    rules: PointGrammar,
    sampling: SeededSampling,
    guidance_scale: float,
    seeds: Sequence[int],
    *,
    encoder_hidden_states: Tensor,
    encoder_attention_mask: Tensor | None = None,
    face_anchors: Tensor | None = None,
    **others: object,
) -> GraphDecoder | CompiledDecoder:
    """What decodes rows in a compiled engine; their options are those of `generate_points`."""
    conditioning = encoder_hidden_states, encoder_attention_mask
    if encoder_hidden_states.device.type == "cuda":
        return GraphDecoder(model, *conditioning, grammar=rules, sampling=sampling)
    return CompiledDecoder(
        model,
        *conditioning,
        rules=build_rules(rules.layout, rules, sampling, guidance_scale),
        seeds=seeds,
        weight_format=WEIGHT_FORMATS[engine],
        face_anchors=face_anchors,
    )


def build_grammar(
    model: PointGeneratorForCausalLM, level: GrammarLevel, min_points: int, max_points: int
) -> PointGrammar:
    """The grammar of a call, with the points per face that the model has learned from."""
    most = model.config.max_points_per_face
    bounds = {"min_points": min_points, "max_points": max_points, "max_points_per_face": most}
    return PointGrammar(model.config.layout, level=level, **bounds)


def choose_engine(
    model: PointGeneratorForCausalLM,
    engine: Engine,
    options: Mapping[str, object] | None = None,
    guidance_scale: float = 1.0,
) -> Engine:
    """The engine that serves: of "auto", the fastest that gives the reference's tokens.

    Args:
        model: The generator.
        engine: `Engine`.
        options: The conditioning and the further arguments of `generate_points`.
        guidance_scale: As there.
    """
    options = options or {}
    if engine not in get_args(Engine):
        raise ValueError(f"`engine` must be one of {get_args(Engine)}, got {engine!r}.")
    if engine == "reference":
        return engine
    states = options.get("encoder_hidden_states")
    device = model.device if states is None else states.device
    obstacle = None
    # Nobody has run the graphs yet: on GPUs they must be asked for by name.
    if engine == "compiled" and device.type == "cuda":
        if model.config.binding_head != "free":
            obstacle = f"the `binding_head` is {model.config.binding_head!r}, not 'free', on CUDA"
        elif count_streams(guidance_scale) > 1:
            obstacle = "the `guidance_scale` is not 1, on CUDA"
    else:
        obstacle = find_obstacle(model)
        if obstacle is None and device.type != "cpu":
            obstacle = f"the conditioning is on {device}, not on the CPU"
    foreign = sorted({*options} - OWN_OPTIONS)
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
    model: PointGeneratorForCausalLM,
    rules: PointGrammar,
    sampling: SeededSampling,
    guidance_scale: float,
    stop: threading.Event,
    **kwargs: object,
) -> tuple[Tensor, Tensor]:
    """Sequences [B, 4 + T], and hidden states of all tokens but the last. [B, 3 + T, D]"""
    processors = [rules, sampling]
    num_streams = count_streams(guidance_scale)
    if num_streams > 1:
        processors = [Guidance(guidance_scale, processors)]
        if kwargs.get("streamer") is not None:
            # The seeing streams' tokens are those of the clouds.
            kwargs["streamer"] = FirstRows(kwargs["streamer"], num_streams)
    states = kwargs["encoder_hidden_states"]
    prompt = states.new_full(
        (len(states), TOKENS_PER_POINT), rules.layout.bos_token_id, dtype=torch.long
    )
    use_cache = kwargs.get("use_cache") is not False
    if "cache_implementation" not in kwargs and use_cache:
        kwargs.setdefault("past_key_values", RingCache(model.config))
    if kwargs.get("face_anchors") is not None:
        # Once, not for every token.
        kwargs["face_anchors"] = model.model.embed_faces(kwargs["face_anchors"])
    output = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        logits_processor=LogitsProcessorList(processors),
        stopping_criteria=StoppingCriteriaList([StopOnEvent(stop)]),
        do_sample=False,
        # One more than the points need: the last token gets its state when E is predicted.
        max_new_tokens=TOKENS_PER_POINT * rules.max_points + 1,
        output_hidden_states=-1,  # those of the last layer alone
        return_dict_in_generate=True,
        **kwargs,
    )
    steps = [step[-1] for step in output.hidden_states]
    # Without a cache, each step computes the states of all tokens so far.
    states = torch.cat(steps, dim=1) if use_cache else steps[-1]
    return output.sequences[::num_streams], states[::num_streams]


def _join_pieces(
    batch: int,
    layout: TokenLayout,
    pieces: Iterator[tuple[Tensor, Tensor]],
    stop: threading.Event,
    streamer: BaseStreamer | None,
) -> tuple[Tensor, Tensor]:
    """What `_generate_by_reference` returns, from the pieces of a decoder of so many clouds."""
    prompt = torch.full((batch, TOKENS_PER_POINT), layout.bos_token_id)
    sequences, states = [], []
    if streamer is not None:
        streamer.put(prompt)
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
    return torch.cat([prompt.to(sequences[0]), *sequences], dim=1), torch.cat(states, dim=1)


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
