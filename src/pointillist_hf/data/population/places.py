# SPDX-License-Identifier: Apache-2.0
"""Places on the template surface, the arguments of every colour function.

Centimetres; x points to the subject's left, y up, z out of the face.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

# A place carries the index of its part in this table.
PARTS = (
    "skin",
    "lid",
    "ear_left",
    "ear_right",
    "mouth",
    "teeth_upper",
    "teeth_lower",
    "eye_left",
    "eye_right",
    "tongue",
)
PART_IDS = {name: i for i, name in enumerate(PARTS)}
EAR_PARTS = ("ear_left", "ear_right")
SKIN_PARTS = ("skin", "lid", *EAR_PARTS)
EYE_PARTS = ("eye_left", "eye_right")
TEETH_PARTS = ("teeth_upper", "teeth_lower")
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class SurfacePlaces:
    """Places on the template, with what the colour functions want to know about them."""

    points: np.ndarray  # [n, 3] centimetres
    normals: np.ndarray  # [n, 3]
    part_ids: np.ndarray  # [n] index into PARTS
    row_y: np.ndarray  # [n] height before lids and lips were opened
    azimuth: np.ndarray  # [n] degrees from the midline, >= 0
    upper_lid_distance: np.ndarray  # [n] centimetres
    lower_lid_distance: np.ndarray  # [n] centimetres

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: np.ndarray) -> SurfacePlaces:
        return SurfacePlaces(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def on_parts(self, *names: str) -> np.ndarray:
        """Which places lie on one of the named parts. [n]."""
        mask = np.zeros(len(self), bool)
        for name in names:
            mask |= self.part_ids == PART_IDS[name]
        return mask

    def twin_bump(self, centre: Vector, size: Vector) -> np.ndarray:
        """Gaussian bump given on the subject's left and mirrored to the right. [n]."""
        x, y, z = self.points.T
        return np.exp(
            -(((np.abs(x) - centre[0]) / size[0]) ** 2)
            - ((y - centre[1]) / size[1]) ** 2
            - ((z - centre[2]) / size[2]) ** 2
        )


def tint(colors: np.ndarray, factor: Vector, strength: np.ndarray) -> np.ndarray:
    """Colours multiplied by `factor` where the strength is 1. [n, 3]."""
    return colors * (1 - strength[:, None] * (1 - np.asarray(factor, np.float32)))


def blend(colors: np.ndarray, target: np.ndarray | Vector, strength: np.ndarray) -> np.ndarray:
    """Colours replaced by `target` where the strength is 1. [n, 3]."""
    return colors + (np.asarray(target, np.float32) - colors) * strength[:, None]
