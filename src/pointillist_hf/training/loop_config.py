# SPDX-License-Identifier: Apache-2.0
"""The settings of a run of training: how long, how fast, in which precision, and where to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, get_args

from ..geometry.number_checks import check_integer, check_number
from .run_log import Tracker

# Least and largest values of the settings of a run.
COUNTS = {
    "max_steps": (1, 10**9), "batch_size": (1, 2**20), "save_steps": (1, 10**9),
    "accumulation_steps": (1, 2**16), "eval_steps": (0, 10**9), "sample_steps": (0, 10**9),
    "window_step": (0, 2**30), "warmup_steps": (0, 10**9), "num_workers": (0, 1024),
    "num_eval_people": (1, 10**6), "num_sample_points": (1, 2**22), "seed": (0, 2**32 - 1),
}  # fmt: skip
RATES = {
    "weight_decay": (0, 1e3), "ema_decay": (0, 1), "adam_beta2": (0, 1), "learning_rate": (0, 1e3),
    "final_learning_rate": (0, 1), "max_grad_norm": (0, 1e9), "portrait_dropout": (0, 1),
    "focus_share": (0, 1),
}  # fmt: skip
Optimizer = Literal["adamw", "adam"]
Schedule = Literal["cosine", "constant"]
Perceptual = Literal[
    "none",  # Eq. 6 without its third term
    "features",  # distance in the features of the image encoder, which is there anyhow
    "lpips",  # the paper's, whose weights are the user's to bring
]
Trunk = Literal["alex", "vgg"]
CHOICES = {
    "optimizer": get_args(Optimizer),
    "schedule": get_args(Schedule),
    "mixed_precision": (None, "no", "fp16", "bf16"),
    "tracker": get_args(Tracker),
    "perceptual": get_args(Perceptual),
    "lpips_trunk": get_args(Trunk),
}
PRECISION_VARIABLE = "ACCELERATE_MIXED_PRECISION"  # what `accelerate launch` sets


@dataclass(frozen=True)
class LoopConfig:
    """How long, how fast, and where to."""

    output_dir: str
    max_steps: int = 1000
    batch_size: int = 4  # over all processes and accumulated parts
    accumulation_steps: int = 1  # parts that a process's rows are computed in, to save memory

    optimizer: Optimizer = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    adam_beta2: float = 0.98
    schedule: Schedule = "cosine"
    warmup_steps: int = 50
    final_learning_rate: float = 0.05  # share of the peak that the cosine ends at
    max_grad_norm: float = 1.0
    ema_decay: float = 0.0  # of the average of the weights; 0 keeps those of the last step

    mixed_precision: str | None = None  # None: what the launcher says, else "no"
    gradient_checkpointing: bool = False  # layers are computed twice, to save memory
    compile_layers: bool = False  # by torch.compile
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
    portrait_dropout: float = 0.0  # share of rows without their portrait, for guidance
    focus_region: str | None = None  # of the rig, whose rare points want more windows
    focus_share: float = 0.5  # of the windows, that are of this region

    # the decoder's: the third term of Eq. 6, and where its weights lie
    perceptual: Perceptual = "none"
    lpips_trunk: Trunk = "alex"
    lpips_weights: str | None = None  # torchvision's file, or its folder; None: the usual places
    lpips_heads: str | None = None  # likewise; None: of an installed package

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

    @property
    def precision(self) -> str:
        """The precision that is computed in, whoever says so."""
        return self.mixed_precision or os.environ.get(PRECISION_VARIABLE, "no").lower()
