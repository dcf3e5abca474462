# SPDX-License-Identifier: Apache-2.0
"""Does the model look at its input? Avatars of people it has never seen, told apart.

Each avatar is made from one portrait and rendered from a camera that no portrait uses, at rest. It
is compared with the ground truth of every person from that camera: the nearest should be its own.
The baseline is the mean picture of the training population, which no constant avatar can beat in
squared error.

A portrait does not tell how large the head is, nor in what light it stands, and an avatar with the
colours of the photograph keeps its light. So the avatar is compared a second time: with the truth
in the portrait's own light, and scaled and shifted, not turned, until its face is where the true
face is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ..avatar import Avatar
from ..data.population.cloud import sample_cloud
from ..data.population.photography import light_of, portrait_cameras, take_portraits
from ..data.population.scene import render_frame
from ..data.population.shading import Lighting
from ..data.population.subject import Subject, build_subject
from ..data.tokens.synthetic import FIRST_SEED, SyntheticDatasetConfig
from ..geometry.structures import Cameras
from ..pipeline_avatar import AvatarPipeline
from ..rendering import rasterize
from ..rendering.similarity import psnr
from ..rigs.procedural_rig import ProceduralHeadRig
from .rankings import pairwise_errors, rank_correlation

HELD_OUT_AZIMUTH, HELD_OUT_ELEVATION = 35.0, 12.0
PORTRAIT_SIZE, BATCH_SIZE = 384, 4


@dataclass(frozen=True)
class Identification:
    """Results for K people."""

    nearest: Tensor  # [K] whose ground truth each avatar is nearest to
    psnr: Tensor  # [K] of each avatar against its own ground truth, dB
    matched_nearest: Tensor  # [K] the same, in one light, and with faces of one size and place
    matched_psnr: Tensor  # [K]
    mean_psnr: Tensor  # [K] of the population's mean picture, dB
    num_points: Tensor  # [K] generated
    true_num_points: Tensor  # [K] of the ground-truth clouds
    hair_styles: list[str]
    pictures: Tensor  # [K, 3, H, W, 3] portrait, avatar, truth; in one light, of one size

    @property
    def num_correct(self) -> int:
        """Avatars nearest to their own ground truth."""
        return _count_own(self.nearest)

    @property
    def num_matched_correct(self) -> int:
        """The same, in one light, and with faces of one size and place."""
        return _count_own(self.matched_nearest)

    @property
    def gain(self) -> float:
        """Mean PSNR over the baseline's, dB."""
        return float((self.psnr - self.mean_psnr).mean())

    @property
    def count_correlation(self) -> float:
        """Rank correlation of generated and true numbers of points."""
        return rank_correlation(self.num_points, self.true_num_points)


def identify_people(
    pipe: AvatarPipeline,
    config: SyntheticDatasetConfig | None = None,
    *,
    num_people: int = 16,
    first_person: int = 0,
    num_mean: int = 64,
    size: int = 128,
    seed: int = 0,
    show_progress: bool = True,
) -> Identification:
    """Runs the protocol on people of the test split.

    Args:
        pipe: The model.
        config: Of the data set it was trained on; points and resolution must agree.
        num_people: K.
        first_person: Place of the first of them in the split.
        num_mean: Training people in the mean picture.
        size: Side of the compared pictures, pixels.
        seed: Of the generation.
        show_progress: Whether to draw a bar.
    """
    config = config or SyntheticDatasetConfig()
    camera = portrait_cameras([HELD_OUT_AZIMUTH], [HELD_OUT_ELEVATION], size=size)
    backdrop = torch.tensor(pipe.image_processor.background)
    mean = torch.stack(
        [
            _true_picture(person, camera, backdrop)
            for person in draw_people("train", num_mean, config)
        ]
    ).mean(0)
    people = list(draw_people("test", num_people, config, first=first_person))
    truth = torch.stack([_true_picture(person, camera, backdrop) for person in people])
    portraits = [take_portrait(person) for person in people]
    # A tracker frames the head; without one, synthetic portraits are framed already.
    framed = {"detect_face": False, "remove_background": False}
    options = framed if pipe.portrait_tracker is None else {}
    avatars, matched, counts = [], [], []
    for i in tqdm(range(0, num_people, BATCH_SIZE), disable=not show_progress, desc="avatars"):
        made = pipe(portraits[i : i + BATCH_SIZE], seed=seed, **options)
        avatars += [avatar.render(camera, background=backdrop)[0] for avatar in made.avatars]
        matched += [
            _render_matched(avatar, person, camera, backdrop)
            for avatar, person in zip(made.avatars, people[i : i + BATCH_SIZE], strict=True)
        ]
        counts += [len(pipe.tokenizer.decode_points(ids)) for ids in made.input_ids]
    images, same_size = torch.stack(avatars), torch.stack(matched)
    same_light = torch.stack(
        [_true_picture(person, camera, backdrop, light_of(person)) for person in people]
    )
    names = ("num_skin_points", "hair_budget", "own_every_face")
    points = {name: getattr(config, name) for name in names}
    true_counts = [len(sample_cloud(person, **points)) for person in people]
    shown = [_resized(portrait, size) for portrait in portraits]
    return Identification(
        nearest=pairwise_errors(images, truth).argmin(1),
        psnr=psnr(images, truth),
        matched_nearest=pairwise_errors(same_size, same_light).argmin(1),
        matched_psnr=psnr(same_size, same_light),
        mean_psnr=psnr(mean.expand_as(truth), truth),
        num_points=torch.tensor(counts),
        true_num_points=torch.tensor(true_counts),
        hair_styles=[person.identity.hair_style for person in people],
        pictures=torch.stack([torch.stack(shown), same_size, same_light], dim=1),
    )


def draw_people(
    split: str, count: int, config: SyntheticDatasetConfig, *, first: int = 0
) -> Iterator[Subject]:
    """People of a split of a data set, from the one at place `first` on."""
    start = FIRST_SEED[split] + 10_000_000 * config.seed + first
    for seed in range(start, start + count):
        yield build_subject(
            seed, resolution=config.resolution, use_accessories=config.use_accessories
        )


def _count_own(nearest: Tensor) -> int:
    return int((nearest == torch.arange(len(nearest))).sum())


def _render_matched(avatar: Avatar, person: Subject, camera: Cameras, backdrop: Tensor) -> Tensor:
    """The avatar at rest, its face as large as the true one and at its place. [H, W, 3]"""
    rig, betas = avatar.rig, torch.tensor(person.identity.betas).to(avatar.betas)
    face = rig.mask("face")
    ours, theirs = rig.canonical_vertices(torch.stack([avatar.betas, betas]))[:, face]
    middle, target = ours.mean(0), theirs.mean(0)
    scale = (theirs - target).norm() / (ours - middle).norm()
    posed = avatar.animate().gaussians[0]
    means = (posed.means - middle) * scale + target
    resized = replace(posed, means=means, scales=posed.scales * scale)
    return rasterize(resized, camera, backgrounds=backdrop[None])[0][0].clamp(0, 1)


def _true_picture(
    person: Subject, camera: Cameras, backdrop: Tensor, lighting: Lighting | None = None
) -> Tensor:
    lit = {} if lighting is None else {"lighting": lighting}
    picture = torch.from_numpy(render_frame(person.at_rest(), camera, **lit))
    alpha = picture[..., 3:]
    return picture[..., :3] * alpha + backdrop * (1 - alpha)


def take_portrait(person: Subject) -> Image.Image:
    """A portrait of the person that is in no data set, with alpha."""
    # People live on the head of today, whatever head a pipeline was trained on.
    rig = ProceduralHeadRig(person.resolution)
    light = {"lighting": light_of(person)}
    picture = take_portraits(person, rig, 1, size=PORTRAIT_SIZE, seed=1, **light).images[0]
    return Image.fromarray(np.round(255 * picture).astype(np.uint8))


def _resized(portrait: Image.Image, size: int) -> Tensor:
    flat = Image.new("RGBA", portrait.size, "white")
    flat.alpha_composite(portrait)
    return torch.from_numpy(np.array(flat.convert("RGB").resize((size, size)))).float() / 255
