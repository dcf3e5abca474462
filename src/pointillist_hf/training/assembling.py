# SPDX-License-Identifier: Apache-2.0
"""Trained components joined into a pipeline, on our own head or on the user's FLAME."""

from __future__ import annotations

from pathlib import Path

import torch

from ..data.rig_reference import open_saved_rig
from ..models.modeling_conditioner import AvatarConditioner
from ..models.modeling_gaussian_decoder import GaussianDecoder
from ..models.modeling_point_generator import PointGeneratorForCausalLM
from ..models.modeling_rig_regressor import RigRegressor
from ..models.tokenization_points import PointTokenizer
from ..pipeline_avatar import AvatarPipeline
from ..portraits.image_processing_portrait import PortraitImageProcessor
from ..portraits.portrait_tracker import PortraitTracker
from ..publishing.manifest import describe_parts
from ..rigs.flame_rig import FlameHeadRig, take_landmarks
from ..rigs.head_rig import HeadRig
from .dataset import load_people

# Networks by their folders; the regressor is left out where there is none.
NETWORKS = {
    "conditioner": AvatarConditioner,
    "point_generator": PointGeneratorForCausalLM,
    "gaussian_decoder": GaussianDecoder,
    "rig_regressor": RigRegressor,
}
STAGES_BEHIND = {"conditioner": "generator", "point_generator": "generator"}
STAGES_BEHIND |= {"gaussian_decoder": "decoder"}
BORROWED = ("gaussian_decoder", "rig_regressor")
# What is said of the parts when somebody publishes them.
OWN_SOURCE = ("trained on the synthetic population of pointillist_hf", "apache-2.0")
FLAME_SOURCE = ("trained on captures tracked with FLAME", "other")


def assemble_pipeline(
    components: str | Path,
    *,
    tracker: str | Path | None = None,
    flame: str | Path | None = None,
    landmarks: str | Path | None = None,
    base: str | Path | None = None,
    data: str | Path | None = None,
    dtype: torch.dtype = torch.bfloat16,
    **settings: object,
) -> AvatarPipeline:
    """The pipeline of what the stages left in a folder.

    Args:
        components: The stages' `output`.
        tracker: Folder or Hub id of a `PortraitTracker`; None: the user brings the tracking, or a
            regressor guesses.
        flame: The user's FLAME, if it is no longer where the data set was made; on FLAME only.
        landmarks: FLAME's landmark_embedding_with_eyes.npy, which the tracker needs; likewise.
        base: A pipeline that gives the decoder and the regressor where `components` have none. Of
            decoders, only those that look at the photograph fit generators of other bins.
        data: What the generator learned from: its points per face are counted for grammars that go
            by faces, if that was not done in training.
        dtype: Of the networks.
        **settings: Defaults of the pipeline's call, such as `max_points`.

    Raises:
        FileNotFoundError: A stage has not been trained, or FLAME is not found.
        ValueError: Parts do not fit each other, or the tracker lacks landmarks.
    """
    folder = Path(components)
    places = _find_networks(folder, None if base is None else Path(base))
    rig = open_rig(folder / "rig", flame, landmarks)
    if tracker is not None and not len(rig.landmark_faces):
        raise ValueError(
            "`landmarks` must be given with a `tracker`: FLAME's own are a separate file, "
            "landmark_embedding_with_eyes.npy."
        )
    networks = {
        name: NETWORKS[name].from_pretrained(place, dtype=dtype) for name, place in places.items()
    }
    tokenizer = PointTokenizer.from_pretrained(folder / "tokenizer")
    generator, decoder = networks["point_generator"], networks["gaussian_decoder"]
    if data is not None and generator.config.max_points_per_face is None:
        generator.config.max_points_per_face = load_people(
            data, "train", on_disk=True
        ).most_per_face
    if places["gaussian_decoder"].parent != folder and decoder.config.image_inputs == "projected":
        # It was trained on completed clouds, whose means are no bins; the size of one was only a
        # unit of a penalty.
        decoder.config.bin_size = tokenizer.bin_size
    return AvatarPipeline(
        image_processor=PortraitImageProcessor.from_pretrained(folder / "image_processor"),
        tokenizer=tokenizer,
        rig=rig,
        portrait_tracker=None if tracker is None else PortraitTracker.from_pretrained(tracker),
        **networks,
        **settings,
    )


def _find_networks(folder: Path, base: Path | None) -> dict[str, Path]:
    """Where the weights of the networks are, of those that there are.

    Raises:
        FileNotFoundError: A stage has not been trained.
    """
    found = {name: folder / name for name in NETWORKS if (folder / name).is_dir()}
    for name in BORROWED if base is not None else ():
        if name not in found and (base / name).is_dir():
            found[name] = base / name
    for name, stage in STAGES_BEHIND.items():
        if name not in found:
            raise FileNotFoundError(
                f"`components` must hold what all stages left, and {folder} lacks {name}: train "
                f"--stage {stage} with --output {folder}."
            )
    return found


def open_rig(folder: Path, flame: str | Path | None, landmarks: str | Path | None) -> HeadRig:
    """The rig of the components.

    Raises:
        ValueError: `flame` or `landmarks` are given, and it is no FLAME.
    """
    if flame is not None:
        rig: HeadRig = FlameHeadRig.from_pretrained(folder, flame_path=flame)
    else:
        rig = open_saved_rig(folder)
    if landmarks is not None:
        take_landmarks(rig, landmarks)
    if not isinstance(rig, FlameHeadRig):
        rig.register_to_config(_name_or_path="")  # whoever loads it next need not know our folders
    return rig


def save_assembly(
    pipe: AvatarPipeline,
    output: str | Path,
    *,
    source: str | None = None,
    licence: str | None = None,
) -> None:
    """Writes a pipeline with what is to be said of the trained parts when it is published.

    Args:
        pipe: Of `assemble_pipeline`.
        output: Folder to write.
        source: Of the trained parts; by default what the rig tells.
        licence: Of the trained parts, as the Hub names it; likewise.
    """
    usual = FLAME_SOURCE if isinstance(pipe.rig, FlameHeadRig) else OWN_SOURCE
    said = (source or usual[0], licence or usual[1])
    pipe.save_pretrained(output)
    trained = {name: said for name in NETWORKS if getattr(pipe, name) is not None}
    pipe.register_to_config(licences=describe_parts(output, trained))
    pipe.save_config(output)
