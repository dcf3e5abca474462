# SPDX-License-Identifier: Apache-2.0
"""The training loop that all stages share: steps, checkpoints, exact resumption, a log.

Every row draws from a random stream of its own, made from the seed and the numbers of the step and
the row. So a resumed run needs no random state for its data to go on exactly as an unbroken one,
and P processes draw the same global batch as one. Dropout draws from the global state, which the
checkpoints hold.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from .checkpoints import check_figure, check_weights, restore_latest, save_checkpoint
from .device_moves import Parts, move
from .ema import WeightAverage
from .loop_config import LoopConfig
from .optimization import build_optimizer
from .run_log import StepLog, check_tracker, finish_trackers, start_trackers
from .run_settings import keep_settings
from .sharding import gather_weights, keep_digits, set_up_deepspeed, unsharded, whole

logger = logging.getLogger(__name__)

Batch = dict[str, Tensor | list]
# (rows of the global batch that this process makes, its random stream) -> batch
MakeBatch = Callable[[torch.Tensor, torch.Generator], Batch]
# A mean; or a sum and how many it is over, the mean then being taken over the global batch.
Loss = Tensor | tuple[Tensor, Tensor]


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
        model: `forward(**batch) -> dict` of `Loss`, of which "loss" is minimised. If that one is a
            sum, `count_terms(**batch)` says how many it is over.
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
        ValueError: The run began with other settings, DeepSpeed was asked for what it cannot do, or
            `count_terms` is lacking or wrong.
    """
    check_tracker(config.tracker)
    output_dir = Path(config.output_dir)
    accelerator = build_accelerator(config)
    set_seed(config.seed)
    save_memory_and_time(model, config)
    optimizer, scheduler = build_optimizer(model, config)
    batches = StepBatches(
        make_batch, num_rows, config, accelerator.process_index, accelerator.num_processes
    )
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    inner = accelerator.unwrap_model(model)
    average = WeightAverage(inner, config.ema_decay) if config.ema_decay else None
    first = begin_run(accelerator, config, average)
    log = StepLog(output_dir / "log.jsonl", first, accelerator)
    is_shown = config.show_progress and accelerator.is_main_process
    model.train()
    with tqdm(total=config.max_steps, initial=first, disable=not is_shown) as bar:
        for step, parts in enumerate(load_batches(batches, collate, config, first), start=first):
            means = compute_gradients(accelerator, model, parts)
            check_figure("loss", means["loss"], step)
            norm = accelerator.clip_grad_norm_(inner.parameters(), config.max_grad_norm)
            norm = float(whole(norm))
            # In float16 a gradient that overflows is skipped, and the scale lowered.
            if accelerator.mixed_precision != "fp16":
                check_figure("gradient", norm, step)
            rate = scheduler.get_last_lr()[0]
            row = {"step": step, **means, "grad_norm": norm, "learning_rate": rate}
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


def build_accelerator(config: LoopConfig) -> Accelerator:
    """Accelerate's hold on this process, told how the loop computes and logs."""
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        step_scheduler_with_optimizer=False,
        log_with=None if config.tracker == "none" else config.tracker,
        project_dir=config.output_dir,
    )
    keep_digits(accelerator)
    set_up_deepspeed(accelerator, config)
    return accelerator


def save_memory_and_time(model: nn.Module, config: LoopConfig) -> None:
    """Makes layers forget what can be computed again, and compiles them, if that is wanted."""
    for module in model.modules():
        is_ours = isinstance(module, PreTrainedModel) and module.supports_gradient_checkpointing
        if config.gradient_checkpointing and is_ours and _is_trained(module):
            module.activation_checkpointing_enable()
    if config.compile_layers:
        # Layer by layer: one graph serves them all, and FSDP shares out the same pieces.
        kinds = set(getattr(model, "_no_split_modules", ()))
        for module in model.modules():
            if type(module).__name__ in kinds:
                module.compile()


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def begin_run(accelerator: Accelerator, config: LoopConfig, average: WeightAverage | None) -> int:
    """Goes on from the newest checkpoint, if there is one; the number of steps taken before."""
    output_dir = Path(config.output_dir)
    first = restore_latest(accelerator, output_dir, average)
    settings = {**asdict(config), "mixed_precision": config.precision}
    if first or accelerator.is_main_process:
        keep_settings(settings, output_dir, is_new=first == 0)
    start_trackers(accelerator, first)
    return first


def load_batches(
    batches: StepBatches,
    collate: Callable[[list[Batch]], Batch],
    config: LoopConfig,
    first: int,
) -> DataLoader:
    """The parts of each step's rows, from step `first` on."""

    def collate_parts(rows: list[Batch]) -> Parts:
        size = len(rows) // config.accumulation_steps
        return Parts([collate(rows[i : i + size]) for i in range(0, len(rows), size)])

    return DataLoader(
        batches,
        sampler=range(first, config.max_steps),
        batch_size=None,
        collate_fn=collate_parts,
        num_workers=config.num_workers,
        pin_memory=torch.cuda.is_available(),
        # Otherwise each start would draw from the global state, and a resumed run go other ways.
        generator=torch.Generator(),
    )


def compute_gradients(accelerator: Accelerator, model: nn.Module, parts: Parts) -> dict[str, float]:
    """Leaves the gradients of the mean loss of the global batch, and returns its mean losses.

    What is propagated are sums, divided by the number of what they are over in all parts and
    processes: otherwise rows with few labels would weigh as much as others. It is counted
    beforehand, because DeepSpeed steps within the last backward pass.
    """
    # Processes average their gradients, so what is divided by is the mean count of a process.
    num_terms = _count_terms(accelerator, model, parts)
    divisor = num_terms / accelerator.num_processes
    totals: dict[str, Tensor] = {}
    for i, part in enumerate(parts):
        is_last = i + 1 == len(parts)
        accelerator.sync_gradients = is_last
        with nullcontext() if is_last else accelerator.no_sync(model):
            # Accelerate's models bring it along, but for those of FSDP2.
            with accelerator.autocast():
                losses = model(**move(part, accelerator.device))
            pairs = {name: _as_sum(loss) for name, loss in losses.items()}
            accelerator.backward(pairs["loss"][0] / divisor)
        for name, (total, count) in pairs.items():
            pair = torch.stack([total.detach(), count.to(total.dtype)])
            totals[name] = totals[name] + pair if name in totals else pair
    sums = accelerator.reduce(torch.stack(list(totals.values())), "sum")
    counted = dict(zip(totals, sums.tolist(), strict=True))
    if counted["loss"][1] != num_terms:
        raise ValueError(
            f"`count_terms` must count what the loss is a sum over, {counted['loss'][1]:g} in this "
            f"step, got {num_terms:g}. A model that returns sums must have it."
        )
    return {name: total / count for name, (total, count) in counted.items() if count}


def _count_terms(accelerator: Accelerator, model: nn.Module, parts: Parts) -> float:
    """What the loss of the global batch is a sum over; means count once for each part."""
    count_terms = getattr(accelerator.unwrap_model(model), "count_terms", None)
    if count_terms is None:
        return len(parts) * accelerator.num_processes
    count = torch.stack([count_terms(**part) for part in parts]).sum()
    return float(accelerator.reduce(count.to(accelerator.device), "sum"))


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
