# SPDX-License-Identifier: Apache-2.0
"""Floor 6. What the pipeline refuses at its door."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, arange

from .geometry.number_checks import check_finite, check_integer, check_seed
from .geometry.structures import Cameras, RigParams
from .rigs.head_rig import HeadRig

MAX_AVATARS = 4096  # of a portrait


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
    if cameras is not None:
        check_finite("cameras.viewmats", cameras.viewmats)
        check_finite("cameras.Ks", cameras.Ks)
    if cameras is not None and (rig_params is None or len(cameras) != count):
        raise ValueError(
            "`cameras` must come with `rig_params`, one for each portrait, got "
            f"{len(cameras)} for {count}."
        )


def check_choices(
    has_tracker: bool,
    *,
    face: int | None = None,
    detect_face: bool = True,
    remove_background: bool = True,
) -> None:
    """Refuses choices that would do nothing.

    Raises:
        ValueError: A choice is for pipelines with a tracker, or for those without.
    """
    if face is not None and not has_tracker:
        raise ValueError(f"`face` must be left out without a `portrait_tracker`, got {face}.")
    if has_tracker and not (detect_face and remove_background):
        raise ValueError(
            "`detect_face` and `remove_background` must be left alone with a `portrait_tracker`: "
            "it frames the head that it finds. Take a photograph that shows a face, or a pipeline "
            "without a tracker."
        )


def list_seeds(seed: int | Sequence[int], count: int) -> list[int]:
    """One seed per portrait.

    Raises:
        ValueError: There are more or fewer, or one is none.
    """
    # A number of numpy or torch is no sequence, whatever it can be asked.
    is_one = not hasattr(seed, "__len__") or getattr(seed, "ndim", 1) == 0
    seeds = [seed] * count if is_one else list(seed)  # ty: ignore[invalid-argument-type]
    if len(seeds) != count:
        raise ValueError(
            f"`seed` must be one number or one per portrait, got {len(seeds)} for {count}."
        )
    return [check_seed("seed", one) for one in seeds]


def list_copies(count: int, num_return_sequences: int) -> Tensor:
    """The portrait of each avatar. [count num_return_sequences]

    Raises:
        ValueError: There would be no avatar.
    """
    num_return_sequences = check_integer(
        "num_return_sequences", num_return_sequences, 1, MAX_AVATARS
    )
    return arange(count).repeat_interleave(num_return_sequences)
