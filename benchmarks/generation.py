# SPDX-License-Identifier: Apache-2.0
"""How fast are point tokens decoded on this CPU?

python benchmarks/generation.py [--num_threads N] [--cpu_time] [--output FILE]

Compares, in one run, the engines of the point generator with transformers' `generate` on a Llama
that reads as many bytes per token: its feed-forward network is wider by what our cross-attention
weighs, and its context longer by our conditioning tokens. Generators with the depth head have the
same large transformer, and a small one beside it. Weights are random; caches are filled with random
numbers up to the context, so that no minutes go by until it is reached. A batch holds avatars of
one portrait, which share its conditioning, and is compared with one Llama. Medians of interleaved
rounds; `--cpu_time` counts the seconds that one thread is given, for machines that others use too.

The roofline is the speed at which memory can be read, measured in the same run; what a step has to
read are the weights of its layers and of its slot's part of the head, and the keys and values. The
small transformer's weights are counted for each slot, although caches may keep them.
"""

from __future__ import annotations

import gc
import json
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import (
    Cache,
    DynamicCache,
    HfArgumentParser,
    LlamaConfig,
    LlamaForCausalLM,
    StaticCache,
)
from transformers.cache_utils import EncoderDecoderCache
from transformers.generation.streamers import BaseStreamer

from pointillist_hf import AvatarPipeline, PointGeneratorConfig, PointGeneratorForCausalLM
from pointillist_hf.decoding.cpu.decoder import CompiledDecoder, build_rules
from pointillist_hf.decoding.cpu.records import Store
from pointillist_hf.decoding.cpu.rounding import BLOCK
from pointillist_hf.decoding.cpu.sampling import choose
from pointillist_hf.decoding.cpu.weights import quantize_rows, store
from pointillist_hf.decoding.generation import (
    WEIGHT_FORMATS,
    PointGenerationOutput,
    generate_points,
)
from pointillist_hf.decoding.grammar import PointGrammar
from pointillist_hf.decoding.sampling import SeededSampling
from pointillist_hf.models.depth_point_head import PointCache
from pointillist_hf.models.ring_cache import RingCache
from pointillist_hf.models.tokenization_points import TOKENS_PER_POINT
from pointillist_hf.rendering.cpu.compilation import compile_kernel

CHECKPOINT = "model_cards/pointillist-tiny"
CONTEXTS = (256, 12_000)
CONDITIONING = 512  # tokens
CONDITIONING_SIZE = 256
# Layers, width, width of the feed-forward network, bins, faces. The first is the checkpoint's.
SIZES = ((4, 192, 512, 256, 3466), (8, 384, 1024, 1024, 10144), (12, 768, 2048, 1024, 10144))
BATCH = 4  # avatars of one portrait
POINTS, ROUND_SECONDS = 4, 0.1  # of a call of the kernels, of a round
ENDLESS = 10**6  # points


@dataclass
class Arguments:
    """Threads, rounds of each measurement, and where the figures go."""

    num_threads: int = 2
    cpu_time: bool = False
    rounds: int = 5
    tokens: int = 12  # of `generate` in a round; the compiled engines run for 0.1 seconds
    widths: list[int] = field(default_factory=lambda: [size[1] for size in SIZES])
    output: str = "outputs/generation.json"


now = time.perf_counter


class Clock(BaseStreamer):
    """The times at which tokens came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        """Takes the time."""
        self.times.append(now())

    def end(self) -> None:
        """Nothing more will come."""

    def seconds(self) -> float:
        """Per token, a median over whole points, tokens of a point not being equally dear.

        The first two tokens pay for the setting up.
        """
        times = np.array(self.times[2:])
        spans = times[TOKENS_PER_POINT:] - times[:-TOKENS_PER_POINT]
        return float(statistics.median(spans)) / TOKENS_PER_POINT


def build_model(size: tuple[int, ...], head: str = "flat") -> PointGeneratorForCausalLM:
    torch.manual_seed(0)
    layers, width, inner, bins, faces = size
    depth = {"loss_head": "typed", "depth_num_hidden_layers": max(layers // 4, 1)}
    config = PointGeneratorConfig(
        num_bins=bins,
        num_faces=faces,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=inner,
        cross_attention_size=CONDITIONING_SIZE,
        point_head=head,
        **(depth if head == "depth" else {}),
    )
    return PointGeneratorForCausalLM(config).eval()


def build_llama(size: tuple[int, ...]) -> LlamaForCausalLM:
    layers, width, inner, bins, faces = size
    config = LlamaConfig(
        vocab_size=bins + faces + 3,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=inner + 2 * width // 3,
        max_position_embeddings=2 * max(CONTEXTS),
    )
    return LlamaForCausalLM(config).eval()


def tokens_per_step(config: PointGeneratorConfig) -> int:
    """Tokens that the large transformer takes in at once."""
    return TOKENS_PER_POINT if config.point_head == "depth" else 1


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


def count_bytes(config: PointGeneratorConfig, context: int, weight: int, key: int) -> float:
    """What a token of one row makes us read, with so many bytes per weight and per key's number.

    Keys and values of one byte have a scale each.
    """
    width, inner, layout = config.hidden_size, config.intermediate_size, config.layout
    size = tokens_per_step(config)
    ranges = [layout.slot_range(slot) for slot in range(TOKENS_PER_POINT)]
    head = (sum(high - low for low, high in ranges) + 1) / TOKENS_PER_POINT
    layers = config.num_hidden_layers * (6 * width * width + 3 * width * inner)
    keys = 2 * config.num_hidden_layers * (context // size + CONDITIONING)
    scales = 4 * config.num_attention_heads if key == 1 else 0
    small = 0.0
    if config.point_head == "depth":
        width2, inner2 = config.depth_hidden_size, config.depth_intermediate_size
        layer = 4 * width2 * width2 + 3 * width2 * inner2
        small = config.depth_num_hidden_layers * layer + width * width2 * (1 + 1 / size)
    return weight * (layers / size + small + head * width) + keys * (key * width + scales) / size


def read_speed(rounds: int = 3) -> float:
    """Bytes per second that the threads can read from memory."""
    array = torch.ones(1 << 27)
    best = float("inf")
    for _ in range(rounds):
        start = now()
        array.sum()
        best = min(best, now() - start)
    return 4 * len(array) / best


def round_to_bfloat16(model: PointGeneratorForCausalLM) -> PointGeneratorForCausalLM:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    return model


def runners(size: tuple[int, ...], context: int, arguments: Arguments) -> Iterator[tuple]:
    """Name, measurement, rows, and configuration and bytes per weight and key, where they count."""
    llama = build_llama(size)
    tokens, rounds = arguments.tokens, arguments.rounds
    for name, is_static in (("llama", False), ("llama_static", True)):
        yield name, time_llama(llama, context, tokens, rounds, is_static=is_static), 1, None
    half = build_llama(size).bfloat16()
    yield "llama_bf16", time_llama(half, context, tokens, rounds, is_static=False), 1, None
    for head in ("flat", "depth"):
        model = build_model(size, head)
        config, stored = model.config, round_to_bfloat16(build_model(size, head))
        measure = time_reference(model, context, tokens)
        yield f"{head}_reference", measure, 1, (config, 4, 4)
        kinds = (
            (f"{head}_compiled", model, "exact", (4, 4)),
            (f"{head}_compiled_stored_bf16", stored, "exact", (2, 4)),
            (f"{head}_compiled_bfloat16", model, "bfloat16", (2, 2)),
            (f"{head}_compiled_int8", model, "int8", (1, 1)),
        )
        for name, network, kind, widths in kinds:
            measure = time_compiled(network, context, weight_format=kind)
            yield name, measure, 1, (config, *widths)
        for name, network, kind, _ in kinds if context == min(CONTEXTS) else ():
            measure = time_compiled(network, context, weight_format=kind, batch=BATCH)
            yield f"{name}_batch_{BATCH}", measure, BATCH, None


def compare(size: tuple[int, ...], context: int, arguments: Arguments) -> dict[str, object]:
    """All engines at one size and context, taking turns."""
    entries = list(runners(size, context, arguments))
    times: dict[str, list[float]] = defaultdict(list)
    speeds = []
    for _ in range(arguments.rounds):
        speeds.append(read_speed())
        for name, measure, _, _ in entries:
            times[name].append(measure())
    speed = max(speeds)
    rows = {}
    llama = statistics.median(times["llama"])
    for name, _, batch, reads in entries:
        seconds = statistics.median(times[name])
        row = {"tokens_per_s": round(batch / seconds, 1)}
        if not name.startswith("llama"):
            row["points_per_s"] = round(batch / seconds / 4, 1)
            row["times_llama"] = round(batch * llama / seconds, 1)
        if reads is not None:
            config, *widths = reads
            achieved = count_bytes(config, context, *widths) / seconds
            row["gb_per_s"] = round(achieved / 1e9, 1)
            row["of_roofline"] = round(achieved / speed, 2)
        rows[name] = row
    return {
        "layers": size[0],
        "width": size[1],
        "context": context,
        "read_gb_per_s": round(speed / 1e9, 1),
        "sampling_us_per_token": round(1e6 * time_sampling(build_model(size)), 1),
        "engines": rows,
    }


def round_blocks(states: Tensor) -> Tensor:
    """States as a rounded matrix meets them."""
    blocks = torch.nn.functional.pad(states, (0, -states.shape[-1] % BLOCK)).unflatten(
        -1, (-1, BLOCK)
    )
    scales = blocks.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return ((blocks / scales).round() * scales).flatten(-2)[..., : states.shape[-1]]


def round_head(head: Tensor, kind: str | None) -> Tensor:
    """The output matrix as an engine has it."""
    if kind == "bfloat16":
        return head.bfloat16().float()
    if kind == "int8":
        numbers, scales = quantize_rows(head)
        return torch.from_numpy(numbers * scales[:, None])
    return head


def divergence(
    model: PointGeneratorForCausalLM, cloud: PointGenerationOutput, states: Tensor, kind: str | None
) -> float:
    """Nats per point from what an engine draws from to what the model has there.

    Kullback's and Leibler's, at the tokens that the engine has drawn, ends among them; the first
    token of a cloud is left out.
    """
    layout, exact_head = model.config.layout, model.lm_head.weight
    head = round_head(exact_head, kind)
    found = model.model(cloud.input_ids, states).last_hidden_state
    found = found[:, TOKENS_PER_POINT:-TOKENS_PER_POINT].unflatten(1, (-1, TOKENS_PER_POINT))
    own = cloud.token_hidden_states
    own = round_blocks(own) if kind == "int8" else own
    is_real = torch.arange(own.shape[1]) < cloud.num_points[:, None]
    total = 0.0
    for slot in range(TOKENS_PER_POINT):
        rows = torch.arange(*layout.slot_range((slot + 1) % TOKENS_PER_POINT))
        if slot == TOKENS_PER_POINT - 1:
            rows = torch.cat([rows, torch.tensor([layout.eos_token_id])])
        q = (own[:, :, slot] @ head[rows].mT).log_softmax(-1)
        p = (found[:, :, slot] @ exact_head[rows].mT).log_softmax(-1)
        total += float(((q.exp() * (q - p)).sum(-1) * is_real).sum())
    return total / float(cloud.num_points.sum())


@torch.no_grad()
def check(num_clouds: int = 16) -> dict[str, object]:
    """On the checkpoint: do the engines agree, and how far off are the rounded ones?"""
    pipe = AvatarPipeline.from_pretrained(CHECKPOINT)
    _, context = pipe.encode_image(["examples/images/astronaut.jpg"])
    model = pipe.point_generator
    options = {"num_return_sequences": num_clouds, "max_points": 1400, "min_p": 0.0}
    states = context.repeat_interleave(num_clouds, 0)
    clouds = {
        engine: generate_points(model, context, engine=engine, **options)
        for engine in ("reference", *WEIGHT_FORMATS)
    }
    reference, found = clouds["reference"], clouds["compiled"]
    alike = [
        a == b and torch.equal(ids[: 4 * a + 4], others[: 4 * a + 4])
        for ids, others, a, b in zip(
            reference.input_ids,
            found.input_ids,
            reference.num_points.tolist(),
            found.num_points.tolist(),
            strict=True,
        )
    ]
    return {
        "clouds": num_clouds,
        "points": int(reference.num_points.sum()),
        "clouds_alike": sum(alike),
        "divergence_nats_per_point": {
            engine: round(divergence(model, cloud, states, WEIGHT_FORMATS.get(engine)), 6)
            for engine, cloud in clouds.items()
        },
    }


def main() -> None:
    global now
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    if arguments.cpu_time:
        arguments.num_threads, now = 1, time.thread_time
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(arguments.num_threads)
    tables = []
    for size in (size for size in SIZES if size[1] in arguments.widths):
        for context in CONTEXTS:
            tables.append(compare(size, context, arguments))
            print(json.dumps(tables[-1], indent=2), flush=True)
            gc.collect()
    figures = {
        "num_threads": arguments.num_threads,
        "clock": "cpu" if arguments.cpu_time else "wall",
        "conditioning_tokens": CONDITIONING,
        "speeds": tables,
        "agreement": check(),
        "machine": platform.processor() or platform.machine(),
        "avx512": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures["agreement"], indent=2))


if __name__ == "__main__":
    main()
