# SPDX-License-Identifier: Apache-2.0
"""Forty photographs as people really have them, made from a good one and from synthetic people."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from pointillist_hf.data.population.photography import portrait_cameras
from pointillist_hf.data.population.scene import render_frame
from pointillist_hf.data.population.subject import build_subject

GREY = (128, 128, 128)
RIGHT_CHEEK, LEFT_CHEEK, NOSE, CHIN, FOREHEAD = 234, 454, 6, 152, 10
EYES = ((33, 133), (362, 263))
STRANGER = 2_000_003  # the seed of a synthetic person


@dataclass(frozen=True)
class Model:
    """A good photograph, and where its face is."""

    image: Image.Image
    landmarks: np.ndarray  # [468, 2] pixels
    other: Image.Image  # of somebody else

    @property
    def eye_distance(self) -> float:
        """Of the outer canthi, pixels."""
        return float(np.linalg.norm(self.landmarks[33] - self.landmarks[263]))

    def place(self, landmark: int, across: float = 0.0, down: float = 0.0) -> tuple[float, float]:
        """Near a landmark, in eye distances."""
        x, y = self.landmarks[landmark] + self.eye_distance * np.array([across, down])
        return float(x), float(y)

    def frame(self, left: float, top: float, right: float, bottom: float) -> Image.Image:
        """What lies so many eye distances around the bridge of the nose."""
        x, y = self.landmarks[NOSE]
        step = self.eye_distance
        box = (x - left * step, y - top * step, x + right * step, y + bottom * step)
        box = np.clip(box, 0, [*self.image.size] * 2)
        return self.image.crop(tuple(int(edge) for edge in box))


Maker = Callable[[Model], Image.Image]


def _rolled(degrees: float) -> Maker:
    return lambda m: m.image.rotate(
        degrees, expand=True, fillcolor=GREY, resample=Image.Resampling.BICUBIC
    )


def _blurred(share: float) -> Maker:
    return lambda m: m.image.filter(ImageFilter.GaussianBlur(share * m.eye_distance))


def _shaken(m: Model) -> Image.Image:
    pixels = np.asarray(m.image, np.float32)
    steps = max(3, round(0.15 * m.eye_distance))
    return _picture(np.mean([np.roll(pixels, i, axis=1) for i in range(steps)], axis=0))


def _brightened(factor: float) -> Maker:
    return lambda m: ImageEnhance.Brightness(m.image).enhance(factor)


def _compressed(quality: int) -> Maker:
    def make(m: Model) -> Image.Image:
        buffer = io.BytesIO()
        m.image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return make


def _sized(width: int) -> Maker:
    return lambda m: m.image.resize(
        (width, round(width * m.image.height / m.image.width)), Image.Resampling.BICUBIC
    )


def _noisy(m: Model) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 35, (*m.image.size[::-1], 3))
    return _picture(np.asarray(m.image) + noise)


def _lit_from_the_side(m: Model) -> Image.Image:
    slope = np.linspace(0.1, 1.6, m.image.width)[None, :, None]
    return _picture(np.asarray(m.image) * slope)


def _tinted(m: Model) -> Image.Image:
    return _picture(np.asarray(m.image) * np.array([0.5, 1.0, 0.55]))


def _painted(paint: Callable[[ImageDraw.ImageDraw, Model], None]) -> Maker:
    def make(m: Model) -> Image.Image:
        image = m.image.copy()
        paint(ImageDraw.Draw(image), m)
        return image

    return make


def _hand(draw: ImageDraw.ImageDraw, m: Model) -> None:
    """A fist below the chin with fingers up the cheek."""
    skin, shade = (205, 150, 120), (160, 105, 80)
    draw.polygon(
        [m.place(CHIN, *corner) for corner in ((-0.6, 0), (0.5, 0), (0.9, 2), (-0.3, 2))],
        fill=skin,
    )
    for i in range(4):
        start, end = m.place(CHIN, -0.5 + 0.27 * i, 0.3), m.place(CHIN, -0.75 + 0.27 * i, -0.55)
        draw.line([start, end], fill=shade, width=round(0.27 * m.eye_distance))
        draw.line([start, end], fill=skin, width=round(0.22 * m.eye_distance))


def _mask(color: tuple[int, int, int]) -> Callable[[ImageDraw.ImageDraw, Model], None]:
    def paint(draw: ImageDraw.ImageDraw, m: Model) -> None:
        outline = [234, 227, 118, 197, 347, 447, 454, 361, 397, 378, 152, 149, 172, 132]
        draw.polygon([m.place(i) for i in outline], fill=color)

    return paint


def _sunglasses(draw: ImageDraw.ImageDraw, m: Model) -> None:
    for outer, inner in EYES:
        (x0, y0), (x1, y1) = m.place(outer), m.place(inner)
        x, y, radius = (x0 + x1) / 2, (y0 + y1) / 2, 0.24 * m.eye_distance
        draw.ellipse([x - radius, y - 0.8 * radius, x + radius, y + radius], fill=(15, 15, 20))
    draw.line([m.place(133), m.place(362)], fill=(15, 15, 20), width=4)
    for temple, eye in ((RIGHT_CHEEK, 33), (LEFT_CHEEK, 263)):
        draw.line([m.place(temple, 0, -0.1), m.place(eye)], fill=(15, 15, 20), width=4)


def _fringe(draw: ImageDraw.ImageDraw, m: Model) -> None:
    """Dark strands from the hairline across one eye and the cheek."""
    for i in range(30):
        start = m.place(FOREHEAD, -0.3 + 0.02 * i, -0.25)
        middle, end = m.place(33, -0.05 + 0.02 * i, 0.0), m.place(RIGHT_CHEEK, 0.1 + 0.012 * i, 0.7)
        draw.line([start, middle, end], fill=(70 + i, 50 + i // 2, 35), width=3, joint="curve")


def _scarf(draw: ImageDraw.ImageDraw, m: Model) -> None:
    (x0, y0), (x1, y1) = m.place(CHIN, -1.4, -0.15), m.place(CHIN, 1.4, 0.9)
    draw.ellipse([x0, y0, x1, y1], fill=(150, 30, 40))


def _rope(draw: ImageDraw.ImageDraw, m: Model) -> None:
    """A pole that touches the head."""
    draw.line(
        [m.place(LEFT_CHEEK, 0.25, -3), m.place(LEFT_CHEEK, 0.2, 2)], fill=(90, 60, 40), width=9
    )


def _cap(draw: ImageDraw.ImageDraw, m: Model) -> None:
    (x0, y0), (x1, y1) = m.place(FOREHEAD, -0.95, -0.9), m.place(FOREHEAD, 0.95, 0.7)
    draw.pieslice([x0, y0, x1, y1], 180, 360, fill=(30, 60, 150))
    (x0, y0), (x1, y1) = m.place(FOREHEAD, -0.75, -0.2), m.place(FOREHEAD, 0.75, 0.1)
    draw.ellipse([x0, y0, x1, y1], fill=(20, 45, 120))


def _beside(size: float) -> Maker:
    def make(m: Model) -> Image.Image:
        height = round(size * m.image.height)
        other = ImageOps.contain(m.other, (10 * height, height))
        both = Image.new("RGB", (m.image.width + other.width, m.image.height), GREY)
        both.paste(m.image, (0, 0))
        both.paste(other, (m.image.width, m.image.height - other.height))
        return both

    return make


def _padded(width: int, height: int, share: float) -> Maker:
    def make(m: Model) -> Image.Image:
        small = ImageOps.contain(m.image, (int(share * width), int(share * height)))
        page = Image.new("RGB", (width, height), (220, 215, 205))
        page.paste(small, ((width - small.width) // 2, (height - small.height) // 2))
        return page

    return make


def _turned(azimuth: float, elevation: float = 0.0) -> Maker:
    def make(_: Model) -> Image.Image:
        subject = build_subject(STRANGER, resolution="low")
        camera = portrait_cameras([azimuth], [elevation], size=384)
        frame = render_frame(subject.at_rest(), camera)
        color, alpha = frame[..., :3], frame[..., 3:]
        return _picture(255 * (color * alpha + 0.7 * (1 - alpha)))

    return make


def _picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


CASES: dict[str, Maker] = {
    "roll 30": _rolled(-30),
    "roll 90": _rolled(90),
    "roll 135": _rolled(135),
    "upside down": _rolled(180),
    "forehead cut off": lambda m: m.frame(2, 0.35, 2, 2.5),
    "chin cut off": lambda m: m.frame(2, 2, 2, 0.85),
    "half a face": lambda m: m.frame(2.5, 2, 0.12, 2.5),
    "face alone": lambda m: m.frame(0.75, 0.8, 0.75, 1.35),
    "blur": _blurred(0.04),
    "strong blur": _blurred(0.12),
    "shaken": _shaken,
    "dark": _brightened(0.2),
    "night": _brightened(0.05),
    "overexposed": _brightened(2.2),
    "flat": lambda m: ImageEnhance.Contrast(m.image).enhance(0.25),
    "noise": _noisy,
    "JPEG 20": _compressed(20),
    "JPEG 4": _compressed(4),
    "100 pixels": _sized(100),
    "70 pixels": _sized(70),
    "40 pixels": _sized(40),
    "8000 pixels": _sized(8000),
    "grey": lambda m: m.image.convert("L"),
    "green light": _tinted,
    "side light": _lit_from_the_side,
    "posterised": lambda m: ImageOps.posterize(m.image, 2),
    "hand at the chin": _painted(_hand),
    "surgical mask": _painted(_mask((120, 170, 200))),
    "black mask": _painted(_mask((25, 25, 28))),
    "sunglasses": _painted(_sunglasses),
    "fringe": _painted(_fringe),
    "scarf": _painted(_scarf),
    "pole at the head": _painted(_rope),
    "cap": _painted(_cap),
    "two faces": _beside(1.0),
    "a wide page": _padded(2400, 240, 0.95),
    "a tall page": _padded(200, 2000, 0.95),
    "turned by 60": _turned(60),
    "profile": _turned(90),
    "back of the head": _turned(180),
}
