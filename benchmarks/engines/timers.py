# SPDX-License-Identifier: Apache-2.0
"""Seconds per token of the engines and of transformers, each measured round by round.

Caches are filled with random numbers up to the context, so that no minutes go by until it is
reached.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from transformers import Cache, DynamicCache, LlamaForCausalLM, StaticCache
from transformers.cache_utils import EncoderDecoderCache

from pointillist_hf import PointGeneratorForCausalLM
from pointillist_hf.decoding.cpu.decoder import CompiledDecoder, build_rules
from pointillist_hf.decoding.cpu.records import Store
from pointillist_hf.decoding.cpu.sampling import choose
from pointillist_hf.decoding.cpu.weights import store
from pointillist_hf.decoding.grammar import PointGrammar
from pointillist_hf.decoding.sampling import SeededSampling
from pointillist_hf.kernels.compilation import compile_kernel
from pointillist_hf.models.depth_point_head import PointCache
from pointillist_hf.models.ring_cache import RingCache
from pointillist_hf.models.tokenization_points import TOKENS_PER_POINT

from .clock import Clock, now
from .networks import CONDITIONING, CONDITIONING_SIZE
from .roofline import tokens_per_step

POINTS, ROUND_SECONDS = 4, 0.1  # of a call of the kernels, of a round
ENDLESS = 10**6  # points


def fill(cache: Cache, model: LlamaForCausalLM | PointGeneratorForCausalLM, count: int) -> Cache:
    """The cache as it is after so many tokens."""
    config, place = model.config, {"dtype": model.dtype, "device": model.device}
    heads = config.num_attention_heads
    shape = (1, heads, count, config.hidden_size // heads)
    for layer in range(config.num_hidden_layers):
        cache.update(torch.randn(shape, **place), torch.randn(shape, **place), layer)
    return cache


def time_reference(model: PointGeneratorForCausalLM, context: int, tokens: int) -> Callable:
    """Seconds per token of the plain path, round by round."""
    layout, network = model.config.layout, model.model
    steps = context // tokens_per_step(model.config)
    place = {"dtype": model.dtype, "device": model.device}
    cache = fill(RingCache(network.window_config), model, steps)
    if model.config.point_head == "depth":
        cache = PointCache(cache, DynamicCache())
        cache.point_state = torch.randn(1, 1, model.config.hidden_size, **place)
    states = torch.randn(1, CONDITIONING, CONDITIONING_SIZE, **place)
    rules = PointGrammar(layout, min_points=ENDLESS)
    body = torch.stack([torch.randint(*layout.slot_range(s), (context,)) for s in range(4)], 1)
    ids = torch.cat([torch.full((4,), layout.bos_token_id), body.flatten()])[None].to(model.device)
    stream = torch.Generator(model.device)

    def measure() -> float:
        clock, seen = Clock(), cache.get_seq_length()
        is_whole = isinstance(cache, PointCache)
        model.generate(
            ids[:, : seen + 1],
            encoder_hidden_states=states,
            past_key_values=cache if is_whole else EncoderDecoderCache(cache, DynamicCache()),
            logits_processor=[rules, SeededSampling([stream], min_p=0.05)],
            do_sample=False,
            max_new_tokens=tokens,
            streamer=clock,
            output_hidden_states=-1,
            return_dict_in_generate=True,
        )
        return clock.seconds()

    return measure


def time_llama(
    model: LlamaForCausalLM, context: int, tokens: int, rounds: int, *, is_static: bool
) -> Callable:
    """Seconds per token of transformers, round by round."""
    count = context + CONDITIONING
    cache = DynamicCache(config=model.config)
    if is_static:
        cache = StaticCache(model.config, max_cache_len=count + rounds * tokens + 8)
    fill(cache, model, count)
    size = (1, count + rounds * tokens + 8)
    ids = torch.randint(model.config.vocab_size, size, device=model.device)

    def measure() -> float:
        clock = Clock()
        model.generate(
            ids[:, : int(cache.get_seq_length()) + 1],
            past_key_values=cache,
            do_sample=True,
            top_k=50,
            top_p=0.95,
            max_new_tokens=tokens,
            eos_token_id=None,
            pad_token_id=0,
            streamer=clock,
        )
        return clock.seconds()

    return measure


def fill_ring(ring: Store) -> None:
    """Normal numbers for keys and values."""
    numbers = torch.randn(1 << 10, 64)
    kinds = {np.dtype(np.float32): "exact", np.dtype(np.uint16): "bfloat16"}
    parts = store(numbers, kinds.get(ring.numbers.dtype, "int8"))
    for array, part in zip((ring.numbers, ring.scales), parts, strict=True):
        for start in range(0, array.size, part.size):
            piece = array[start : start + part.size]
            piece[:] = part.ravel()[: piece.size]


def time_compiled(
    model: PointGeneratorForCausalLM, context: int, *, weight_format: str, batch: int = 1
) -> Callable:
    """Seconds per token of the kernels, round by round."""
    states = torch.randn(1, CONDITIONING, CONDITIONING_SIZE).expand(batch, -1, -1)
    rules = PointGrammar(model.config.layout, min_points=ENDLESS, max_points=ENDLESS)
    decoder = CompiledDecoder(
        model,
        states,
        rules=build_rules(model.config.layout, rules, SeededSampling([], min_p=0.05)),
        seeds=range(batch),
        weight_format=weight_format,
    )
    fill_ring(decoder.memory.own)
    decoder.position = context // tokens_per_step(model.config)
    workers, pool = decoder._build_workers(), ThreadPoolExecutor()
    # The same few points after the context again and again: the position stays.
    rows = decoder._build_rows(POINTS, np.zeros((batch, tokens_per_step(model.config)), np.int64))

    def measure() -> float:
        start, count = now(), 0
        while count == 0 or now() - start < ROUND_SECONDS:
            count += decoder._run(pool, workers, rows)
        return (now() - start) / count

    measure()  # compiles
    return measure


@compile_kernel(counts_references=False)
def _choose_many(rules: tuple, draws: tuple, logits: np.ndarray, count: int) -> int:
    token = 0
    for i in range(count):
        token = choose(0, TOKENS_PER_POINT + i, rules, draws, logits)
    return token


def time_sampling(model: PointGeneratorForCausalLM) -> float:
    """Seconds per token of grammar and sampling alone, with logits that are all about alike."""
    layout = model.config.layout
    # The order is not kept: under such logits nothing would soon be left to choose from.
    grammar = PointGrammar(layout, min_points=ENDLESS, max_points=ENDLESS)
    rules = build_rules(layout, grammar, SeededSampling([], min_p=0.05))
    states = torch.zeros(1, CONDITIONING, CONDITIONING_SIZE)
    draws = CompiledDecoder(model, states, rules=rules, seeds=[0]).draws
    logits = np.random.default_rng(0).standard_normal(layout.vocab_size, dtype=np.float32)
    _choose_many(rules, draws, logits, TOKENS_PER_POINT)
    start, count = now(), 400
    _choose_many(rules, draws, logits, count)
    return (now() - start) / count
