# SPDX-License-Identifier: Apache-2.0
"""Is it the same person? A distance of two pictures by a face recognition network.

Faces are turned upright first: a roll of 30 degrees alone would pass for a stranger.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..portraits.image_processing_portrait import PortraitInput
from ..portraits.portrait import Portrait
from ..portraits.portrait_tracker import PortraitTracker
from ..portraits.rotated_square import RotatedSquare
from .face_recognition import CHIP_SIZE, FaceRecognitionNetwork

LEFT_EYE, RIGHT_EYE, MOUTH = (362, 263, 386, 374), (33, 133, 159, 145), (61, 291, 0, 17)
EYES_TO_MOUTH = 0.45  # of the side of the chip
HEIGHT = 0.43  # of the middle of eyes and mouth in the chip, from above


class Likeness:
    """Distance of the faces in two pictures: 0 for equal ones, small for one person.

    What to hold a distance against, by the weights that `FaceRecognitionNetwork.read` expects:

    - one photograph, mirrored .15, at two thirds of its size .14;
    - two photographs of one person .36, of two people .62 to .69;
    - pictures of one synthetic person at -20 and 20 degrees .21 (at most .26), of two synthetic
      people .49 (at least .31).

    Below .35 it is the same person, above .5 a stranger. Differences of a few hundredths are noise.

    Args:
        network: Of the faces.
        tracker: Finds them.

    Example:
        >>> likeness = Likeness.read("face-api/package/model", "model_cards/pointillist-tiny")
        >>> likeness.distance("me.jpg", "avatar.png")
        0.21
    """

    def __init__(self, network: FaceRecognitionNetwork, tracker: PortraitTracker) -> None:
        self.network, self.tracker = network, tracker

    @classmethod
    def read(cls, weights: str | Path, checkpoint: str | Path) -> Likeness:
        """The metric of a folder of weights, with the tracker of a checkpoint.

        Args:
            weights: See `FaceRecognitionNetwork.read`.
            checkpoint: Its folder.

        Raises:
            FileNotFoundError: A file is missing; the message says where it comes from.
        """
        tracker = PortraitTracker.from_pretrained(checkpoint, subfolder="portrait_tracker")
        return cls(FaceRecognitionNetwork.read(weights), tracker)

    def embed(self, image: PortraitInput | Portrait) -> Tensor:
        """The face's place in the space of the network. [128]

        Args:
            image: As the tracker takes it; or tracked already.

        Raises:
            ValueError: There is no face.
        """
        portrait = image if isinstance(image, Portrait) else self.tracker(image)[0]
        with torch.no_grad():
            return self.network(cut_chip(portrait)[None])[0]

    def distance(self, first: PortraitInput | Portrait, second: PortraitInput | Portrait) -> float:
        """How far apart the faces of two pictures are, see above."""
        return float(torch.dist(self.embed(first), self.embed(second)))


def cut_chip(portrait: Portrait) -> Tensor:
    """The face, upright, as the network wants it: sRGB in [0, 1]. [150, 150, 3]"""
    return cut_face(portrait.pixels, portrait.landmarks)


def cut_face(pixels: Tensor, landmarks: Tensor) -> Tensor:
    """As `cut_chip`, of a picture and its landmarks.

    Args:
        pixels: sRGB, uint8. [H, W, 3]
        landmarks: Pixels. [468, 2 or 3]
    """
    marks = landmarks[:, :2].numpy(force=True).astype(np.float64)
    left, right, mouth = (marks[list(ids)].mean(0) for ids in (LEFT_EYE, RIGHT_EYE, MOUTH))
    across = (left - right) / np.linalg.norm(left - right)
    down = np.array([-across[1], across[0]])
    # Seen from far below or above the mouth may come close to the eyes.
    side = max((mouth - (left + right) / 2) @ down / EYES_TO_MOUTH, np.linalg.norm(left - right))
    square = RotatedSquare(
        center=(left + right + mouth) / 3 + (0.5 - HEIGHT) * side * down,
        side=float(side),
        angle=float(np.arctan2(across[1], across[0])),
        size=CHIP_SIZE,
    )
    return torch.from_numpy(square.sample(pixels.numpy(force=True))).float() / 255
