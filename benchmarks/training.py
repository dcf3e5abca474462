# SPDX-License-Identifier: Apache-2.0
"""How fast is the point generator trained, and how much of the device does that use?

python benchmarks/training.py [--device cuda] [--sizes 100m 500m --window 12000] [--output FILE]

Steps of AdamW on random windows in bfloat16, both heads taking turns; medians. The share is that of
the speed at which the same device multiplies large matrices in the same run. Counted are the
multiplications that training needs, not those that activation checkpointing does again, and half of
the attention, because it is causal.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import HfArgumentParser

from pointillist_hf import PointGeneratorConfig, PointGeneratorForCausalLM

# Layers, width, width of the feed-forward network.
SIZES = {"2m": (4, 192, 512), "16m": (8, 384, 1024), "100m": (12, 768, 2048)}
SIZES["500m"] = (20, 1280, 3520)
HEADS = ("flat", "depth")
WARM_UP_STEPS = 2


@dataclass
class Arguments:
    """What is trained where. The defaults suit a CPU."""

    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    sizes: list[str] = field(default_factory=lambda: ["2m", "16m"])
    window: int = 1024  # tokens
    conditioning: int = 97  # tokens
    batch_size: int = 2
    steps: int = 5
    checkpoint_activations: bool = False
    output: str = "outputs/training.json"


def build_model(size: str, head: str, arguments: Arguments) -> PointGeneratorForCausalLM:
    layers, width, inner = SIZES[size]
    config = PointGeneratorConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=inner,
        cross_attention_size=width,
        sliding_window=arguments.window,
        loss_head="typed",
        point_head=head,
        depth_num_hidden_layers=max(layers // 8, 1),
    )
    torch.manual_seed(0)
    model = PointGeneratorForCausalLM(config).to(arguments.device)
    if arguments.checkpoint_activations:
        model.activation_checkpointing_enable()
    return model.train()


def build_batch(config: PointGeneratorConfig, arguments: Arguments) -> dict[str, Tensor]:
    """Windows from the middle of clouds: random, of valid tokens."""
    rows, points = arguments.batch_size, arguments.window // 4
    slots = [torch.randint(*config.layout.slot_range(s), (rows, points)) for s in range(4)]
    ids = torch.stack(slots, dim=2).flatten(1)
    states = torch.randn(rows, arguments.conditioning, config.cross_attention_size)
    batch = {"input_ids": ids, "labels": ids, "encoder_hidden_states": states}
    return {name: tensor.to(arguments.device) for name, tensor in batch.items()}


def count_flops(config: PointGeneratorConfig, arguments: Arguments) -> float:
    """Of a step over a batch: multiplications and additions, backward being twice forward."""
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    tokens, conditioning = arguments.window, arguments.conditioning
    steps = tokens if config.point_head == "flat" else tokens // 4
    matrices = layers * (6 * width * width + 3 * width * inner) * steps
    matrices += layers * 2 * width * config.cross_attention_size * conditioning
    attention = layers * 2 * width * steps * (steps / 2 + conditioning)
    heads = sum(high - low for low, high in map(config.layout.slot_range, range(4))) + 1
    matrices += heads * width * tokens / 4
    if config.point_head == "depth":
        small, inner = config.depth_hidden_size, config.depth_intermediate_size
        layer = 4 * small * small + 3 * small * inner + 2 * 4 * small
        matrices += tokens * (config.depth_num_hidden_layers * layer + small * width)
        matrices += steps * (4 * width * width + 4 * small * width)
    return 3 * 2 * arguments.batch_size * (matrices + attention)


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def clock(work: Callable[[], object], device: str) -> float:
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def build_step(size: str, head: str, arguments: Arguments) -> tuple[Callable[[], None], dict]:
    """A step of training, and what is known of it beforehand."""
    model = build_model(size, head, arguments)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    batch = build_batch(model.config, arguments)
    device = torch.device(arguments.device).type

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = model(**batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    weights = sum(parameter.numel() for parameter in model.parameters())
    return step, {"weights": weights, "flops": count_flops(model.config, arguments)}


def matrix_speed(device: str) -> float:
    """Operations per second on large matrices in bfloat16."""
    side = 8192 if device.startswith("cuda") else 1536
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = [clock(lambda: a @ b, device) for _ in range(6)]
    return 2 * side**3 / min(times)


def compare(size: str, arguments: Arguments) -> list[dict[str, object]]:
    """Both heads at one size, taking turns."""
    steps = {head: build_step(size, head, arguments) for head in HEADS}
    times: dict[str, list[float]] = {head: [] for head in HEADS}
    for turn in range(WARM_UP_STEPS + arguments.steps):
        for head, (step, _) in steps.items():
            seconds = clock(step, arguments.device)
            if turn >= WARM_UP_STEPS:
                times[head].append(seconds)
    speed = matrix_speed(arguments.device)
    rows = []
    for head, (_, known) in steps.items():
        seconds = statistics.median(times[head])
        row = {"size": size, "head": head, "weights": known["weights"]}
        row["steps_per_s"] = round(1 / seconds, 3)
        row["tokens_per_s"] = round(arguments.batch_size * arguments.window / seconds)
        row["of_matrix_speed"] = round(known["flops"] / seconds / speed, 3)
        rows.append(row)
    return rows


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    unknown = sorted({*arguments.sizes} - {*SIZES})
    if unknown:
        raise SystemExit(f"--sizes must be of {', '.join(SIZES)}, got {unknown[0]!r}.")
    rows = []
    for size in arguments.sizes:
        rows += compare(size, arguments)
        print(*map(json.dumps, rows[-len(HEADS) :]), sep="\n", flush=True)
    on_gpu = arguments.device.startswith("cuda")
    figures = {
        "rows": rows,
        "window": arguments.window,
        "batch_size": arguments.batch_size,
        "device": torch.cuda.get_device_name()
        if on_gpu
        else torch.backends.cpu.get_cpu_capability(),
        "num_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
