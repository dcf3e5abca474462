# SPDX-License-Identifier: Apache-2.0
"""Landmarks of the face in a picture, or none; without matte and irises, which metrics do not need.

MediaPipe's own package can be the reader instead: it runs where it is installed and leaves an .npz,
see `read_landmark_file`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..default_model import EMBEDDED_FOLDER
from ..portraits.face_landmarks import settle_landmarks
from ..portraits.face_search import search_faces
from ..portraits.portrait import NUM_LANDMARKS
from ..portraits.portrait_tracker import PortraitTracker
from ..pretrained.weights_files import MissingWeightsError

NUM_REFINED = 478  # with MediaPipe's irises


class FaceReader:
    """The largest face's landmarks, by the networks of a tracker.

    Args:
        tracker: Of a checkpoint.
    """

    def __init__(self, tracker: PortraitTracker) -> None:
        self.tracker = tracker

    @classmethod
    def read(cls, tracker: str | Path | None = None) -> FaceReader:
        """The reader by the tracker of a folder; None takes that of the checkout.

        Raises:
            MissingWeightsError: There is none.
        """
        folder = Path(tracker or EMBEDDED_FOLDER / "portrait_tracker")
        if not folder.is_dir():
            raise MissingWeightsError(
                f"`tracker` must be a checkpoint's folder portrait_tracker, and {folder} is none.",
                "a portrait tracker",
            )
        return cls(PortraitTracker.from_pretrained(folder))

    def __call__(self, picture: Image.Image | Tensor) -> Tensor:
        """Pixels and depth of the landmarks; NaN where there is no face. [468, 3]

        Args:
            picture: RGB, or sRGB in [0, 1]. [H, W, 3]
        """
        if isinstance(picture, Tensor):
            pixels = (255 * picture).round().clamp(0, 255).byte().numpy(force=True)
        else:
            pixels = np.array(picture.convert("RGB"))
        networks, thresholds = self.tracker.networks, self.tracker.thresholds
        faces = search_faces(networks, pixels, num_wanted=1, thresholds=thresholds)
        if not faces:
            return torch.full((NUM_LANDMARKS, 3), torch.nan)
        return torch.from_numpy(settle_landmarks(networks, pixels, faces[0]).places).float()


def read_landmark_file(path: str | Path) -> dict[str, Tensor]:
    """Landmarks that MediaPipe found elsewhere, by the SHA-256 of the picture's file. [478, 3] each

    Args:
        path: An .npz as `examples/extract_landmarks.py` writes it: pixels at the size of the
            manifest, an array for each picture, NaN where there is no face.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It holds something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"`landmarks` must be an .npz of landmarks, and {path} is none.")
    with np.load(path, allow_pickle=False) as arrays:
        found = {name: torch.from_numpy(arrays[name]).float() for name in arrays.files}
    for name, points in found.items():
        if points.shape != (NUM_REFINED, 3):
            raise ValueError(
                f"`{name}` in {path} must have shape ({NUM_REFINED}, 3), got {tuple(points.shape)}."
            )
    return found


def check_landmarks(landmarks: Mapping[str, Tensor], pictures: Mapping[str, str]) -> None:
    """Refuses landmarks that were taken before a picture was made or changed.

    Args:
        landmarks: Of `read_landmark_file`.
        pictures: The SHA-256 of every picture that is compared, by a name for the message.

    Raises:
        ValueError: Some are not among them.
    """
    absent = [name for name, sha256 in pictures.items() if sha256 not in landmarks]
    if absent:
        raise ValueError(
            f"`landmarks` must have all pictures as they are, and lacks {len(absent)} of "
            f"{len(pictures)}, such as {absent[0]}; run examples/extract_landmarks.py again over "
            "the benchmark and all folders of renders."
        )
