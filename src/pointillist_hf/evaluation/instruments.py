# SPDX-License-Identifier: Apache-2.0
"""The networks that metrics look through, those that are there; and what they see in one picture.

What is read from a picture is kept in a file under the hash of the picture and of the instruments,
so that a run that was stopped goes on, and targets are read once for all systems.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from ..exporters.atomic_file import write_atomically
from ..pretrained.lpips import HEAD_FILES, TRUNK_FILES, LpipsNetwork, find_heads
from ..pretrained.weights_files import MissingWeightsError
from .face_reading import FaceReader
from .face_recognition import RECOGNITION_FILE, FaceRecognitionNetwork
from .likeness import cut_face
from .metrics.clip import CLIP_FILE, clip_embeddings, find_clip, load_clip
from .metrics.head_pose import POSE_FILE, HeadPoseNetwork, cut_head
from .metrics.inception import INCEPTION_FILE, InceptionFeatures, inception_features

VERSION = 1  # of what is read; another one reads everything anew


@dataclass(frozen=True)
class InstrumentPaths:
    """Where weights lie; None looks in the usual places, see `weights_files`."""

    tracker: str | Path | None = None  # folder of a checkpoint's portrait_tracker
    weights: str | Path | None = None  # folder of LPIPS, Inception, 6DRepNet360 and CLIP
    recognition: str | Path | None = None  # folder of the face recognition network


@dataclass
class Instruments:
    """What there is to measure with."""

    faces: FaceReader | None = None
    lpips: LpipsNetwork | None = None
    inception: InceptionFeatures | None = None
    clip: CLIPVisionModelWithProjection | None = None
    pose: HeadPoseNetwork | None = None
    recognition: FaceRecognitionNetwork | None = None
    weights: dict[str, list[dict]] = field(default_factory=dict)  # files by instrument
    missing: dict[str, str] = field(default_factory=dict)  # the absent file, by instrument

    @property
    def key(self) -> str:
        """What tells these instruments from others."""
        text = json.dumps([VERSION, self.weights], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def read(self, image: Tensor) -> dict[str, Tensor]:
        """What the instruments see in a picture. [H, W, 3]

        Faces that are not found are rows of NaN.
        """
        found: dict[str, Tensor] = {}
        marks = None
        if self.faces is not None:
            marks = found["landmarks"] = self.faces(image)
        if self.inception is not None:
            found["inception"] = inception_features(image[None], self.inception)[0]
        if self.clip is not None:
            found["clip"] = clip_embeddings(image[None], self.clip)[0]
        if self.pose is not None and marks is not None:
            found["rotation"] = torch.full((3, 3), torch.nan)
            if marks.isfinite().all():
                with torch.no_grad():
                    found["rotation"] = self.pose(cut_head(image, marks)[None])[0]
        if self.recognition is not None and marks is not None:
            found["recognition"] = torch.full((128,), torch.nan)
            if marks.isfinite().all():
                pixels = (255 * image).round().byte()
                with torch.no_grad():
                    chip = cut_face(pixels, marks)[None]
                    found["recognition"] = self.recognition(chip)[0]
        return found

    def read_kept(self, image: Tensor, digest: str, folder: Path) -> dict[str, Tensor]:
        """As `read`, from a file if there is one.

        Args:
            image: [H, W, 3]
            digest: Of the picture.
            folder: Of the files.
        """
        path = folder / f"{self.key}-{digest[:24]}.npz"
        if path.is_file():
            return load_readings(path)
        found = self.read(image)
        arrays = {name: value.numpy() for name, value in found.items()}

        def write(unfinished: Path) -> None:
            with unfinished.open("wb") as file:
                np.savez(file, **arrays)

        write_atomically(path, write)
        return found


def load_readings(path: Path) -> dict[str, Tensor]:
    """What was kept of a picture."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def open_instruments(paths: InstrumentPaths | None = None) -> Instruments:
    """The instruments whose weights are there. The absent ones are named in `missing`.

    Raises:
        ValueError: A file is there, and is another one.
    """
    paths = paths or InstrumentPaths()
    instruments = Instruments()
    for name, load in (
        ("faces", _open_faces),
        ("lpips", _open_lpips),
        ("inception", _open_inception),
        ("clip", _open_clip),
        ("pose", _open_pose),
        ("recognition", _open_recognition),
    ):
        try:
            instrument, weights = load(paths)
        except MissingWeightsError as error:
            instruments.missing[name] = error.file
        else:
            setattr(instruments, name, instrument)
            instruments.weights[name] = weights
    return instruments


def _open_faces(paths: InstrumentPaths) -> tuple[FaceReader, list[dict]]:
    if paths.tracker is None:
        raise MissingWeightsError("Keypoints need a portrait tracker.", "a portrait tracker")
    reader = FaceReader.read(paths.tracker)
    checksums = sorted(reader.tracker.networks.checksums.items())
    return reader, [{"file": name, "sha256": sha256} for name, sha256 in checksums]


def _open_lpips(paths: InstrumentPaths) -> tuple[LpipsNetwork, list[dict]]:
    trunk = TRUNK_FILES["alex"].find(paths.weights)
    heads = find_heads("alex")
    described = [TRUNK_FILES["alex"].describe(trunk), HEAD_FILES["alex"].describe(heads)]
    return LpipsNetwork.read("alex", trunk_path=trunk, head_path=heads), described


def _open_inception(paths: InstrumentPaths) -> tuple[InceptionFeatures, list[dict]]:
    file = INCEPTION_FILE.find(paths.weights)
    return InceptionFeatures.read(file), [INCEPTION_FILE.describe(file)]


def _open_clip(paths: InstrumentPaths) -> tuple[CLIPVisionModelWithProjection, list[dict]]:
    folder = find_clip(None if paths.weights is None else Path(paths.weights) / _clip_folder())
    return load_clip(folder), [CLIP_FILE.describe(folder / "model.safetensors")]


def _clip_folder() -> str:
    return CLIP_FILE.name.split("/")[0]


def _open_pose(paths: InstrumentPaths) -> tuple[HeadPoseNetwork, list[dict]]:
    file = POSE_FILE.find(paths.weights)
    return HeadPoseNetwork.read(file), [POSE_FILE.describe(file)]


def _open_recognition(paths: InstrumentPaths) -> tuple[FaceRecognitionNetwork, list[dict]]:
    file = RECOGNITION_FILE.find(paths.recognition or paths.weights)
    # Its hash is compared already.
    network = FaceRecognitionNetwork.read(file, checksum=None)
    return network, [RECOGNITION_FILE.describe(file)]
