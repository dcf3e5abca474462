# SPDX-License-Identifier: Apache-2.0
"""What a run says about itself: one JSON object per step, and more for those who want to watch."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Literal

from accelerate import Accelerator

Tracker = Literal[
    "none",  # log.jsonl alone, which is always written
    "tensorboard",  # also OUTPUT/tensorboard
    "wandb",  # also Weights & Biases; WANDB_MODE=offline keeps it on the machine
]
PROJECT = "pointillist_hf"


def check_tracker(tracker: str) -> None:
    """Refuses trackers that are unknown or not installed.

    Raises:
        ValueError: It is no `Tracker`.
        ImportError: Its library is missing.
    """
    if tracker not in ("none", "tensorboard", "wandb"):
        raise ValueError(f"`tracker` must be 'none', 'tensorboard' or 'wandb', got {tracker!r}.")
    # Accelerate would only warn, and log nothing.
    if tracker != "none" and importlib.util.find_spec(tracker) is None:
        raise ImportError(
            f"`tracker` {tracker!r} needs the library {tracker}, which is not installed. "
            "Run: pip install 'pointillist-hf[track]'"
        )


class StepLog:
    """The rows of `log.jsonl`, one per step. Those that a resumed run takes again are cut off.

    Args:
        path: The file.
        first: The step that the run begins with.
        accelerator: Its main process writes, and its trackers hear of the rows.
    """

    def __init__(self, path: Path, first: int, accelerator: Accelerator) -> None:
        self.path, self.accelerator = path, accelerator
        if not accelerator.is_main_process:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
        # A killed run may leave half a line at the end; it lies past the checkpoint.
        path.write_text("".join(f"{line}\n" for line in lines[:first]), encoding="utf-8")

    def write(self, values: dict[str, float | int]) -> None:
        """Appends the row of a step."""
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        figures = {name: value for name, value in values.items() if name != "step"}
        self.accelerator.log(figures, step=values["step"])


def start_trackers(accelerator: Accelerator, first: int) -> None:
    """Begins or goes on with the trackers that the accelerator was made with."""
    accelerator.init_trackers(
        PROJECT,
        init_kwargs={
            # Takes back what was logged after the checkpoint.
            "tensorboard": {"purge_step": first},
            "wandb": {"resume": "allow"},
        },
    )


def finish_trackers(accelerator: Accelerator) -> None:
    """Lets the trackers write what they hold back, without ending the process group."""
    for tracker in accelerator.trackers:
        tracker.finish()
