# SPDX-License-Identifier: Apache-2.0
"""The training loop that all stages share: steps, checkpoints, exact resumption, a log.

Every row draws from a random stream of its own, made from the seed and the numbers of the step and
the row. So a resumed run needs no random state for its data to go on exactly as an unbroken one,
and P processes draw the same global batch as one. Dropout draws from the global state, which the
checkpoints hold.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..geometry.number_checks import check_integer, check_number
from .checkpoints import check_figure, check_weights, restore_latest, save_checkpoint
from .ema import WeightAverage
from .run_log import StepLog, Tracker, check_tracker, finish_trackers, start_trackers
from .run_settings import keep_settings
from .sharding import gather_weights, unsharded, whole

logger = logging.getLogger(__name__)

Batch = dict[str, Tensor | list]
# (rows of the global batch that this process makes, its random stream) -> batch
MakeBatch = Callable[[torch.Tensor, torch.Generator], Batch]
# A mean; or a sum and how many it is over, the mean then being taken over the global batch.
Loss = Tensor | tuple[Tensor, Tensor]

# Least and largest values of the settings of a run.
COUNTS = {
    "max_steps": (1, 10**9), "batch_size": (1, 2**20), "save_steps": (1, 10**9),
    "accumulation_steps": (1, 2**16), "eval_steps": (0, 10**9), "sample_steps": (0, 10**9),
    "window_step": (0, 2**30), "warmup_steps": (0, 10**9), "num_workers": (0, 1024),
    "num_eval_people": (1, 10**6), "num_sample_points": (1, 2**22), "seed": (0, 2**32 - 1),
}  # fmt: skip
RATES = {
    "weight_decay": (0, 1e3), "ema_decay": (0, 1), "adam_beta2": (0, 1), "learning_rate": (0, 1e3),
    "final_learning_rate": (0, 1), "max_grad_norm": (0, 1e9),
}  # fmt: skip
CHOICES = {
    "schedule": ("cosine", "constant"),
    "mixed_precision": ("no", "fp16", "bf16"),
    "tracker": get_args(Tracker),
}


@dataclass(frozen=True)
class LoopConfig:
    """How long, how fast, and where to."""

    output_dir: str
    max_steps: int = 1000
    batch_size: int = 4  # over all processes and accumulated parts
    accumulation_steps: int = 1  # parts that a process's rows are computed in, to save memory

    # AdamW; the paper uses a learning rate of 1e-4
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    adam_beta2: float = 0.98
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = 50
    final_learning_rate: float = 0.05  # share of the peak that the cosine ends at
    max_grad_norm: float = 1.0
    ema_decay: float = 0.0  # of the average of the weights; 0 keeps those of the last step

    mixed_precision: str = "no"
    save_steps: int = 500
    seed: int = 0
    num_workers: int = 0
    show_progress: bool = True
    tracker: Tracker = "none"

    # the generator's; 0 is never, and windows that begin at any point
    eval_steps: int = 0
    sample_steps: int = 0
    num_eval_people: int = 16
    num_sample_points: int = 1024  # most points of a cloud that is drawn
    window_step: int = 0  # tokens from the start of a window to that of the next

    def __post_init__(self) -> None:
        for name, (low, high) in COUNTS.items():
            check_integer(name, getattr(self, name), low, high)
        for name, (low, high) in RATES.items():
            check_number(name, getattr(self, name), low, high)
        for name in ("learning_rate", "max_grad_norm"):
            check_number(name, getattr(self, name), 0, above=True)
        for name in ("ema_decay", "adam_beta2"):
            if not getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie in [0, 1), got {getattr(self, name)}.")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(map(repr, known))}, got "
                    f"{getattr(self, name)!r}."
                )


@dataclass(frozen=True)
class Periodic:
    """What is done with the model every so many steps and at the end; nothing if `every` is 0.

    Args:
        every: Steps.
        run: Gets the model, unwrapped, in evaluation mode and with averaged weights if there are
            any, and the number of steps taken. Returns figures for the log. Runs on all processes.
    """

    every: int
    run: Callable[[nn.Module, int], dict[str, float]]

    def is_due(self, done: int, config: LoopConfig) -> bool:
        """Whether it is done after so many steps."""
        return self.every > 0 and (done % self.every == 0 or done == config.max_steps)


class StepBatches(Dataset):
    """Batches by the number of their step."""

    def __init__(
        self, make_batch: MakeBatch, num_rows: int, config: LoopConfig, rank: int, world: int
    ) -> None:
        if config.batch_size % (world * config.accumulation_steps):
            raise ValueError(
                f"`batch_size` ({config.batch_size}) must be a multiple of the number of "
                f"processes ({world}) times `accumulation_steps` ({config.accumulation_steps})."
            )
        self.make_batch, self.num_rows, self.config = make_batch, num_rows, config
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return self.config.max_steps

    def __getitem__(self, step: int) -> list[Batch]:
        # One stream per row, not per process: the rows do not depend on who makes them.
        samples = []
        for row in range(self.rank, self.config.batch_size, self.world):
            stream = (self.config.seed * 1_000_003 + step) * 4099 + row
            generator = torch.Generator().manual_seed(stream % 2**63)
            index = torch.randint(self.num_rows, (1,), generator=generator)
            samples.append(self.make_batch(index, generator))
        return samples


def learning_rate_factor(step: int, config: LoopConfig) -> float:
    """Linear warm-up, then constant, or a cosine down to `final_learning_rate`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    span = max(config.max_steps - config.warmup_steps, 1)
    progress = min((step - config.warmup_steps) / span, 1.0)
    low = config.final_learning_rate
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))


def train(
    model: nn.Module,
    make_batch: MakeBatch,
    collate: Callable[[list[Batch]], Batch],
    num_rows: int,
    config: LoopConfig,
    periodic: Sequence[Periodic] = (),
) -> nn.Module:
    """Trains a model whose forward takes a batch and returns its losses.

    Checkpoints go to `output_dir/checkpoints`, the log to `output_dir/log.jsonl`. If there is a
    checkpoint, the run goes on from it.

    Args:
        model: `forward(**batch) -> dict` of `Loss`, of which "loss" is minimised.
        make_batch: Makes a row of a batch from its index in the data set and a random stream.
        collate: Joins rows.
        num_rows: Rows of the data set.
        config: See there.
        periodic: Done after the step and before its row is logged.

    Returns:
        The trained model, unwrapped, with averaged weights if `ema_decay` is set.

    Raises:
        FloatingPointError: The loss, a gradient or a weight became NaN or infinite; the weights
            are then not saved.
        ValueError: The run began with other settings.
    """
    check_tracker(config.tracker)
    output_dir = Path(config.output_dir)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        step_scheduler_with_optimizer=False,
        log_with=None if config.tracker == "none" else config.tracker,
        project_dir=str(output_dir),
    )
    set_seed(config.seed)
    optimizer, scheduler = build_optimizer(model, config)
    batches = StepBatches(
        make_batch, num_rows, config, accelerator.process_index, accelerator.num_processes
    )
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    inner = accelerator.unwrap_model(model)
    average = WeightAverage(inner, config.ema_decay) if config.ema_decay else None
    first = begin_run(accelerator, config, average)
    log = StepLog(output_dir / "log.jsonl", first, accelerator)
    bar = tqdm(
        total=config.max_steps,
        initial=first,
        disable=not (config.show_progress and accelerator.is_main_process),
    )
    model.train()
    with bar:
        for step, parts in enumerate(load_batches(batches, collate, config, first), start=first):
            means = compute_gradients(accelerator, model, parts)
            check_figure("loss", means["loss"], step)
            norm = accelerator.clip_grad_norm_(inner.parameters(), config.max_grad_norm)
            row = {"step": step, **means, "grad_norm": float(whole(norm))}
            # In float16 a gradient that overflows is skipped, and the scale lowered.
            if config.mixed_precision != "fp16":
                check_figure("gradient", row["grad_norm"], step)
            row["learning_rate"] = scheduler.get_last_lr()[0]
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            if average is not None:
                average.update(step)
            due = [job for job in periodic if job.is_due(step + 1, config)]
            log.write({**row, **run_periodic(due, model, inner, average, step + 1)})
            bar.update()
            bar.set_postfix(loss=f"{means['loss']:.4f}")
            if (step + 1) % config.save_steps == 0 or step + 1 == config.max_steps:
                check_weights(inner, average, step)
                save_checkpoint(accelerator, output_dir, step + 1, average)
    finish_trackers(accelerator)
    if average is not None:
        average.store()
    gather_weights(inner)
    return inner


def begin_run(accelerator: Accelerator, config: LoopConfig, average: WeightAverage | None) -> int:
    """Goes on from the newest checkpoint, if there is one; the number of steps taken before."""
    output_dir = Path(config.output_dir)
    first = restore_latest(accelerator, output_dir, average)
    if first or accelerator.is_main_process:
        keep_settings(asdict(config), output_dir, is_new=first == 0)
    start_trackers(accelerator, first)
    return first


def build_optimizer(
    model: nn.Module, config: LoopConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW over the weights that are trained, and its schedule."""
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=config.learning_rate,
        betas=(0.9, config.adam_beta2),
        weight_decay=config.weight_decay,
    )
    factor = partial(learning_rate_factor, config=config)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def load_batches(
    batches: StepBatches,
    collate: Callable[[list[Batch]], Batch],
    config: LoopConfig,
    first: int,
) -> DataLoader:
    """The parts of each step's rows, from step `first` on."""

    def collate_parts(rows: list[Batch]) -> list[Batch]:
        size = len(rows) // config.accumulation_steps
        return [collate(rows[i : i + size]) for i in range(0, len(rows), size)]

    return DataLoader(
        batches,
        sampler=range(first, config.max_steps),
        batch_size=None,
        collate_fn=collate_parts,
        num_workers=config.num_workers,
        # Otherwise each start would draw from the global state, and a resumed run go other ways.
        generator=torch.Generator(),
    )


def compute_gradients(
    accelerator: Accelerator, model: nn.Module, parts: list[Batch]
) -> dict[str, float]:
    """Leaves the gradients of the mean loss of the global batch, and returns its mean losses.

    Sums are propagated, and divided by the number of what they are over when that is known of all
    parts and processes: otherwise rows with few labels would weigh as much as others.
    """
    totals: dict[str, Tensor] = {}
    for i, part in enumerate(parts):
        is_last = i + 1 == len(parts)
        with nullcontext() if is_last else accelerator.no_sync(model):
            losses = model(**_to_device(part, accelerator.device))
            pairs = {name: _as_sum(loss) for name, loss in losses.items()}
            accelerator.backward(pairs["loss"][0])
        for name, (total, count) in pairs.items():
            pair = torch.stack([total.detach(), count.to(total.dtype)])
            totals[name] = totals[name] + pair if name in totals else pair
    sums = accelerator.reduce(torch.stack(list(totals.values())), "sum")
    counted = dict(zip(totals, sums.tolist(), strict=True))
    # Processes average their gradients, so what is left is the mean count of a process.
    divisor = counted["loss"][1] / accelerator.num_processes
    for parameter in model.parameters():
        if parameter.grad is not None and divisor != 1:
            parameter.grad.div_(divisor)
    return {name: total / count for name, (total, count) in counted.items() if count}


def run_periodic(
    due: list[Periodic],
    model: nn.Module,
    inner: nn.Module,
    average: WeightAverage | None,
    done: int,
) -> dict[str, float]:
    """Figures of what is due, leaving modes, weights and the global random state as they were."""
    if not due:
        return {}
    figures: dict[str, float] = {}
    model.eval()
    with (
        torch.no_grad(),
        torch.random.fork_rng(),
        average.applied() if average is not None else nullcontext(),
        unsharded(inner),
    ):
        for job in due:
            figures.update(job.run(inner, done))
    model.train()
    return figures


def _as_sum(loss: Loss) -> tuple[Tensor, Tensor]:
    return loss if isinstance(loss, tuple) else (loss, torch.ones_like(loss))


def _to_device(batch: Batch, device: torch.device) -> Batch:
    def move(value: object) -> object:
        return value.to(device) if hasattr(value, "to") else value

    return {name: move(value) for name, value in batch.items()}
