# SPDX-License-Identifier: Apache-2.0
"""A matte held against the colours on both sides of its border.

The network sees 256 pixels of the frame, and takes what lies between hair and neck for the person.
Where the background next to the border is plain and the person has another colour, colour tells.
"""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 384  # pixels of the frame, like all lengths here
SURE, BAND = 3, 12  # from the border: outside, what is surely background; inside, what is doubtful
ROUNDS = 3  # after each of which the border lies deeper
REACH = 9.0  # standard deviation of the means of colours
# Variances, summed over red, green and blue: of a background as plain as can be, and of one that is
# too busy to tell.
PLAIN, BUSY = 1e-3, 1e-2
# Squared distances from the background, over its variance: those of the background itself, those of
# something else, and that of the person from which colour counts in full.
SAME, OTHER, CONTRAST = 4.0, 16.0, 60.0


def cut_background(matte: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The matte without what has the colour of the background next to it.

    Args:
        matte: In [0, 1]. [S, S] float32
        pixels: Of the same square. [S, S, 3] uint8

    Returns:
        Nowhere more than before. [S, S] float32
    """
    colors = pixels.astype(np.float32) / 255
    for _ in range(ROUNDS):
        before, matte = matte, _cut_band(matte, colors)
        if np.array_equal(before, matte):
            break
    return matte


def _cut_band(matte: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """The matte without what has the background's colour within the band."""
    person = matte > 0.5
    if person.all() or not person.any():
        return matte
    depth = cv2.distanceTransform(person.astype(np.uint8), cv2.DIST_L2, 5)
    beyond = cv2.distanceTransform((~person).astype(np.uint8), cv2.DIST_L2, 5)
    behind, spread = _local_mean(colors, beyond > SURE)
    variance = spread + PLAIN
    unlike = _ramp(np.square(colors - behind).sum(-1) / variance, SAME, OTHER)
    front, found = _local_mean(colors, (depth > BAND) & (unlike > 0.5))
    trust = _ramp(np.square(front - behind).sum(-1) / variance, OTHER, CONTRAST)
    trust = trust * (1 - _ramp(spread, 0, BUSY)) * (depth <= BAND) * np.isfinite(found)
    kept = 1 - trust * (1 - unlike)
    # A light in the hair is no way through: background reaches in from outside.
    _, labels = cv2.connectedComponents(((matte * kept) <= 0.5).astype(np.uint8))
    outside = np.isin(labels, np.unique(labels[~person]))
    return np.where(outside | ~person, matte * kept, matte)


def _local_mean(colors: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean colour of the mask near each pixel, and its variance there. [S, S, 3], [S, S]"""
    weight = mask.astype(np.float32)
    planes = np.concatenate([colors, np.square(colors), np.ones_like(colors[..., :1])], axis=-1)
    sums = cv2.GaussianBlur(planes * weight[..., None], (0, 0), REACH)
    total = sums[..., 6:].clip(1e-6)
    mean, square = sums[..., :3] / total, sums[..., 3:6] / total
    spread = (square - np.square(mean)).clip(0).sum(-1)
    # Where there is nothing near, nothing is known.
    return mean, np.where(sums[..., 6] > 1e-4, spread, np.inf)


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below the first limit, 1 above the second, smooth between."""
    t = ((values - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)
