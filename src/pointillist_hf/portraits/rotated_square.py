# SPDX-License-Identifier: Apache-2.0
"""Rotated squares of a picture, as the networks want them, and the way back.

Places have the middle of the first pixel at (0.5, 0.5), in the picture and in the square. Angles
turn from the x axis towards the y axis, which is clockwise to the eye.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class RotatedSquare:
    """A square of a picture, sampled at `size` x `size` pixels.

    Args:
        center: Middle of the square, pixels of the picture. [2]
        side: Pixels of the picture.
        angle: Of the square's upper edge, radians.
        size: Side of the sampled square, pixels.
    """

    center: np.ndarray
    side: float
    angle: float
    size: int

    @property
    def scale(self) -> float:
        """Pixels of the picture for one pixel of the square."""
        return self.side / self.size

    @property
    def axes(self) -> np.ndarray:
        """Steps in the picture for steps of one pixel to the right and down in the square. [2, 2]

        The steps are the columns.
        """
        cos, sin = self.scale * math.cos(self.angle), self.scale * math.sin(self.angle)
        return np.array([[cos, -sin], [sin, cos]])

    def to_picture(self, places: np.ndarray) -> np.ndarray:
        """Places of the square, found in the picture. [..., 2]"""
        return (places - self.size / 2) @ self.axes.T + self.center

    def from_picture(self, places: np.ndarray) -> np.ndarray:
        """Places of the picture, found in the square. [..., 2]"""
        return (places - self.center) @ np.linalg.inv(self.axes).T + self.size / 2

    def sample(self, picture: np.ndarray, *, beyond: int | None = None) -> np.ndarray:
        """What the square shows, reduced without aliasing.

        Args:
            picture: [H, W, C] uint8
            beyond: Value beyond the border of the picture; None repeats the border.

        Returns:
            [size, size, C] uint8
        """
        part, origin = self._part(picture)
        step = max(int(self.scale), 1)
        height, width = (math.ceil(extent / step) for extent in part.shape[:2])
        shrink = np.array([width / part.shape[1], height / part.shape[0]])
        if step > 1:
            part = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        # cv2 has the middle of the first pixel at 0.
        first_pixel = (self.to_picture(np.array([0.5, 0.5])) - origin) * shrink - 0.5
        matrix = np.column_stack([shrink[:, None] * self.axes, first_pixel])
        return cv2.warpAffine(
            part,
            matrix,
            (self.size, self.size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE if beyond is None else cv2.BORDER_CONSTANT,
            borderValue=(beyond or 0,) * 4,
        )

    def paste(self, values: np.ndarray, height: int, width: int) -> np.ndarray:
        """Values of the square laid back into an empty picture.

        Args:
            values: [size, size] float32
            height: Of the picture, pixels.
            width: Of the picture, pixels.

        Returns:
            [height, width] float32, 0 outside of the square.
        """
        first_pixel = self.to_picture(np.array([0.5, 0.5])) - 0.5
        matrix = np.column_stack([self.axes, first_pixel])
        return cv2.warpAffine(values, matrix, (width, height), flags=cv2.INTER_LINEAR)

    def _part(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The part of the picture that the square can touch, and its upper left corner."""
        corners = self.to_picture(self.size * np.array([[0, 0], [0, 1], [1, 0], [1, 1]]))
        margin = 2 * math.ceil(self.scale)
        extent = np.array(picture.shape[1::-1])
        low = np.floor(corners.min(axis=0)).astype(int) - margin
        high = np.ceil(corners.max(axis=0)).astype(int) + margin
        # A square beyond the border still touches the row of pixels that is repeated.
        low = np.clip(low, 0, extent - 1)
        high = np.maximum(np.clip(high, 0, extent), low + 1)
        return picture[low[1] : high[1], low[0] : high[0]], low.astype(float)
