# SPDX-License-Identifier: Apache-2.0
"""Floor 6. What the pipeline refuses at its door."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, arange

from .geometry.structures import Cameras, RigParams
from .rigs.head_rig import HeadRig


def check_tracking(
    count: int, rig: HeadRig, rig_params: RigParams | None, cameras: Cameras | None
) -> None:
    """Refuses parameters and cameras that do not belong to so many portraits.

    Raises:
        ValueError: There are more or fewer, or they are another rig's.
    """
    if rig_params is not None:
        rig.check_params(rig_params)
        if len(rig_params) != count:
            raise ValueError(
                f"`rig_params` must hold one frame per portrait, got {len(rig_params)} for {count}."
            )
    if cameras is not None and (rig_params is None or len(cameras) != count):
        raise ValueError(
            "`cameras` must come with `rig_params`, one for each portrait, got "
            f"{len(cameras)} for {count}."
        )


def list_seeds(seed: int | Sequence[int], count: int) -> list[int]:
    """One seed per portrait.

    Raises:
        ValueError: There are more or fewer.
    """
    seeds = [seed] * count if isinstance(seed, int) else list(seed)
    if len(seeds) != count:
        raise ValueError(
            f"`seed` must be one number or one per portrait, got {len(seeds)} for {count}."
        )
    return seeds


def list_copies(count: int, num_return_sequences: int) -> Tensor:
    """The portrait of each avatar. [count num_return_sequences]

    Raises:
        ValueError: There would be no avatar.
    """
    if num_return_sequences < 1:
        raise ValueError(f"`num_return_sequences` must be at least 1, got {num_return_sequences}.")
    return arange(count).repeat_interleave(num_return_sequences)
