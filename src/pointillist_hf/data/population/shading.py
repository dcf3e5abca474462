# SPDX-License-Identifier: Apache-2.0
"""Light on skin, hair, and what people wear.

Light is linear here: sRGB colours are brought in by `to_light` and back by `to_srgb`. Directions
are in world space: x to the subject's left, y up, the face looks along +z.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .strands import unit

GAMMA = 1.9
# Light creeps round the terminator, red farthest: it travels through the skin.
SKIN_WRAP = (0.40, 0.25, 0.22)
HAIR_WRAP = 0.35
SOLID_WRAP = (0.15, 0.15, 0.15)


@dataclass(frozen=True)
class Lighting:
    """Three directional lights - key, fill, rim - and the ambient light."""

    directions: np.ndarray = field(  # [3, 3] unit vectors towards the lights
        default_factory=lambda: unit(
            np.array([[0.45, 0.55, 0.75], [-0.7, 0.15, 0.6], [0.0, 0.5, -1.0]])
        )
    )
    colors: np.ndarray = field(  # [3, 3] linear RGB, brightness included
        default_factory=lambda: np.array(
            [[0.62, 0.601, 0.577], [0.2325, 0.24, 0.25], [0.12, 0.12, 0.12]]
        )
    )
    ambient: float = 0.30


def sample_lighting(rng: np.random.Generator) -> Lighting:
    """Light from anywhere in front, cold or warm, soft or hard."""
    studio = Lighting()
    turn = np.radians(rng.uniform(-75, 50))
    cos, sin = np.cos(turn), np.sin(turn)
    directions = studio.directions @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    directions = directions + np.array([0, rng.uniform(-0.25, 0.35), 0])
    warmth = rng.normal(0, 0.08)
    tones = 1 + np.array([[warmth], [-0.5 * warmth], [0.0]]) * np.array([1, 0.1, -1])
    brightness = np.array([rng.uniform(0.7, 1.2), rng.uniform(0.4, 1.6), rng.uniform(0.3, 2.5)])
    return Lighting(
        directions=unit(directions),
        colors=studio.colors * tones * brightness[:, None],
        ambient=float(rng.uniform(0.22, 0.40)),
    )


def shade_surface(
    light: np.ndarray,
    normals: np.ndarray,
    views: np.ndarray,
    occlusion: np.ndarray,
    gloss: tuple[np.ndarray, np.ndarray],
    lighting: Lighting,
    wrap: tuple[float, float, float] = SKIN_WRAP,
) -> np.ndarray:
    """Light that leaves skin or solids towards the camera.

    Args:
        light: Reflectance, linear. [n, 3].
        normals: Unit, world space. [n, 3].
        views: Unit vectors towards the camera. [n, 3].
        occlusion: Share of the ambient light that arrives. [n].
        gloss: Strength [n] and exponent [n] of the highlight.
        lighting: In world space.
        wrap: How far the light creeps round the terminator, by channel.

    Returns:
        [n, 3]
    """
    strength, exponent = gloss
    wrap = np.asarray(wrap, np.float32)
    received = np.repeat(
        ((lighting.ambient + 0.13 * normals[:, 1]) * occlusion)[:, None], 3, axis=1
    )
    highlight = np.zeros_like(received)
    for direction, color in _lights(lighting):
        facing = (normals @ direction)[:, None]
        diffuse = np.clip((facing + wrap) / (1 + wrap), 0, 1)
        received += diffuse * color * (0.45 + 0.55 * occlusion)[:, None]
        aligned = np.clip(_dot(normals, unit(views + direction)), 0, 1)
        highlight += (strength * aligned**exponent)[:, None] * color
    return light * received + highlight


def shade_strands(
    light: np.ndarray,
    normals: np.ndarray,
    tangents: np.ndarray,
    views: np.ndarray,
    gloss: np.ndarray,
    lighting: Lighting,
) -> np.ndarray:
    """Light that leaves strands towards the camera, by Kajiya and Kay's model.

    A strand has no side of its own, so the normals of the hull around the hair tell which strands
    face the light. Arguments as in `shade_surface`; `tangents` are unit vectors along the strands,
    `gloss` is the strength of the highlight. [n, 3]
    """
    received = np.repeat((lighting.ambient + 0.04 + 0.16 * normals[:, 1])[:, None], 3, axis=1)
    highlight = np.zeros_like(received)
    for direction, color in _lights(lighting):
        diffuse = np.sqrt(np.clip(1 - (tangents @ direction) ** 2, 0, 1))
        facing = np.clip((normals @ direction + HAIR_WRAP) / (1 + HAIR_WRAP), 0, 1)
        received += (diffuse * facing)[:, None] * color
        along = _dot(tangents, unit(views + direction))
        peak = gloss * np.clip(1 - along**2, 0, 1) ** 40 * facing
        highlight += peak[:, None] * color
    # The highlight of hair is partly its own colour.
    hue = light / np.maximum(light.max(axis=1, keepdims=True), 1e-3)
    return light * received + highlight * (0.25 + 0.75 * hue)


def reflect_lights(
    normals: np.ndarray, views: np.ndarray, gloss: np.ndarray, lighting: Lighting
) -> np.ndarray:
    """Highlights alone; gloss is strength and exponent, [n, 2]. [n, 3]"""
    highlight = np.zeros_like(normals)
    for direction, color in _lights(lighting):
        aligned = np.clip(_dot(normals, unit(views + direction)), 0, 1)
        highlight += (gloss[:, 0] * aligned ** gloss[:, 1])[:, None] * color
    return highlight


def to_light(colors: np.ndarray) -> np.ndarray:
    """Linear reflectance of sRGB colours."""
    return np.power(colors, np.float32(GAMMA))


def to_srgb(light: np.ndarray) -> np.ndarray:
    """Colours of linear light, with a shoulder that keeps highlights from clipping."""
    shoulder = 1.08 * np.clip(light, 0, 1.4) / (1 + 0.08 * light)
    return np.power(np.clip(shoulder, 0, 1), np.float32(1 / GAMMA))


def _lights(lighting: Lighting) -> list[tuple[np.ndarray, np.ndarray]]:
    """Direction and colour of each light."""
    directions = lighting.directions.astype(np.float32)
    return list(zip(directions, lighting.colors.astype(np.float32), strict=True))


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[n, 3] x [n, 3] -> [n]."""
    return np.einsum("nx,nx->n", first, second)
