# SPDX-License-Identifier: Apache-2.0
"""The pipeline's component that finds one face in a photograph."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from diffusers import ConfigMixin
from PIL import Image

from .face_landmarks import FaceLandmarks, find_irises, settle_landmarks
from .face_networks import FaceNetworks
from .face_search import SearchThresholds, search_faces
from .image_processing_portrait import PortraitInput, load_image
from .person_matte import find_matte, head_frame
from .pixel_values import is_cut_out
from .portrait import Portrait
from .portrait_light import judge_light
from .portrait_quality import judge_portrait

logger = logging.getLogger(__name__)


class PortraitTracker(ConfigMixin):
    """Finds a face, 468 landmarks, the irises and what belongs to the person.

    Faces are found at any roll and down to about a hundredth of the picture. The networks are
    MediaPipe's; OpenCV runs them on the CPU. The same photograph gives the same bits.

    Args:
        networks: Read from files.
        min_detection: Score of detection from which a place is looked at more closely.
        min_presence: Score of the landmark network from which it is a face.
        min_score: Product of presence and detection from close up from which it is a face.
        sure: The product from which the search may end.
        min_side: Smallest photograph that is taken, pixels.

    Example:
        >>> folder = "model_cards/pointillist-tiny/portrait_tracker"
        >>> tracker = PortraitTracker.from_pretrained(folder)
        >>> portrait = tracker("examples/images/astronaut.jpg")[0]
        >>> portrait.landmarks.shape
        torch.Size([468, 3])
    """

    config_name = "config.json"

    def __init__(
        self,
        networks: FaceNetworks,
        *,
        min_detection: float = 0.5,
        min_presence: float = 0.9,
        min_score: float = 0.65,
        sure: float = 0.77,
        min_side: int = 64,
    ) -> None:
        self.networks = networks
        self.thresholds = SearchThresholds(min_detection, min_presence, min_score, sure)
        self.min_side = min_side
        self.register_to_config(
            checksums=networks.checksums,
            min_detection=min_detection,
            min_presence=min_presence,
            min_score=min_score,
            sure=sure,
            min_side=min_side,
        )

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, subfolder: str | None = None, **kwargs: float
    ) -> PortraitTracker:
        """The tracker of a folder that `save_pretrained` wrote.

        Args:
            folder: Of the tracker, or of the whole checkpoint.
            subfolder: Of the tracker in the checkpoint.
            kwargs: Override settings of the config.

        Raises:
            FileNotFoundError: The folder or a file in it is missing.
            ValueError: A file is damaged or another one.
        """
        place = Path(folder, subfolder or "")
        if not (place / cls.config_name).is_file():
            raise FileNotFoundError(
                f"`folder` must hold the tracker's {cls.config_name}, and there is none in {place}."
            )
        config = {k: v for k, v in cls.load_config(place).items() if not k.startswith("_")}
        networks = FaceNetworks.read(place, config.pop("checksums", {}))
        return cls(networks, **{**config, **kwargs})

    def save_pretrained(self, folder: str | Path, **kwargs: object) -> None:
        """Writes the config, the networks and their licence into a folder.

        Args:
            folder: Made where there is none.
            kwargs: Taken for the sake of diffusers, which hands the same to every component.
        """
        self.save_config(folder)
        self.networks.write(Path(folder))

    def __call__(
        self, image: PortraitInput | list[PortraitInput], *, face: int | None = None
    ) -> list[Portrait]:
        """One portrait for each photograph.

        Args:
            image: PIL images, paths, arrays [H, W, 3] or tensors [3, H, W]; floats in [0, 1]. A
                cut-out (transparent around the person) brings its own matte.
            face: Which one where there are several: 1 is the largest, 2 the next. None takes the
                largest too, and warns.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is no image, the image is too small, it shows no face, or `face` is
                not the number of one.
        """
        images = image if isinstance(image, list) else [image]
        if not images:
            raise ValueError("`image` must hold at least one photograph, got an empty list.")
        if face is not None and face < 1:
            raise ValueError(f"`face` must be 1 for the largest face or more, got {face}.")
        return [self._track(load_image(one), face) for one in images]

    def _track(self, image: Image.Image, face: int | None) -> Portrait:
        if min(image.size) < self.min_side:
            raise ValueError(
                f"`image` must be at least {self.min_side} pixels wide and high, "
                f"got {image.size[0]} x {image.size[1]}."
            )
        picture, alpha = _split_alpha(image)
        faces = search_faces(
            self.networks, picture, num_wanted=face or 1, thresholds=self.thresholds
        )
        chosen = settle_landmarks(self.networks, picture, _choose(faces, face))
        warnings = judge_portrait(picture, chosen) + judge_light(picture, chosen)
        if face is None and len(faces) > 1:
            warnings = (_several(len(faces)), *warnings)
        for warning in warnings:
            logger.warning(warning)
        if alpha is None:
            alpha = find_matte(self.networks, picture, chosen, alone=len(faces) == 1)
        return self._portrait(picture, alpha, chosen, warnings)

    def _portrait(
        self,
        picture: np.ndarray,
        matte: np.ndarray,
        landmarks: FaceLandmarks,
        warnings: tuple[str, ...],
    ) -> Portrait:
        frame = head_frame(landmarks)
        low, high = frame.center - frame.side / 2, frame.center + frame.side / 2
        irises = find_irises(self.networks, picture, landmarks)
        return Portrait(
            pixels=torch.from_numpy(picture),
            matte=torch.from_numpy(matte),
            landmarks=torch.from_numpy(landmarks.places).float(),
            irises=torch.from_numpy(irises).float(),
            box=torch.from_numpy(landmarks.box).float(),
            frame=torch.from_numpy(np.concatenate([low, high])).float(),
            roll=landmarks.roll,
            score=landmarks.score,
            warnings=warnings,
        )


def _split_alpha(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels [H, W, 3], and the matte [H, W] of a cut-out; None where it is no cut-out."""
    if image.mode != "RGBA":
        return np.array(image), None
    if not is_cut_out(np.asarray(image.getchannel("A"))):
        return np.array(image.convert("RGB")), None
    alpha = np.asarray(image.getchannel("A"), np.float32) / 255
    # What is hidden may be anything; a plain grey cannot be taken for a face.
    backdrop = Image.new("RGBA", image.size, (128, 128, 128, 255))
    return np.array(Image.alpha_composite(backdrop, image).convert("RGB")), alpha


def _choose(faces: list[FaceLandmarks], face: int | None) -> FaceLandmarks:
    if not faces:
        raise ValueError(
            "`image` must show a face, and none was found. Use a sharp picture in which eyes, nose "
            "and mouth can be seen, or crop it closer to the head."
        )
    if face is not None and face > len(faces):
        raise ValueError(
            f"`face` must be at most {len(faces)}, the number of faces found, got {face}."
        )
    return faces[(face or 1) - 1]


def _several(count: int) -> str:
    return f"{count} faces were found and the largest is used. Pass face=2 for the next one."
