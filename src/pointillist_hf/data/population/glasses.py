# SPDX-License-Identifier: Apache-2.0
"""Glasses fitted to a head: frame, lenses, and temples that reach behind the ears.

The front is a plane that is bowed and tilted a little, with u to the subject's left and v up from
the height of the pupils. It is brought as close to the face as nose, brows and cheeks allow.

Unit centimetres; x to the subject's left, y up, the face looks along +z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...rigs.procedural.fields import SIDES, smoothstep
from .accessories import Glasses
from .relief import Relief, build_relief
from .strands import unit
from .worn import Piece, RestHead

# Height over width of the lenses, and the power of their superellipse.
LENS_SHAPES = {
    "round": (0.95, 2.0),
    "oval": (0.72, 2.2),
    "rectangle": (0.62, 4.5),
    "square": (0.80, 3.6),
    "aviator": (0.86, 2.5),
    "cat_eye": (0.68, 2.8),
}
HALF_LENS = {"round": 2.25, "aviator": 2.75}  # cm, half of the width
DEFAULT_HALF_LENS = 2.5
INNER_EDGE = 0.95  # cm from the midline to the lens
TILT = np.tan(np.radians(8))  # lower rims come closer to the cheeks
BOW = 0.010  # per cm: how the front curves round the face
EYE_CLEARANCE = 1.0  # from the cornea to the lens
SKIN_CLEARANCE = 0.10
SLIDE = np.linspace(0.15, -0.55, 8)  # of the front against the pupils, where the nose is sought
BRIDGE_HEIGHT = 0.45
HINGE_HEIGHT = 0.45  # relative to half of the lens
WIRE, PLASTIC = 0.085, 0.15  # radius of a rim
LENS_RINGS = np.array([0.02, 0.35, 0.65, 0.85, 1.0])
NUM_SPOKES = 32
PAD_COLOR, PAD_RADII = (0.86, 0.84, 0.80), (0.03, 0.15, 0.18, 0.15, 0.03)
TEMPLE_STEPS, HOOK_STEPS = 18, 8
HOOK = np.array([-2.3, -1.5])  # down and back from the top of the ear


@dataclass(frozen=True)
class Front:
    """Where the plane of the lenses lies on a head."""

    height: float  # of v = 0
    depth: float  # z at u = v = 0
    lens_centre: float  # |u|
    half_width: float  # of a lens
    outline: np.ndarray  # [k, 2] of the left lens around its centre

    def at(self, plane: np.ndarray) -> np.ndarray:
        """Places in space of places (u, v) on the front. [..., 2] -> [..., 3]"""
        u, v = np.moveaxis(plane, -1, 0)
        return np.stack([u, self.height + v, self.depth + TILT * v - BOW * u**2], axis=-1)

    def normals(self, plane: np.ndarray) -> np.ndarray:
        """Unit normals, away from the face. [..., 2] -> [..., 3]"""
        u = plane[..., 0]
        return unit(np.stack([2 * BOW * u, np.full_like(u, -TILT), np.ones_like(u)], axis=-1))

    def lens(self, sign: float, scale: float = 1.0) -> np.ndarray:
        """Outline of a lens, (u, v). [k, 2]"""
        return (scale * self.outline + (self.lens_centre, 0)) * (sign, 1)


def build_glasses(head: RestHead, glasses: Glasses) -> list[Piece]:
    """The pieces of a pair of glasses on a head."""
    radius = WIRE if glasses.is_metal else PLASTIC
    front = _fit_front(head, glasses, radius)
    face = _front_relief(head)
    gloss = (0.55, 30.0) if glasses.is_metal else (0.30, 60.0)

    def tube(
        name: str, path: tuple[np.ndarray, np.ndarray], thickness: float, flatness: float = 1.0
    ) -> Piece:
        points, normals = path
        lines = head.bind(points, normals, glasses.color)
        return Piece(name, lines, _tapered(points.shape[:2], thickness), flatness, gloss)

    closed = np.stack([front.lens(sign)[_closed(front.outline)] for sign in SIDES.values()])
    bridge = _bridge(front, face, radius, dips=not glasses.is_metal)
    height, flatness = (1.1, 0.9) if glasses.is_metal else (1.5, 0.45)
    pieces = [
        tube("rims", (front.at(closed), front.normals(closed)), radius),
        tube("bridge", bridge, 1.1 * radius),
        tube("temples", _temples(head, front, radius), height * radius, flatness),
    ]
    if glasses.style == "aviator":
        pieces.append(tube("brow bar", _brow_bar(front, face, radius), radius))
    if glasses.is_metal:
        pads = head.bind(*_nose_pads(front, face), PAD_COLOR)
        radii = np.tile(PAD_RADII, (len(pads), 1))
        pieces.append(Piece("pads", pads, radii, flatness=0.4))
    return pieces + [_lens(head, front, glasses, side) for side in SIDES]


def _fit_front(head: RestHead, glasses: Glasses, radius: float) -> Front:
    """The front, as close to the eyes as it goes, where the nose carries it."""
    eyes = np.stack([head.part_points(f"eye_{side}") for side in SIDES])
    half_width = glasses.size * HALF_LENS.get(glasses.style, DEFAULT_HALF_LENS)
    pupils = np.abs(eyes[..., 0]).mean()
    # Wide heads get wider frames, so that the temples need not spread.
    half_width *= np.clip(pupils / 3.12, 0.9, 1.1)
    centre = max(INNER_EDGE + half_width, pupils - 0.2)
    relief = _front_relief(head).widened(radius)
    outline = _outline(glasses.style, half_width)
    fits = []
    for slide in SLIDE:
        front = Front(eyes[..., 1].mean() + slide, 0.0, centre, half_width, outline)
        rims = front.at(np.concatenate([front.lens(sign) for sign in SIDES.values()]))
        skin = (relief.over(rims[:, :2]) - rims[:, 2]).max() + SKIN_CLEARANCE + radius
        lens = front.at(np.array([[pupils, -slide]]))[0, 2]
        depth = max(skin, eyes[..., 2].max() + EYE_CLEARANCE - lens)
        at_bridge = relief.over(np.array([0.0, front.height + BRIDGE_HEIGHT]))
        gap = depth + TILT * BRIDGE_HEIGHT - at_bridge - radius
        # The nose slopes: the front slides down until it touches.
        fits.append((abs(gap - SKIN_CLEARANCE) + 0.2 * abs(slide + 0.2), depth, front.height))
    _, depth, height = min(fits)
    return Front(height, float(depth), centre, half_width, outline)


def _front_relief(head: RestHead) -> Relief:
    """How far skin and lids reach forwards."""
    parts = ("skin", "lid", "eye_left", "eye_right")
    faces = head.template.faces[np.isin(head.template.face_parts, parts)]
    return build_relief(head.vertices, faces, low=(-8, -2), high=(8, 7))


def _outline(style: str, half_width: float, num_points: int = 48) -> np.ndarray:
    """The outline of the left lens around its centre; u points away from the nose. [k, 2]"""
    aspect, power = LENS_SHAPES[style]
    turn = 2 * np.pi * np.arange(num_points) / num_points
    cos, sin = np.cos(turn), np.sin(turn)
    radius = (np.abs(cos) ** power + np.abs(sin) ** power) ** (-1 / power)
    u, v = half_width * radius * cos, aspect * half_width * radius * sin
    outwards, upwards = u / half_width, v / (aspect * half_width)
    if style == "aviator":
        v = np.where(v > 0, 0.8 * v, v * (1 + 0.10 * outwards))
        u = u * (1 + 0.10 * upwards)
    elif style == "cat_eye":
        v = v + 0.30 * half_width * smoothstep(outwards, 0.1, 1.0) * smoothstep(upwards, -0.3, 0.9)
    elif style == "square":
        u = u * (1 + 0.06 * upwards)
    return np.stack([u, v], axis=-1)


def _closed(outline: np.ndarray) -> np.ndarray:
    """Indices once round and a little further, so that a tube closes without a seam."""
    return np.arange(len(outline) + 3) % len(outline)


def _rim_point(front: Front, v: float, side: float) -> np.ndarray:
    """Where the left rim is at height v, towards the temple (side 1) or the nose (-1). [2]"""
    half = front.outline[side * front.outline[:, 0] > 0]
    return half[np.abs(half[:, 1] - v).argmin()] + (front.lens_centre, 0)


def _bridge(
    front: Front, face: Relief, radius: float, *, dips: bool
) -> tuple[np.ndarray, np.ndarray]:
    """From rim to rim over the nose, with its upward normals; a plastic one rests on the nose."""
    inner = _rim_point(front, min(BRIDGE_HEIGHT, 0.8 * front.outline[:, 1].max()), -1)
    along = np.linspace(-1, 1, 13)
    arch = 0.15 * (1 - along**2)
    points = front.at(np.stack([along * inner[0], inner[1] + arch], axis=-1))
    room = _room(points, face, radius)
    if dips:
        points[:, 2] -= max(0.0, room[6]) * (1 - along**2)
    points[:, 2] += max(0.0, -_room(points, face, radius).min()) * (1 - along**4)
    return points[None], np.tile([0.0, 1.0, 0.0], (1, len(along), 1))


def _room(points: np.ndarray, face: Relief, radius: float) -> np.ndarray:
    """How far a tube is from touching the face, by its points. [k, 3] -> [k]"""
    return points[:, 2] - face.widened(radius).over(points[:, :2]) - radius - 0.02


def _brow_bar(front: Front, face: Relief, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """The second bridge of aviators, from rim to rim; it bends round a strong brow."""
    height = 0.85 * front.outline[:, 1].max()
    inner = _rim_point(front, height, -1)
    along = np.linspace(-1, 1, 9)
    points = front.at(np.stack([along * inner[0], np.full(9, inner[1])], axis=-1))
    points[:, 2] += max(0.0, -_room(points, face, radius).min()) * (1 - along**4)
    return points[None], np.tile([0.0, 1.0, 0.0], (1, 9, 1))


def _nose_pads(front: Front, face: Relief) -> tuple[np.ndarray, np.ndarray]:
    """Pads on both sides of the nose, from above down, with normals to the sides."""
    lines, normals = [], []
    for sign in SIDES.values():
        v = np.linspace(0.10, -0.55, 5)
        u = 0.62 + 0.12 * np.linspace(0, 1, 5)
        places = np.stack([sign * u, front.height + v], axis=-1)
        lines.append(np.column_stack([places, face.over(places) + 0.06]))
        normals.append(np.tile(unit(np.array([sign, 0.2, 0.6])), (5, 1)))
    return np.stack(lines), np.stack(normals)


def _temples(head: RestHead, front: Front, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """From the hinges along the head to behind the ears, with normals to the sides."""
    lines, normals = [], []
    for side, sign in SIDES.items():
        hinge_plane = _rim_point(front, HINGE_HEIGHT * front.outline[:, 1].max(), 1)
        start = front.at(hinge_plane * (sign, 1))
        ear = head.part_points(f"ear_{side}")
        top, bottom = ear[:, 1].max(), ear[:, 1].min()
        upper = ear[ear[:, 1] > bottom + 0.6 * (top - bottom)]
        rest = np.array([bottom + 0.84 * (top - bottom), upper[:, 2].mean()])  # y, z
        share = np.linspace(0, 1, TEMPLE_STEPS)[:, None]
        straight = (1 - share) * start[1:] + share * rest
        turn = np.linspace(0, np.pi / 2, HOOK_STEPS + 1)[1:, None]
        hook = rest + HOOK * np.concatenate([1 - np.cos(turn), np.sin(turn)], axis=1)
        path = np.concatenate([straight, hook])  # [k, 2] y, z
        skin = _side_relief(head, sign).widened(0.1).over(path[:, ::-1]) + 0.5 * radius
        beyond = path[:, 1] > start[2] - 0.8  # the end piece turns round before it meets the skin
        wanted = np.where(beyond, sign * start[0], np.maximum(skin + 0.03, 0))
        wanted[0] = sign * start[0]
        wanted[1:4] = np.maximum(wanted[1:4], sign * start[0] + np.array([0.12, 0.2, 0.22]))
        across = _taut(path, wanted)
        lines.append(np.column_stack([sign * across, path]))
        normals.append(np.tile([sign, 0.0, 0.0], (len(path), 1)))
    return np.stack(lines), np.stack(normals)


def _side_relief(head: RestHead, sign: float) -> Relief:
    """How far the skin reaches to a side, over (z, y); the ears do not count."""
    faces = head.template.faces[head.template.face_parts == "skin"]
    points = head.vertices[:, [2, 1, 0]] * (1, 1, sign)
    return build_relief(points, faces, low=(-8, -4), high=(10, 8))


def _taut(path: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The straightest line that keeps the wanted distance: a string drawn tight over it. [k]"""
    length = np.concatenate([[0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    run = length[None] - length[:, None]  # [i, j]
    slopes = np.divide(wanted[None] - wanted[:, None], run, out=np.zeros_like(run), where=run > 0)
    chords = wanted[:, None, None] + slopes[..., None] * (length - length[:, None, None])
    at = np.arange(len(length))
    spans = (at[:, None, None] <= at) & (at <= at[None, :, None])
    return np.where(spans, chords, -np.inf).max(axis=(0, 1))


def _lens(head: RestHead, front: Front, glasses: Glasses, side: str) -> Piece:
    """A thin sheet as spokes from the middle of the lens to its rim."""
    around = np.linspace(0, len(front.outline), NUM_SPOKES + 1)[:, None].astype(int)
    ring = front.outline[around[:, 0] % len(front.outline)]
    spokes = ring[:, None] * LENS_RINGS[:, None]
    plane = (spokes + np.array([front.lens_centre, 0])) * (SIDES[side], 1)
    points, normals = front.at(plane), front.normals(plane)
    return Piece(
        f"{side} lens",
        head.bind(points, normals, glasses.lens_color),
        np.zeros(points.shape[:2]),
        gloss=(0.5, 90.0),
        opacity=glasses.lens_opacity,
        form="lens",
    )


def _tapered(shape: tuple[int, int], radius: float) -> np.ndarray:
    """Radii of tubes with rounded ends. [n, k]"""
    radii = np.full(shape, radius)
    radii[:, [0, -1]] = 0.4 * radius
    return radii
