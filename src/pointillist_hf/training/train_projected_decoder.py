# SPDX-License-Identifier: Apache-2.0
"""The decoder that looks at the photograph learns from synthetic people, without a generator.

A lesson is a portrait whose cloud is completed as the pipeline completes it; the splats are
compared with other pictures of the person in the same light.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..data.tokens.stored_pictures import StoredPictures
from ..geometry.cameras import project_points
from ..geometry.structures import Cameras, Gaussians, RigParams
from ..models.modeling_gaussian_decoder import GaussianDecoder, PointSights
from ..portraits.portrait import CHIN, FOREHEAD
from ..refinement.completion import complete_points
from ..refinement.distance_maps import carry_outwards
from ..refinement.dressing import project_cloud
from ..refinement.placement import Placement, place_points
from ..refinement.point_sights import describe_points, sample_colors
from ..refinement.portrait_view import OUTER_CANTHI, PortraitView
from ..refinement.projection import ProjectedPoints
from ..refinement.surface_cloud import SurfaceCloud
from ..rendering import rasterize
from ..rigs.head_rig import HeadRig
from ..rigs.landmark_places import NUM_LANDMARKS
from ..rigs.landmark_sources import IBUG
from .dataset import People, Person
from .device_moves import Companion
from .loop import Batch, train
from .loop_config import LoopConfig
from .losses import LossWeights, image_losses
from .portraits import uniform
from .train_decoder import composite

GREY = 0.5  # behind portraits: what the matte leaves out is not looked at
# Of the eyes' middle over the chin, where the forehead meets the hair.
FOREHEAD_HEIGHT = 0.75
DENSITIES = (0.3, 1.0)  # of completed clouds, so that sparse ones are known as well
OFFSET_WEIGHT = 0.002  # per squared millimetre
NASION = 168


@dataclass(frozen=True)
class Lesson:
    """A portrait, the completed cloud of its person, and where that lies in other pictures."""

    cloud: SurfaceCloud
    projected: ProjectedPoints
    foreground: Tensor  # [H, W, 3] of the portrait
    features: Tensor  # [N, K]
    placements: list[Placement]  # one for each of V views of the person
    images: Tensor | StoredPictures  # [V, H, W, 4] uint8
    cameras: Cameras  # V

    def of_views(self, views: Tensor) -> Lesson:
        """The lesson with some of its views [K]."""
        placements = [self.placements[view] for view in views.tolist()]
        chosen = {"images": self.images[views], "cameras": self.cameras[views]}
        return replace(self, placements=placements, **chosen)


class Lessons:
    """Prepares lessons, and remembers them between epochs.

    Args:
        people: The data set; all pictures of a person in one light.
    """

    def __init__(self, people: People) -> None:
        self.people = people
        self.known: dict[tuple[int, int], Lesson] = {}

    def __call__(self, index: int, portrait: int) -> Lesson:
        """The lesson of a person and one of the portraits."""
        if (index, portrait) not in self.known:
            self.known[index, portrait] = self._prepare(index, portrait)
        return self.known[index, portrait]

    @torch.no_grad()
    def _prepare(self, index: int, portrait: int) -> Lesson:
        person, rig = self.people.persons[index], self.people.rig
        view = view_portrait(person, portrait, rig)
        # Half of the lessons begin with the person's points, half with none.
        points = self.people.tokenizer.decode_points(person.input_ids) if portrait % 2 else None
        stream = torch.Generator().manual_seed(1_000 * index + portrait)
        density = float(uniform(*DENSITIES, 1, stream))
        cloud = complete_points(points, view, rig, density=density)
        projected = project_cloud(cloud, view, rig)
        return Lesson(
            cloud=cloud,
            projected=projected,
            foreground=view.foreground,
            features=describe_points(cloud, projected, view, rig),
            placements=[
                place_points(cloud.points, rig, person.view_params[i : i + 1])
                for i in range(len(person.views))
            ],
            images=person.views,
            cameras=person.view_cameras,
        )


def view_portrait(person: Person, portrait: int, rig: HeadRig) -> PortraitView:
    """A portrait of a data set as the tracker would see it if it made no mistakes."""
    pixels = person.portraits[portrait].float() / 255
    params = person.portrait_params[portrait : portrait + 1]
    cameras = person.portrait_cameras[portrait : portrait + 1]
    matte = pixels[..., 3]
    image = composite(pixels, torch.full((3,), GREY))
    return PortraitView(
        image=image,
        foreground=carry_outwards(pixels[..., :3], matte),
        matte=matte,
        inside=torch.ones_like(matte, dtype=torch.bool),
        landmarks=_landmarks(rig, params, cameras),
        irises=torch.zeros(2, 5, 2),
        cameras=cameras,
        rig_params=params,
    )


def _landmarks(rig: HeadRig, rig_params: RigParams, cameras: Cameras) -> Tensor:
    """The rig's own landmarks in place of the 468; those it does not have lie between the eyes."""
    marks, _ = project_points(rig.landmarks(rig(rig_params))[0], cameras)
    landmarks = marks[0, IBUG.index(NASION)].repeat(NUM_LANDMARKS, 1)
    landmarks[list(IBUG)] = marks[0]
    middle = landmarks[list(OUTER_CANTHI)].mean(0)
    landmarks[FOREHEAD] = middle + FOREHEAD_HEIGHT * (middle - landmarks[CHIN])
    return landmarks


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
    sights = PointSights(
        features=lesson.features[None],
        samples=sample_colors(lesson.projected, foreground)[None],
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
    weights: LossWeights | None = None,
    perceptual: nn.Module | None = None,
) -> GaussianDecoder:
    """Trains the decoder on the portraits and views of a data set.

    Args:
        decoder: Trained in place.
        people: The data set; all pictures of a person in one light.
        config: Of the loop.
        views_per_lesson: Pictures that the splats of a portrait are compared with.
        weights: Of Eq. 6; `offset` is not used, offsets being held per squared millimetre.
        perceptual: The third term; None leaves it out.
    """
    lessons = Lessons(people)

    def make_row(index: Tensor, generator: torch.Generator) -> Batch:
        person = people.persons[int(index)]
        return {
            "index": int(index),
            "portrait": int(torch.randint(len(person.portraits), (), generator=generator)),
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
