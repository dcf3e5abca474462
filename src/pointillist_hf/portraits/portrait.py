# SPDX-License-Identifier: Apache-2.0
"""What is known of the face in a photograph, as one record.

Places are pixels of the photograph: x to the right, y down, the middle of the first pixel at
(0.5, 0.5). Landmarks are numbered as MediaPipe's face mesh numbers them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.structures import TensorRecord, check_shape

NUM_LANDMARKS = 468
# Landmarks by number. Left and right are the subject's.
RIGHT_OUTER_CANTHUS, RIGHT_INNER_CANTHUS = 33, 133
LEFT_OUTER_CANTHUS, LEFT_INNER_CANTHUS = 263, 362
FOREHEAD, CHIN = 10, 152


@dataclass(frozen=True)
class Portrait(TensorRecord):
    """A photograph and one face in it. Left and right are the subject's."""

    pixels: Tensor  # [H, W, 3] sRGB, uint8, upright as the file says
    matte: Tensor  # [H, W] in [0, 1], 1 on the person; 0 far outside of `frame`
    landmarks: Tensor  # [468, 3] x and y; z in the same unit, smaller is nearer
    irises: Tensor  # [2, 5, 2] left, right; the centre, then four places on the rim
    box: Tensor  # [4] x0, y0, x1, y1 around the landmarks
    frame: Tensor  # [4] x0, y0, x1, y1 of the square around head and shoulders; may pass the border
    roll: float  # from the x axis to the line of the eyes, radians; > 0 is clockwise in the picture
    score: float  # how sure the networks are that this is a face, in [0, 1]
    warnings: tuple[str, ...] = ()  # what may make the result worse, one sentence each
    # How much of the head's surface the photograph shows; what it does not show is invented. None
    # until a rig lies on the face.
    share_seen: float | None = None
    inside: Tensor | None = None  # [H, W] where the photograph is; None: everywhere

    def __post_init__(self) -> None:
        check_shape("pixels", self.pixels, (None, None, 3))
        check_shape("matte", self.matte, self.pixels.shape[:2])
        if self.inside is not None:
            check_shape("inside", self.inside, self.pixels.shape[:2])
        check_shape("landmarks", self.landmarks, (NUM_LANDMARKS, 3))
        check_shape("irises", self.irises, (2, 5, 2))
        check_shape("box", self.box, (4,))
        check_shape("frame", self.frame, (4,))

    @property
    def width(self) -> int:
        """Columns of the photograph."""
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        """Rows of the photograph."""
        return self.pixels.shape[0]

    @property
    def eye_distance(self) -> float:
        """Distance of the outer canthi in the picture, pixels. About 9 cm, seen from the front."""
        outer = self.landmarks[[RIGHT_OUTER_CANTHUS, LEFT_OUTER_CANTHUS], :2]
        return torch.dist(outer[0], outer[1]).item()

    @property
    def pupils(self) -> Tensor:
        """Middles of the irises, left and right. [2, 2]"""
        return self.irises.mean(dim=1)
