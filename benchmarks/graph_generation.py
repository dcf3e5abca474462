# SPDX-License-Identifier: Apache-2.0
"""How fast are point tokens decoded on a GPU, by recorded graphs and by transformers' `generate`?

python benchmarks/graph_generation.py [--sizes 100m 500m] [--contexts 256 12000] [--output FILE]

As `generation.py` does for the CPU: in one run, at equal numbers of bytes, with random weights in
bfloat16 and caches that are filled up to the context. The roofline is the speed at which the
device's memory is read in the same run. Whole avatars are generated with the most points that are
asked for, the window moving on, so that their seconds are measured and not worked out.

On a CPU it runs with `--recording eager` and a tiny size, which shows that it works, not how fast.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from engines.networks import CONDITIONING, CONDITIONING_SIZE, build_llama, build_model
from engines.roofline import count_bytes
from engines.timers import time_llama, time_reference
from torch import Tensor
from transformers import HfArgumentParser

from pointillist_hf import PointGeneratorForCausalLM
from pointillist_hf.decoding.grammar import PointGrammar
from pointillist_hf.decoding.graph_decoder import GraphDecoder
from pointillist_hf.decoding.sampling import SeededSampling
from pointillist_hf.models.tokenization_points import TOKENS_PER_POINT

# Layers, width, width of the feed-forward network, bins, faces: as in `generation.py`.
SIZES = {
    "2m": (4, 192, 512, 256, 3466),
    "100m": (12, 768, 2048, 1024, 10144),
    "500m": (20, 1280, 3520, 1024, 10144),
}
HEADS = ("flat", "depth")


@dataclass
class Arguments:
    """What is decoded where."""

    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    recording: str = "cuda-graph"
    sizes: list[str] = field(default_factory=lambda: ["100m", "500m"])
    contexts: list[int] = field(default_factory=lambda: [256, 12_000])
    rounds: int = 5
    tokens: int = 32  # of a round
    avatar_points: int = 20_000  # of a whole avatar; 0 leaves it out
    output: str = "outputs/graph_generation.json"


def wait(device: str) -> float:
    """The time when the device has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def build_decoder(
    model: PointGeneratorForCausalLM, max_points: int, arguments: Arguments
) -> GraphDecoder:
    layout, weight = model.config.layout, model.lm_head.weight
    states = torch.randn(1, CONDITIONING, CONDITIONING_SIZE).to(weight)
    return GraphDecoder(
        model,
        states,
        # The order is not kept: with random weights nothing would soon be left to choose from.
        grammar=PointGrammar(layout, min_points=max_points, max_points=max_points),
        sampling=SeededSampling([torch.Generator(weight.device)], min_p=0.05),
        recording=arguments.recording,
    )


def random_tokens(model: PointGeneratorForCausalLM, count: int) -> Tensor:
    """So many tokens of whole points. [count]"""
    layout = model.config.layout
    slots = [torch.randint(*layout.slot_range(s), (count // TOKENS_PER_POINT,)) for s in range(4)]
    return torch.stack(slots, dim=1).flatten().to(model.device)


def time_graphs(
    model: PointGeneratorForCausalLM, context: int, arguments: Arguments
) -> Callable[[], float]:
    """Seconds per token of the recorded steps behind so many tokens, round by round."""
    context -= context % TOKENS_PER_POINT
    rounds = arguments.rounds * arguments.tokens // TOKENS_PER_POINT
    decoder = build_decoder(model, context // TOKENS_PER_POINT + rounds + 8, arguments)
    pieces = decoder.decode()
    for _ in range(4):  # records all steps, and runs the recordings
        next(pieces)
    for layer in decoder.cache.self_attention_cache.layers:
        layer.keys.normal_(), layer.values.normal_()
    skipped = context + decoder.length % TOKENS_PER_POINT - decoder.length
    decoder.ids[:, decoder.length : decoder.length + skipped] = random_tokens(model, skipped)
    decoder.length += skipped
    decoder.position += skipped // decoder.tokens_per_step

    def measure() -> float:
        start, count = wait(arguments.device), 0
        while count < arguments.tokens:
            count += next(pieces)[0].shape[1]
        return (wait(arguments.device) - start) / count

    return measure


@torch.no_grad()
def time_avatar(model: PointGeneratorForCausalLM, arguments: Arguments) -> float:
    """Seconds for a whole avatar of the most points, the recording included."""
    decoder = build_decoder(model, arguments.avatar_points, arguments)
    start = wait(arguments.device)
    count = sum(tokens.shape[1] for tokens, _ in decoder.decode())
    seconds = wait(arguments.device) - start
    if count != TOKENS_PER_POINT * arguments.avatar_points + 1:
        raise RuntimeError(f"an avatar of {count} tokens is not what was asked for")
    return seconds


def read_speed(device: str) -> float:
    """Bytes per second that the device reads from its memory."""
    array = torch.ones(1 << (30 if device == "cuda" else 26), device=device)
    times = []
    for _ in range(6):
        start = wait(device)
        array.sum()
        times.append(wait(device) - start)
    return array.nbytes / min(times[1:])


def runners(size: str, context: int, arguments: Arguments) -> Iterator[tuple]:
    """Name, measurement, and configuration where bytes are counted."""
    place = {"device": arguments.device, "dtype": torch.bfloat16}
    tokens, rounds = arguments.tokens, arguments.rounds
    llama = build_llama(SIZES[size]).to(**place)
    yield "llama", time_llama(llama, context, tokens, rounds, is_static=False), None
    for head in HEADS:
        model = build_model(SIZES[size], head).to(**place)
        yield f"{head}_reference", time_reference(model, context, tokens), None
        yield f"{head}_graphs", time_graphs(model, context, arguments), model.config


@torch.no_grad()
def compare(size: str, context: int, arguments: Arguments) -> dict[str, object]:
    """All engines at one size and context, taking turns."""
    entries = list(runners(size, context, arguments))
    speed = read_speed(arguments.device)
    times = {name: [] for name, _, _ in entries}
    for _ in range(arguments.rounds):
        for name, measure, _ in entries:
            times[name].append(measure())
    seconds = {name: statistics.median(found) for name, found in times.items()}
    engines = {}
    for name, _, config in entries:
        engines[name] = {
            "tokens_per_s": round(1 / seconds[name], 1),
            "times_llama": round(seconds["llama"] / seconds[name], 1),
        }
        if config is not None:
            share = count_bytes(config, context, 2, 2) / seconds[name] / speed
            engines[name]["of_roofline"] = round(share, 3)
    return {
        "size": size,
        "context": context,
        "read_gb_per_s": round(speed / 1e9),
        "engines": engines,
    }


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    transformers.logging.set_verbosity_error()
    on_gpu = arguments.device == "cuda"
    figures = {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "recording": arguments.recording,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "speeds": [],
        "avatar_seconds": {},
    }
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    for size in arguments.sizes:
        for context in arguments.contexts:
            figures["speeds"].append(compare(size, context, arguments))
            print(json.dumps(figures["speeds"][-1], indent=2), flush=True)
        for head in HEADS if arguments.avatar_points else ():
            model = build_model(SIZES[size], head).to(arguments.device, torch.bfloat16)
            seconds = round(time_avatar(model, arguments), 1)
            figures["avatar_seconds"][f"{size}_{head}"] = seconds
            print(f"{size} {head}: {arguments.avatar_points} points in {seconds} s", flush=True)
        # After each size, so that a machine that goes away leaves something.
        output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
