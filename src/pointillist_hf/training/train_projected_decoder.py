# SPDX-License-Identifier: Apache-2.0
"""The decoder that looks at the photograph learns from synthetic people, without a generator.

The splats of a lesson are compared with other pictures of the person in the same light.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..geometry.structures import Gaussians
from ..models.modeling_gaussian_decoder import GaussianDecoder, PointSights
from ..refinement.point_sights import sample_colors
from ..rendering import rasterize
from .dataset import People
from .device_moves import Companion
from .lessons import Lesson, Lessons
from .loop import Batch, train
from .loop_config import LoopConfig
from .losses import LossWeights, image_losses
from .portraits import uniform
from .train_decoder import composite

OFFSET_WEIGHT = 0.002  # per squared millimetre


class ProjectedDecoderTraining(nn.Module):
    """The decoder with the picture terms of Eq. 6, one lesson at a time."""

    def __init__(
        self,
        decoder: GaussianDecoder,
        weights: LossWeights,
        perceptual: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.decoder, self.weights = decoder, weights
        self.perceptual = None if perceptual is None else Companion(perceptual)
        # What accelerate's FSDP shards, unless told otherwise.
        self._no_split_modules = list(decoder._no_split_modules)

    def forward(
        self,
        lessons: list[Lesson],
        backgrounds: list[Tensor],
        tones: list[Tensor],
    ) -> dict[str, Tensor]:
        """Losses of B lessons, each compared with all of its views."""
        rows = [self._losses(*row) for row in zip(lessons, backgrounds, tones, strict=True)]
        terms = {name: torch.stack([row[name] for row in rows]).mean() for name in rows[0]}
        return {"loss": terms["image"] + OFFSET_WEIGHT * terms["offset"], **terms}

    def _losses(self, lesson: Lesson, background: Tensor, tone: Tensor) -> dict[str, Tensor]:
        gaussians, offsets = decode_lesson(self.decoder, lesson, tone)
        with torch.autocast(background.device.type, enabled=False):
            rendered = torch.cat(
                [
                    render_lesson(gaussians, lesson, view, background)
                    for view in range(len(lesson.placements))
                ]
            )
            target = lesson.images.float() / 255
            target = torch.cat([change_tone(target[..., :3], tone), target[..., 3:]], dim=-1)
            distance = None if self.perceptual is None else self.perceptual.on(background.device)
            target = composite(target, background)
            losses = image_losses(rendered, target, self.weights, distance)
        return {**losses, "offset": (1e3 * offsets).square().sum(-1).mean()}


def decode_lesson(
    decoder: GaussianDecoder, lesson: Lesson, tone: Tensor | None = None
) -> tuple[Gaussians, Tensor]:
    """The splats of a lesson and their offsets [N, 3], its portrait being in another tone."""
    foreground = lesson.foreground
    foreground = foreground if tone is None else change_tone(foreground, tone)
    # Half precision is for networks: colours are mixed in float32.
    with torch.autocast(foreground.device.type, enabled=False):
        samples = sample_colors(lesson.projected, foreground)[None]
    sights = PointSights(
        features=lesson.features[None],
        samples=samples,
        quats=lesson.cloud.quats[None],
        scales=lesson.cloud.scales[None],
    )
    output = decoder(lesson.cloud.means[None], sights=sights)
    return output.gaussians(0, len(lesson.cloud)), output.offsets[0]


def render_lesson(gaussians: Gaussians, lesson: Lesson, view: int, background: Tensor) -> Tensor:
    """The splats as one of the person's views shows them. [1, H, W, 3]"""
    posed = lesson.placements[view].pose_gaussians(gaussians)
    cameras = lesson.cameras[view : view + 1]
    return rasterize(posed, cameras, backgrounds=background[None])[0]


def sample_tone(generator: torch.Generator) -> Tensor:
    """A change of tone that portrait and views share: gains, exponent, saturation. [5]"""
    gain, gamma, saturation = uniform(-1, 1, 3, generator)
    balance = 1 + 0.08 * uniform(-1, 1, 3, generator)
    return torch.cat(
        [balance * (1 + 0.2 * gain), (1 + 0.25 * gamma)[None], (1 + 0.4 * saturation)[None]]
    )


def change_tone(colors: Tensor, tone: Tensor) -> Tensor:
    """SRGB colours in another tone. [..., 3], [5] -> [..., 3]"""
    grey = colors.mean(-1, keepdim=True)
    saturated = (grey + tone[4] * (colors - grey)).clamp(0, 1)
    return (saturated ** tone[3] * tone[:3]).clamp(0, 1)


def train_projected_decoder(
    decoder: GaussianDecoder,
    people: People,
    config: LoopConfig,
    *,
    views_per_lesson: int = 1,
    portraits_per_person: int | None = None,
    weights: LossWeights | None = None,
    perceptual: nn.Module | None = None,
    lessons: Lessons | None = None,
) -> GaussianDecoder:
    """Trains the decoder on the portraits and views of a data set.

    Args:
        decoder: Trained in place.
        people: The data set; all pictures of a person in one light.
        config: Of the loop.
        views_per_lesson: Pictures that the splats of a portrait are compared with.
        portraits_per_person: How many of them are looked at, which differ from person to person;
            None looks at all.
        weights: Of Eq. 6; `offset` is not used, offsets being held per squared millimetre.
        perceptual: The third term; None leaves it out.
        lessons: Of the data set; None takes true tracks and true points. The tracker's errors, and
            the generator's, pay late, not early.
    """
    lessons = lessons or Lessons(people)

    def make_row(index: Tensor, generator: torch.Generator) -> Batch:
        person = people.persons[int(index)]
        known, first = len(person.portraits), 0 if portraits_per_person is None else int(index)
        number = torch.randint(portraits_per_person or known, (), generator=generator)
        return {
            "index": int(index),
            "portrait": (first + int(number)) % known,
            "views": torch.randperm(len(person.views), generator=generator)[:views_per_lesson],
            "background": torch.rand(3, generator=generator),
            "tone": sample_tone(generator),
        }

    def collate(rows: list[Batch]) -> Batch:
        return {
            "lessons": [
                lessons(row["index"], row["portrait"]).of_views(row["views"]) for row in rows
            ],
            "backgrounds": [row["background"] for row in rows],
            "tones": [row["tone"] for row in rows],
        }

    training = ProjectedDecoderTraining(decoder, weights or LossWeights(), perceptual)
    return train(training, make_row, collate, len(people), config).decoder
