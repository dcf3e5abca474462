# SPDX-License-Identifier: Apache-2.0
"""Which order of tokens, which head? python examples/ablate_generator.py --data D --components C.

Trains the four variants of the generator (order of the tokens x head) with as many weights, as many
steps and several seeds on one data set, and scores people they have not seen. Writes OUTPUT.json
and OUTPUT.svg; run the same command again to go on where it stopped. The image encoder is that of
COMPONENTS, a trained pipeline or the output of the regressor stage, and stays as it is.

Equal steps: the last figures of all runs. Equal seconds: those at the moment when the fastest
variant had taken all its steps. The schedule is constant and the weights are averaged, so that the
figures of a run on its way are those of a run that ends there.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn
from transformers import HfArgumentParser

from pointillist_hf import (
    AvatarConditioner,
    PointGeneratorConfig,
    PointGeneratorForCausalLM,
    RigRegressor,
)
from pointillist_hf.exporters.atomic_file import write_atomically
from pointillist_hf.training.dataset import People, load_people, with_token_order
from pointillist_hf.training.generator_checks import validate_generator
from pointillist_hf.training.loop import LoopConfig, Periodic
from pointillist_hf.training.recipes import (
    build_conditioner_config,
    build_generator_config,
    build_image_processor,
)
from pointillist_hf.training.train_generator import embed_geometry, train_generator

ORDERS, HEADS = ("xyzb", "yzxb"), ("flat", "depth")
COLORS = {"flat-xyzb": "#9a3324", "flat-yzxb": "#e08a3c", "depth-xyzb": "#2a5b84"}
COLORS["depth-yzxb"] = "#3fa7a0"


@dataclass
class Arguments:
    """On what, how long, how often."""

    data: str
    components: str = "model_cards/pointillist-tiny"
    output: str = "outputs/generator_variants"
    size: str = "tiny"  # its generator is the flat one that the depth heads are matched to
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    variants: list[str] = field(default_factory=lambda: [f"{h}-{o}" for o in ORDERS for h in HEADS])
    max_steps: int = 1000
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    ema_decay: float = 0.99
    eval_steps: int = 100
    num_eval_people: int = 16
    mixed_precision: str = "no"


class Stopwatch:
    """Seconds of training, without the looks at held-out people, also across resumptions.

    On CPUs these are seconds of the processor: what else the machine does shall not count.
    """

    def __init__(self, log: Path) -> None:
        self.clock = time.perf_counter if torch.cuda.is_available() else time.process_time
        rows = read_rows(log)
        self.steps = {row["done"]: row["train_seconds"] for row in rows if "done" in row}
        self.total, self.started = 0.0, self.clock()

    def look(self, done: int) -> float:
        """Seconds so far, after so many steps."""
        if done in self.steps:  # taken again after a resumption: what was noted then is right
            self.total = self.steps[done]
        else:
            before = [seconds for step, seconds in self.steps.items() if step < done]
            self.total = max([self.total, *before]) + self.clock() - self.started
        return self.total


def build_matched_config(size: str, head: str, people: People) -> PointGeneratorConfig:
    """The flat generator of a size, or a depth one with as many weights but for a thousandth."""
    flat = build_generator_config(size, people.tokenizer)
    if head == "flat":
        return flat
    target, best = count_weights(flat), None
    for width in range(8, 4 * flat.hidden_size, 8):
        changes = {
            "num_hidden_layers": max(flat.num_hidden_layers - 1, 1),
            "depth_num_hidden_layers": 1,
            "depth_intermediate_size": width,
            "point_head": "depth",
            "loss_head": "typed",
        }
        config = PointGeneratorConfig(**{**flat.to_diff_dict(), **changes})
        gap = abs(count_weights(config) - target)
        if best is not None and gap > best[0]:
            break
        best = (gap, config)
    return best[1]


def count_weights(config: PointGeneratorConfig) -> int:
    """Numbers that a generator learns."""
    with torch.device("meta"):
        return sum(p.numel() for p in PointGeneratorForCausalLM(config).parameters())


def load_image_encoder(folder: Path) -> nn.Module:
    """Of a trained pipeline, or of the regressor where nothing else is trained yet."""
    if (folder / "conditioner").is_dir():
        return AvatarConditioner.from_pretrained(folder / "conditioner").image_encoder
    return RigRegressor.from_pretrained(folder / "rig_regressor").image_encoder


def train_variant(
    variant: str, seed: int, splits: tuple[People, People], folder: Path, arguments: Arguments
) -> int:
    """Trains one variant with one seed, or what is left of it. Returns its number of weights."""
    head, order = variant.split("-")
    train, test = (with_token_order(people, order) for people in splits)
    processor = build_image_processor(arguments.size)
    torch.manual_seed(seed)
    conditioner = AvatarConditioner(build_conditioner_config(arguments.size, train.tokenizer))
    trained = load_image_encoder(Path(arguments.components))
    conditioner.image_encoder.load_state_dict(trained.state_dict())
    conditioner.image_encoder.requires_grad_(False)
    generator = PointGeneratorForCausalLM(build_matched_config(arguments.size, head, train))
    embed_geometry(generator, train.tokenizer, train.rig)
    watch = Stopwatch(folder / "log.jsonl")

    def look(model: nn.Module, done: int) -> dict[str, float]:
        seconds = watch.look(done)
        figures = validate_generator(model, test, processor, arguments.num_eval_people)
        watch.started = watch.clock()
        return {"done": done, "train_seconds": seconds, **figures}

    names = ("max_steps", "batch_size", "learning_rate", "warmup_steps", "ema_decay")
    loop = LoopConfig(
        output_dir=str(folder),
        schedule="constant",
        mixed_precision=arguments.mixed_precision,
        save_steps=arguments.eval_steps,
        seed=seed,
        **{name: getattr(arguments, name) for name in names},
    )
    checks = [Periodic(arguments.eval_steps, look)]
    train_generator(conditioner, generator, train, processor, loop, checks)
    return sum(p.numel() for p in generator.parameters())


def read_rows(log: Path) -> list[dict]:
    """The steps of a run, without one that was cut off."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def summarize(curves: dict[str, dict[str, list[dict]]]) -> dict[str, object]:
    """Nats per point of every variant and seed, at equal steps and at equal seconds."""
    done = {
        variant: {seed: curve for seed, curve in seeds.items() if curve}
        for variant, seeds in curves.items()
    }
    steps = min(curve[-1]["done"] for seeds in done.values() for curve in seeds.values())
    seconds = min(curve[-1]["train_seconds"] for seeds in done.values() for curve in seeds.values())
    return {
        "steps": steps,
        "seconds": seconds,
        "nats_per_point_at_steps": read_off(done, "done", steps),
        "nats_per_point_at_seconds": read_off(done, "train_seconds", seconds),
    }


def read_off(curves: dict, axis: str, place: float) -> dict[str, dict[str, float]]:
    """Where the curves are at a place of an axis, between two looks on a straight line."""
    found: dict[str, dict[str, float]] = {}
    for variant, seeds in curves.items():
        for seed, curve in seeds.items():
            after = next(i for i, row in enumerate(curve) if row[axis] >= place)
            low, high = curve[max(after - 1, 0)], curve[after]
            span = high[axis] - low[axis]
            share = (place - low[axis]) / span if span > 0 else 0.0
            value = low["nats_per_point"] * (1 - share) + high["nats_per_point"] * share
            found.setdefault(variant, {})[seed] = value
    return found


def draw_figure(curves: dict[str, dict[str, list[dict]]], path: Path) -> None:
    """Held-out nats per point over steps and over seconds, a line per run, as SVG."""
    rows = [row for seeds in curves.values() for curve in seeds.values() for row in curve]
    low, high = (f(row["nats_per_point"] for row in rows) for f in (min, max))
    parts = []
    for panel, (axis, title) in enumerate((("done", "steps"), ("train_seconds", "seconds"))):
        left, top, width, height = 60 + 380 * panel, 20, 320, 240
        right = max(row[axis] for row in rows)
        parts.append(
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" '
            f'stroke="#bbb"/><text x="{left + width / 2}" y="{top + height + 32}" '
            f'text-anchor="middle">{title} of training, up to {right:.0f}</text>'
        )
        for variant, seeds in curves.items():
            for curve in seeds.values():
                points = " ".join(
                    f"{left + width * row[axis] / right:.1f},"
                    f"{top + height * (high - row['nats_per_point']) / (high - low or 1):.1f}"
                    for row in curve
                )
                parts.append(
                    f'<polyline points="{points}" fill="none" stroke="{COLORS[variant]}" '
                    'stroke-width="1.5"/>'
                )
    for value, y in ((high, 24), (low, 260)):
        parts.append(f'<text x="54" y="{y}" text-anchor="end">{value:.2f}</text>')
    parts.append('<text x="14" y="140" transform="rotate(-90 14 140)">nats per point</text>')
    for i, variant in enumerate(curves):
        parts.append(f'<text x="{70 + 120 * i}" y="316" fill="{COLORS[variant]}">{variant}</text>')
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 780 330" font-family="sans-serif" '
        f'font-size="12"><rect width="780" height="330" fill="white"/>{"".join(parts)}</svg>\n'
    )
    write_atomically(path, lambda partial: partial.write_text(svg))


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    unknown = sorted({*arguments.variants} - {*COLORS})
    if unknown:
        raise SystemExit(f"--variants must be of {', '.join(COLORS)}, got {unknown[0]!r}.")
    output = Path(arguments.output)
    splits = (load_people(arguments.data, "train"), load_people(arguments.data, "test"))
    curves: dict[str, dict[str, list[dict]]] = {variant: {} for variant in arguments.variants}
    weights = {}
    for seed in arguments.seeds:
        for variant in arguments.variants:
            folder = output / f"{variant}-{seed}"
            weights[variant] = train_variant(variant, seed, splits, folder, arguments)
            rows = [row for row in read_rows(folder / "log.jsonl") if "done" in row]
            curves[variant][str(seed)] = rows
            result = {"weights": weights, **summarize(curves), "curves": curves}
            text = json.dumps({"arguments": asdict(arguments), **result}, indent=1)
            path = output.with_suffix(".json")
            write_atomically(path, lambda partial, text=text: partial.write_text(text + "\n"))
            draw_figure(curves, output.with_suffix(".svg"))
            print(variant, seed, f"{rows[-1]['nats_per_point']:.3f} nats per point")


if __name__ == "__main__":
    main()
