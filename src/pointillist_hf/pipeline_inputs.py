# SPDX-License-Identifier: Apache-2.0
"""Floor 6. What the pipeline refuses at its door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, arange

from .geometry.number_checks import check_finite, check_integer, check_seed
from .geometry.structures import Cameras, RigParams, check_shape
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


def check_sampling(sampling: Mapping[str, object]) -> None:
    """Refuses options of `generate_points` that the step decides by itself.

    Raises:
        ValueError: With what to do instead.
    """
    if "num_return_sequences" in sampling:
        raise ValueError(
            "`num_return_sequences` must be left out of `generate_tokens`, got "
            f"{sampling['num_return_sequences']!r}: give a row of `context` to each cloud."
        )


def check_layouts(layouts: Tensor | None, rig_params: RigParams | None, count: int) -> None:
    """Refuses heads and layouts that do not belong to so many rows of conditioning tokens.

    Raises:
        ValueError: There are more or fewer, or what is foreseen are no numbers of points.
    """
    if rig_params is not None and len(rig_params) != count:
        raise ValueError(
            f"`rig_params` must hold one frame per row of `context`, got {len(rig_params)} for "
            f"{count}."
        )
    if layouts is None:
        return
    size = layouts.shape[1] if layouts.ndim > 1 else None
    check_shape("layouts", layouts, (count, size, None if size is None else size**2))
    check_finite("layouts", layouts)
    if layouts.numel() and float(layouts.min()) < 0:
        raise ValueError(
            f"`layouts` must be numbers of points, 0 or more, got {float(layouts.min()):g}. Take "
            "those of `encode_image`."
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
