# SPDX-License-Identifier: Apache-2.0
"""How fast are point tokens decoded on this CPU?

python benchmarks/generation.py [--num_threads N] [--cpu_time] [--output FILE]

Compares, in one run, the engines of the point generator with transformers' `generate` on a Llama
that reads as many bytes per token: its feed-forward network is wider by what our cross-attention
weighs, and its context longer by our conditioning tokens. Generators with the depth head have the
same large transformer, and a small one beside it. A batch holds avatars of one portrait, which
share its conditioning, and is compared with one Llama. Medians of interleaved rounds; `--cpu_time`
counts the seconds that one thread is given, for machines that others use too. Last come whole
clouds of a generator that reads the tracked head (`--anchored_only`: nothing else).

The roofline is the speed at which memory can be read, measured in the same run. What is built,
timed and counted stands in `decoding/`.
"""

from __future__ import annotations

import gc
import json
import platform
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from engines.agreement import check
from engines.avatars import measure_anchored
from engines.clock import count_cpu_time
from engines.networks import CONDITIONING, CONTEXTS, build_llama, build_model, round_to_bfloat16
from engines.roofline import count_bytes, read_speed
from engines.timers import time_compiled, time_llama, time_reference, time_sampling
from transformers import HfArgumentParser

# Layers, width, width of the feed-forward network, bins, faces. The first is the checkpoint's.
SIZES = ((4, 192, 512, 256, 3466), (8, 384, 1024, 1024, 10144), (12, 768, 2048, 1024, 10144))
BATCH = 4  # avatars of one portrait


@dataclass
class Arguments:
    """Threads, rounds of each measurement, and where the figures go."""

    num_threads: int = 2
    cpu_time: bool = False
    rounds: int = 5
    tokens: int = 12  # of `generate` in a round; the compiled engines run for 0.1 seconds
    widths: list[int] = field(default_factory=lambda: [size[1] for size in SIZES])
    anchored_only: bool = False  # clouds of a generator that reads the tracked head, and no more
    output: str = "outputs/generation.json"


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


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    if arguments.cpu_time:
        arguments.num_threads = 1
        count_cpu_time()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(arguments.num_threads)
    if arguments.anchored_only:
        print(json.dumps(measure_anchored(arguments.rounds), indent=2))
        return
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
        "anchored": measure_anchored(arguments.rounds),
        "agreement": check(),
        "machine": platform.processor() or platform.machine(),
        "avx512": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures["agreement"], indent=2))


if __name__ == "__main__":
    main()
