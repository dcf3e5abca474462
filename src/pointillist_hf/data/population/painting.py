# SPDX-License-Identifier: Apache-2.0
"""The surface of a subject: sRGB colours as functions of template coordinates.

Colours need no texture: they are evaluated where a ray meets the template (centimetres, x to the
subject's left, y up, z out of the face), so they are as sharp as the image that asks for them.
"""

from __future__ import annotations

import numpy as np

from . import clothes, eyes, mouth, skin
from .appearance import Appearance
from .places import EYE_PARTS, SKIN_PARTS, TEETH_PARTS, SurfacePlaces

# Mirror-like reflection of each material: strength, exponent.
SKIN_GLOSS = (0.10, 14.0)
LIP_GLOSS = (0.20, 30.0)
EYE_GLOSS = (0.90, 220.0)
TOOTH_GLOSS = (0.25, 40.0)
MOUTH_GLOSS = (0.03, 14.0)
CLOTH_GLOSS = (0.0, 14.0)


def surface_color(places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """Unlit colour of each place, sRGB in [0, 1]. [n, 3].

    Every part is painted by itself, so that no feature is evaluated where it cannot show.
    """
    colors = np.zeros((len(places), 3), np.float32)
    painters = (
        (("mouth",), mouth.mouth_color),
        (("tongue",), mouth.tongue_color),
        (TEETH_PARTS, mouth.teeth_color),
        (EYE_PARTS, eyes.eye_color),
    )
    for names, paint in painters:
        inside = np.flatnonzero(places.on_parts(*names))
        colors[inside] = paint(places[inside], appearance)
    covering = clothes.cloth_coverage(places, appearance)
    bare = np.flatnonzero(places.on_parts(*SKIN_PARTS) & (covering < 1))
    colors[bare] = skin.skin_color(places[bare], appearance)
    dressed = np.flatnonzero(covering > 0)
    fabric = clothes.cloth_color(places[dressed], appearance)
    colors[dressed] += (fabric - colors[dressed]) * covering[dressed, None]
    return np.clip(colors, 0, 1)


def surface_gloss(places: SurfacePlaces, appearance: Appearance) -> tuple[np.ndarray, np.ndarray]:
    """Strength [n] and exponent [n] of the highlight at each place."""
    gloss = np.tile(np.asarray(SKIN_GLOSS, np.float32), (len(places), 1))
    gloss[places.on_parts("mouth")] = MOUTH_GLOSS
    gloss[places.on_parts("tongue")] = LIP_GLOSS
    gloss[places.on_parts(*TEETH_PARTS)] = TOOTH_GLOSS
    gloss[places.on_parts(*EYE_PARTS)] = EYE_GLOSS
    lips = np.flatnonzero(skin.near_lips(places))
    gloss[lips[skin.lip_coverage(places[lips]) > 0.5]] = LIP_GLOSS
    gloss[clothes.cloth_coverage(places, appearance) > 0.5] = CLOTH_GLOSS
    return gloss[:, 0], gloss[:, 1]
