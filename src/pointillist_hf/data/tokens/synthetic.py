# SPDX-License-Identifier: Apache-2.0
"""Tokenised data sets of synthetic people, whose points are known and need no fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from ...exporters.folder_owner import own_folder
from ...exporters.path_names import check_path_name
from ...geometry.number_checks import check_integer, check_number
from ...geometry.structures import CanonicalPoints
from ...models.tokenization_points import PointTokenizer, TokenLayout
from ...rigs.head_rig import HeadRig
from ...rigs.procedural.template import build_template
from ...rigs.procedural_rig import ProceduralHeadRig, check_resolution
from ..population.casting import cast_seeds
from ..population.cloud import sample_cloud
from ..population.photography import light_of, take_portraits, take_snapshots, take_views
from ..population.subject import build_subject
from ..rig_reference import rig_hash
from ..work_pool import run_jobs
from .dataset import DatasetCard, check_card, shard_paths, write_header, write_rows
from .rows import TokenisedPerson, build_row

LICENCE, SOURCE = "apache-2.0", "pointillist_hf population"
PROCEDURAL_CUBE = {"cube_center": [0.0, -0.035, -0.03], "cube_half_extent": 0.25}
# Far apart, so that no person of one split can be met in the other.
FIRST_SEED = {"train": 1_000_000, "test": 2_000_000}

MAX_CAST = 10**5  # people chosen out of a million

# People of one split and seed lie a million numbers apart.
COUNTS = {
    "num_train": (1, 10**6), "num_test": (0, 10**6), "seed": (0, 10**6),
    "identities_per_shard": (1, 2**16), "num_portraits": (1, 1024), "num_views": (0, 4096),
    "num_skin_points": (1, 10**6), "hair_budget": (0, 10**6), "num_rig_points": (1, 2**20),
    "image_size": (16, 2**12),
}  # fmt: skip


@dataclass(frozen=True)
class SyntheticDatasetConfig:
    """What a synthetic data set holds."""

    num_train: int = 512
    num_test: int = 32
    seed: int = 0

    # rig and tokens
    resolution: str = "low"
    num_bins: int = 256
    token_order: str = "yzxb"

    # points
    num_skin_points: int = 700
    hair_budget: int = 600
    own_every_face: bool = False  # a point in the middle of each face of the rig, as fits have it

    # share of the people who are taken for glasses, a beard, long or tied hair
    rare_share: float = 0.0
    # whether some people wear glasses or earrings
    use_accessories: bool = True

    # pictures per person, and their side in pixels; the generator learns without views
    num_portraits: int = 3
    num_views: int = 9
    image_size: int = 128
    # whether all pictures of a person are taken in one light, as a decoder that takes colours from
    # the portrait wants them; else views are taken in studio light
    use_one_light: bool = False
    # whether portraits are as photographs: lens, crop, tones, noise, JPEG, rests of a background
    use_snapshots: bool = False

    num_rig_points: int = 1024  # conditioning points

    identities_per_shard: int = 16

    def __post_init__(self) -> None:
        for name, (low, high) in COUNTS.items():
            check_integer(name, getattr(self, name), low, high)
        check_number("rare_share", self.rare_share, 0, 1)
        if self.rare_share and max(self.num_train, self.num_test) > MAX_CAST:
            raise ValueError(
                f"`num_train` and `num_test` must be at most {MAX_CAST} where people are chosen by "
                f"`rare_share`, got {self.num_train} and {self.num_test}."
            )
        check_resolution(self.resolution)
        if self.own_every_face:
            num_faces = len(build_template(self.resolution).faces)
            if self.num_skin_points < num_faces:
                raise ValueError(
                    f"`num_skin_points` must be at least {num_faces} where every face of the rig "
                    f"gets one, got {self.num_skin_points}; use more, or own_every_face=False."
                )
        TokenLayout(self.num_bins, 1, self.token_order)

    def build_tokenizer(self, rig: HeadRig) -> PointTokenizer:
        """The tokenizer of the data set's points."""
        return PointTokenizer(
            num_bins=self.num_bins,
            num_faces=rig.num_faces,
            token_order=self.token_order,
            **PROCEDURAL_CUBE,
        )


@dataclass(frozen=True)
class Shard:
    """A file of the data set and the people in it."""

    path: Path
    split: str
    seeds: tuple[int, ...]


def build_synthetic_dataset(
    output_dir: str | Path,
    config: SyntheticDatasetConfig | None = None,
    *,
    num_proc: int = 1,
    show_progress: bool = True,
) -> Path:
    """Writes a data set of the synthetic population.

    Finished shards are left as they are, so an interrupted call goes on where it stopped.

    Args:
        output_dir: Folder to write to.
        config: What it holds.
        num_proc: Processes.
        show_progress: Whether to draw a bar.

    Returns:
        The folder.

    Raises:
        ValueError: The folder holds a data set of another configuration.
    """
    config, output_dir = config or SyntheticDatasetConfig(), Path(output_dir)
    check_path_name("output_dir", output_dir)
    rig = ProceduralHeadRig(config.resolution)
    card, tokenizer = _card(config, rig), config.build_tokenizer(rig)
    check_card(output_dir, card, tokenizer)
    with own_folder(output_dir):
        write_header(output_dir, card, tokenizer, rig)
        missing = [s for s in list_shards(output_dir, config) if not s.path.exists()]
        work, bar = partial(write_shard, config=config), {"show_progress": show_progress}
        for _ in run_jobs(work, missing, num_proc=num_proc, unit="shard", **bar):
            pass
    return output_dir


def _card(config: SyntheticDatasetConfig, rig: HeadRig) -> DatasetCard:
    return DatasetCard(
        title="Tokenised synthetic avatars",
        description="People of the procedural population of `pointillist_hf`: no photograph and "
        "no scan of anybody.",
        licence=LICENCE,
        splits=("train", "test") if config.num_test else ("train",),
        settings=asdict(config) | {"rig_hash": rig_hash(rig)},
    )


def list_shards(output_dir: Path, config: SyntheticDatasetConfig) -> list[Shard]:
    """All files of the data set, whether they exist or not."""
    shards = []
    for split, count in (("train", config.num_train), ("test", config.num_test)):
        first = FIRST_SEED[split] + 10_000_000 * config.seed
        seeds = cast_seeds(
            first,
            count,
            rare_share=config.rare_share,
            resolution=config.resolution,
            use_accessories=config.use_accessories,
        )
        step = config.identities_per_shard
        parts = [seeds[i : i + step] for i in range(0, count, step)]
        paths = shard_paths(output_dir, split, len(parts))
        shards += [Shard(n, split, p) for n, p in zip(paths, parts, strict=True)]
    return shards


def write_shard(shard: Shard, config: SyntheticDatasetConfig) -> None:
    """Makes the people of a shard and writes its file in one move."""
    rig = ProceduralHeadRig(config.resolution)
    tokenizer = config.build_tokenizer(rig)
    rows = [
        build_row(
            sample_person(seed, shard.split, rig, config),
            rig,
            tokenizer,
            num_rig_points=config.num_rig_points,
        )
        for seed in shard.seeds
    ]
    write_rows(rows, shard.path)


def sample_person(
    seed: int, split: str, rig: HeadRig, config: SyntheticDatasetConfig
) -> TokenisedPerson:
    """The person of a seed."""
    subject = build_subject(
        seed, resolution=config.resolution, use_accessories=config.use_accessories
    )
    cloud = sample_cloud(
        subject,
        num_skin_points=config.num_skin_points,
        hair_budget=config.hair_budget,
        own_every_face=config.own_every_face,
    )
    lighting = light_of(subject) if config.use_one_light else None
    camera = {"size": config.image_size, "lighting": lighting}
    take = take_snapshots if config.use_snapshots else take_portraits
    return TokenisedPerson(
        identity=str(seed),
        split=split,
        source=SOURCE,
        licence=LICENCE,
        points=CanonicalPoints(
            torch.tensor(cloud.means, dtype=torch.float32), torch.tensor(cloud.bindings)
        ),
        betas=torch.tensor(subject.identity.betas, dtype=torch.float32),
        portraits=take(subject, rig, config.num_portraits, **camera),
        views=take_views(subject, rig, config.num_views, **camera),
        hair_style=subject.identity.hair_style,
    )
