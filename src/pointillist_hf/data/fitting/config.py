# SPDX-License-Identifier: Apache-2.0
"""Settings of a fit: GaussianAvatars' (paper Sec. 3.1), and faster ones."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, Self

from ...geometry.number_checks import check_integer, check_number, check_seed

MAX_COUNT = 10**9

PruneRule = Literal[
    "all_or_nothing",  # a face whose splats are all to go keeps them all, as in GaussianAvatars
    "keep_best",  # of these it keeps the most opaque
]


@dataclass(frozen=True)
class FitConfig:
    """The defaults are GaussianAvatars' for NeRSemble, but for the limit of points and extent.

    Nothing is densified or reset so late that it would not be fitted afterwards.

    Places and scales of a splat are in units of its triangle, so are the thresholds on them.
    """

    num_steps: int = 600_000  # one picture each
    sh_degree: int = 3
    sh_degree_every: int = 1_000  # steps until the next degree joins in

    # losses
    ssim_weight: float = 0.2  # L1 has the rest
    position_weight: float = 0.01
    position_threshold: float = 1.0
    scale_weight: float = 1.0
    scale_threshold: float = 0.6

    # learning rates
    means_lr: float = 5e-3  # times the extent
    means_lr_final: float = 5e-5
    sh_lr: float = 2.5e-3  # a twentieth above degree 0
    opacity_lr: float = 5e-2
    scales_lr: float = 1.7e-2
    quats_lr: float = 1e-3
    expression_lr: float = 1e-3
    pose_lr: float = 1e-5
    transl_lr: float = 1e-6

    # densification
    densify_from: int = 10_000
    densify_until: int = 600_000
    densify_every: int = 2_000
    grad_threshold: float = 2e-4  # of the place on the screen, whose sides are 2 long
    split_scale: float = 0.01  # times the extent: larger splats are split, smaller ones cloned
    min_opacity: float = 0.005
    opacity_reset_every: int = 60_000
    opacity_reset_at_start: bool = True  # also at `densify_from`, for white backgrounds
    prune_rule: PruneRule = "all_or_nothing"
    # GaussianAvatars has no limit and ends near 87,000. The least that contribute go first.
    max_points: int = 20_000
    min_extent: float = 0.8  # metres; a static camera would have none, and nothing would move

    # running
    init_opacity: float = 0.1
    seed: int = 0
    save_every: int = 5_000

    def __post_init__(self) -> None:
        for name in ("num_steps", "sh_degree_every", "densify_every", "save_every", "max_points"):
            check_integer(name, getattr(self, name), 1, MAX_COUNT)
        for name in ("densify_from", "densify_until", "opacity_reset_every"):
            check_integer(name, getattr(self, name), 0, MAX_COUNT)
        check_integer("sh_degree", self.sh_degree, 0, 3)
        check_seed("seed", self.seed)
        for field in fields(self):
            if isinstance(field.default, float):
                check_number(field.name, getattr(self, field.name), 0)
        if self.prune_rule not in ("all_or_nothing", "keep_best"):
            raise ValueError(
                f"`prune_rule` must be 'all_or_nothing' or 'keep_best', got {self.prune_rule!r}."
            )
        if not 0 < self.init_opacity < 1 or self.min_extent <= 0:
            raise ValueError(
                "`init_opacity` must lie in (0, 1) and `min_extent` must be positive, "
                f"got {self.init_opacity} and {self.min_extent}."
            )

    @classmethod
    def preset(cls, name: str, **changes: object) -> Self:
        """The preset "paper", or "fast": minutes on two CPU cores for pictures of 256 pixels.

        Args:
            name: Of the preset.
            **changes: Fields with other values.
        """
        if name not in PRESETS:
            raise ValueError(f"`preset` must be one of {', '.join(PRESETS)}, got {name!r}.")
        return replace(cls(**PRESETS[name]), **changes)


PRESETS: dict[str, dict[str, object]] = {
    "paper": {},
    # Colours are all that survives tokenisation, so no effort goes into gloss.
    "fast": {
        "num_steps": 4_000,
        "sh_degree": 0,
        "sh_lr": 1e-2,
        "means_lr": 1e-2,
        "means_lr_final": 1e-3,
        "densify_from": 400,
        "densify_until": 3_200,
        "densify_every": 200,
        # Higher, because moments are noisy so early; counts stay below the limit and differ.
        "grad_threshold": 5e-4,
        "opacity_reset_every": 10_000,
        "opacity_reset_at_start": False,
        "save_every": 500,
    },
}
