# SPDX-License-Identifier: Apache-2.0
"""The training loop that all stages share: steps, checkpoints, exact resumption, a log.

Every step draws from a random stream of its own, made from the seed and the step's number. So a
resumed run needs no random state to go on exactly as an unbroken one, and P processes draw the
same global batch as one.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

logger = logging.getLogger(__name__)

Batch = dict[str, Tensor | list]
# (rows of the global batch that this process makes, its random stream) -> batch
MakeBatch = Callable[[torch.Tensor, torch.Generator], Batch]


@dataclass(frozen=True)
class LoopConfig:
    """How long, how fast, and where to."""

    output_dir: str
    max_steps: int = 1000
    batch_size: int = 4  # over all processes

    # AdamW; the paper uses a learning rate of 1e-4
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    adam_beta2: float = 0.98
    warmup_steps: int = 50
    final_learning_rate: float = 0.05  # share of the peak that the cosine ends at
    max_grad_norm: float = 1.0

    mixed_precision: str = "no"
    save_steps: int = 500
    seed: int = 0
    num_workers: int = 0
    show_progress: bool = True

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_size", "save_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")


class StepBatches(Dataset):
    """Batches by the number of their step."""

    def __init__(
        self, make_batch: MakeBatch, num_rows: int, config: LoopConfig, rank: int, world: int
    ) -> None:
        if config.batch_size % world:
            raise ValueError(
                f"`batch_size` ({config.batch_size}) must be a multiple of the number of "
                f"processes ({world})."
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
    """Linear warm-up, then a cosine down to `final_learning_rate`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
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
) -> nn.Module:
    """Trains a model whose forward takes a batch and returns its losses.

    Checkpoints go to `output_dir/checkpoints`, the log to `output_dir/log.jsonl`. If there is a
    checkpoint, the run goes on from it.

    Args:
        model: `forward(**batch) -> dict` of scalars, of which "loss" is minimised.
        make_batch: Makes a row of a batch from its index in the data set and a random stream.
        collate: Joins rows.
        num_rows: Rows of the data set.
        config: See there.

    Returns:
        The trained model, unwrapped.

    Raises:
        FloatingPointError: The loss became NaN or infinite.
    """
    output_dir = Path(config.output_dir)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, step_scheduler_with_optimizer=False
    )
    set_seed(config.seed)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable,
        lr=config.learning_rate,
        betas=(0.9, config.adam_beta2),
        weight_decay=config.weight_decay,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, config)
    )
    batches = StepBatches(
        make_batch, num_rows, config, accelerator.process_index, accelerator.num_processes
    )
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    first = restore_latest(accelerator, output_dir)
    log = StepLog(output_dir / "log.jsonl", first, is_writer=accelerator.is_main_process)
    loader = DataLoader(
        batches,
        sampler=range(first, config.max_steps),
        batch_size=None,
        collate_fn=collate,
        num_workers=config.num_workers,
    )
    bar = tqdm(
        total=config.max_steps,
        initial=first,
        disable=not (config.show_progress and accelerator.is_main_process),
    )
    model.train()
    with bar:
        for step, batch in enumerate(loader, start=first):
            losses = model(**_to_device(batch, accelerator.device))
            accelerator.backward(losses["loss"])
            norm = accelerator.clip_grad_norm_(trainable, config.max_grad_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            means = {k: accelerator.reduce(v.detach(), "mean").item() for k, v in losses.items()}
            if not math.isfinite(means["loss"]):
                raise FloatingPointError(
                    f"The loss is {means['loss']} at step {step}. Lower `learning_rate`, or "
                    "restart from an earlier checkpoint."
                )
            log.write({"step": step, **means, "grad_norm": float(norm)})
            bar.update()
            bar.set_postfix(loss=f"{means['loss']:.4f}")
            if (step + 1) % config.save_steps == 0 or step + 1 == config.max_steps:
                save_checkpoint(accelerator, output_dir, step + 1)
    return accelerator.unwrap_model(model)


def save_checkpoint(accelerator: Accelerator, output_dir: Path, step: int) -> None:
    """Writes a checkpoint in one move, and removes all but the last two."""
    folder = output_dir / "checkpoints"
    partial = folder / f"partial-{step:07d}"
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        target = folder / f"step-{step:07d}"
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
        for old in sorted(folder.glob("step-*"))[:-2]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def restore_latest(accelerator: Accelerator, output_dir: Path) -> int:
    """Loads the newest checkpoint, if there is one. Returns the number of steps it has seen."""
    found = sorted((output_dir / "checkpoints").glob("step-*"))
    if not found:
        return 0
    accelerator.load_state(str(found[-1]))
    logger.info("Going on from %s.", found[-1])
    return int(found[-1].name.removeprefix("step-"))


class StepLog:
    """One JSON object per step. Lines past the step that a run resumes from are cut off."""

    def __init__(self, path: Path, first: int, *, is_writer: bool) -> None:
        self.path, self.is_writer = path, is_writer
        if not is_writer:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        # A killed run may leave half a line at the end; it lies past the checkpoint.
        path.write_text("".join(f"{line}\n" for line in lines[:first]))

    def write(self, values: dict[str, float | int]) -> None:
        """Appends a step."""
        if self.is_writer:
            with self.path.open("a") as file:
                file.write(json.dumps(values) + "\n")


def _to_device(batch: Batch, device: torch.device) -> Batch:
    def move(value: object) -> object:
        return value.to(device) if hasattr(value, "to") else value

    return {name: move(value) for name, value in batch.items()}
