# SPDX-License-Identifier: Apache-2.0
"""Whether components that are there go together with what a stage will add to them."""

from __future__ import annotations

from pathlib import Path

from ..models.tokenization_points import PointTokenizer
from ..portraits.image_processing_portrait import PortraitImageProcessor
from .encoders import Encoders, build_processor


def check_tokenizer(tokenizer: PointTokenizer, folder: Path, argument: str) -> None:
    """Refuses components of another data set.

    Args:
        tokenizer: Of the data set.
        folder: Of the tokenizer that was saved with the components, if there is one.
        argument: That named them.

    Raises:
        ValueError: They were trained with other bins, faces, orders or cubes.
    """
    if not folder.is_dir():
        return
    saved = PointTokenizer.from_pretrained(folder)
    for name in ("num_bins", "num_faces", "token_order", "cube_center", "cube_half_extent"):
        ours, theirs = getattr(tokenizer, name), getattr(saved, name)
        if ours != theirs:
            raise ValueError(
                f"`{argument}` holds components of another data set: its tokenizer has {name} "
                f"{theirs}, this data set's {ours}. Use another folder."
            )


def choose_processor(
    stage: str, output: Path, size: str, encoders: Encoders
) -> PortraitImageProcessor:
    """Who comes after the generator sees portraits as it did; so must who came before.

    Raises:
        ValueError: Regressor and generator would see portraits of different kinds.
    """
    saved = output / "image_processor"
    if stage.endswith("decoder") and saved.is_dir():
        return PortraitImageProcessor.from_pretrained(saved)
    processor = build_processor(size, encoders)
    other = {"regressor": "conditioner", "generator": "rig_regressor"}.get(stage, "")
    if encoders.image is None and stage == "generator":
        return processor  # whose networks are compared later
    if saved.is_dir() and (output / other).is_dir():
        _compare_processors(processor, PortraitImageProcessor.from_pretrained(saved), other)
    return processor


def _compare_processors(
    ours: PortraitImageProcessor, theirs: PortraitImageProcessor, part: str
) -> None:
    for name in ("size", "image_mean", "image_std"):
        wanted, got = getattr(theirs, name), getattr(ours, name)
        if wanted != got:
            raise ValueError(
                f"`output` holds a {part} that sees portraits with {name} {wanted}, and this stage "
                f"would see them with {got}. One pipeline shows all its parts the same portraits: "
                "use another `output`, or the same `size`, `image_size` and kind of encoder."
            )
