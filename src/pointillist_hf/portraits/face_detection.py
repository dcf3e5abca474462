# SPDX-License-Identifier: Apache-2.0
"""Where the face is in a photograph, and what belongs to the person. The home of OpenCV."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

# Faces are looked for in a copy of at most this size: the cascade needs no more, and its time
# grows with the number of pixels.
MAX_DETECTION_SIDE = 640
MIN_NEIGHBORS = 5


@dataclass(frozen=True)
class FaceBox:
    """A detected face: a square from about the hairline to the chin, pixels of the photograph."""

    x: float
    y: float
    side: float

    @property
    def center(self) -> tuple[float, float]:
        """Middle of the square, x and y in pixels."""
        return self.x + self.side / 2, self.y + self.side / 2


@lru_cache(maxsize=1)
def _face_cascade() -> cv2.CascadeClassifier:
    path = Path(cv2.data.haarcascades) / "haarcascade_frontalface_alt2.xml"
    cascade = cv2.CascadeClassifier(str(path))
    if cascade.empty():
        raise FileNotFoundError(
            f"The face detector's file {path} is missing. It comes with opencv-python-headless 4; "
            'install it with: pip install "opencv-python-headless<5".'
        )
    return cascade


def detect_faces(image: np.ndarray) -> list[FaceBox]:
    """Upright frontal faces, the largest first.

    Args:
        image: RGB. [H, W, 3] uint8
    """
    scale = min(1.0, MAX_DETECTION_SIDE / max(image.shape[:2]))
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if scale < 1:
        gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    smallest = max(24, min(gray.shape) // 12)
    boxes = _face_cascade().detectMultiScale(
        cv2.equalizeHist(gray), 1.08, MIN_NEIGHBORS, minSize=(smallest, smallest)
    )
    faces = [FaceBox(x / scale, y / scale, side / scale) for x, y, side, _ in boxes]
    return sorted(faces, key=lambda face: -face.side)


def person_matte(image: np.ndarray, *, iterations: int = 4) -> np.ndarray:
    """How much each pixel of a framed portrait belongs to the person, by GrabCut.

    The start is drawn from the frame: an ellipse for the head and a block for the shoulders are
    likely the person, the upper corners are background.

    Args:
        image: RGB, framed as `PortraitImageProcessor` does. [S, S, 3] uint8
        iterations: Of GrabCut.

    Returns:
        In [0, 1]. [S, S] float32
    """
    side = image.shape[0]
    rows, columns = (np.mgrid[0:side, 0:side] + 0.5) / side
    head = ((columns - 0.5) / 0.26) ** 2 + ((rows - 0.40) / 0.34) ** 2
    shoulders = (rows > 0.80) & (np.abs(columns - 0.5) < 0.42)
    labels = np.full((side, side), cv2.GC_PR_BGD, np.uint8)
    labels[(head < 1) | shoulders] = cv2.GC_PR_FGD
    labels[(head < 0.35)] = cv2.GC_FGD
    labels[(rows < 0.03) | ((rows < 0.6) & (np.abs(columns - 0.5) > 0.47))] = cv2.GC_BGD
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    # GrabCut starts from random clusters; a fixed seed gives a photograph one matte.
    cv2.setRNGSeed(0)
    bgr = np.ascontiguousarray(image[..., ::-1])
    cv2.grabCut(bgr, labels, None, background, foreground, iterations, cv2.GC_INIT_WITH_MASK)
    person = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    kept = _largest_component(person > 0.5)
    return cv2.GaussianBlur(person * kept, (0, 0), side / 200)


def _largest_component(mask: np.ndarray) -> np.ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return np.ones_like(mask, np.float32)
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return (labels == largest).astype(np.float32)


def crop_square(image: np.ndarray, x: float, y: float, side: float, size: int) -> np.ndarray:
    """A square of the image, resized; what lies beyond the border repeats it.

    Args:
        image: [H, W, 3] uint8
        x: Left edge, pixels; may be negative.
        y: Upper edge, pixels; may be negative.
        side: Pixels of the image.
        size: Pixels of the result.

    Returns:
        [size, size, 3] uint8
    """
    left, top = round(x), round(y)
    right, bottom = left + max(round(side), 1), top + max(round(side), 1)
    height, width = image.shape[:2]
    pad = [max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0)]
    padded = cv2.copyMakeBorder(image, *pad, borderType=cv2.BORDER_REPLICATE)
    square = padded[top + pad[0] : bottom + pad[0], left + pad[2] : right + pad[2]]
    shrinks = square.shape[0] > size
    return cv2.resize(
        square, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
