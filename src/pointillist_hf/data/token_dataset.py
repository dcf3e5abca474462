# SPDX-License-Identifier: Apache-2.0
"""Tokenised avatars as Parquet: one row per person, loadable with `datasets.load_dataset`.

A row (schema version 1):

    identity              int64           seed of the person
    hair_style            string
    num_points            int32           N
    input_ids             list<uint16>    4 (N + 2) tokens of `PointTokenizer`
    betas                 list<float32>   identity coefficients of the rig [S]
    portraits             list<image>     frontal, varied light, RGBA
    portrait_expression   list<float32>   K x E values, row by row
    portrait_poses        list<float32>   K x 15: root, neck, jaw, left eye, right eye
    views                 list<image>     from all around, studio light, RGBA
    view_expression       list<float32>   K x E
    view_poses            list<float32>   K x 15
    view_viewmats         list<float32>   K x 16, world to camera, OpenCV
    view_Ks               list<float32>   K x 9, pixels

The folder also holds `tokenizer/` and `rig/`, which the numbers refer to, and `README.md`, the
card that names the splits.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Features, Image, List, Value, load_dataset
from PIL import Image as PILImage
from tqdm.auto import tqdm

from ..geometry.structures import POSE_NAMES, Cameras, CanonicalPoints, RigParams
from ..models.tokenization_points import PointTokenizer
from ..rigs.head_rig import HeadRig
from ..rigs.procedural_rig import ProceduralHeadRig
from .population.cloud import sample_cloud
from .population.subject import build_subject
from .synthetic import Pictures, take_portraits, take_views

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
PROCEDURAL_CUBE = {"cube_center": [0.0, -0.035, -0.03], "cube_half_extent": 0.25}
# Far apart, so that no person of one split can be met in the other.
FIRST_SEED = {"train": 1_000_000, "test": 2_000_000}

FEATURES = Features(
    {
        "identity": Value("int64"),
        "hair_style": Value("string"),
        "num_points": Value("int32"),
        "input_ids": List(Value("uint16")),
        "betas": List(Value("float32")),
        "portraits": List(Image()),
        "portrait_expression": List(Value("float32")),
        "portrait_poses": List(Value("float32")),
        "views": List(Image()),
        "view_expression": List(Value("float32")),
        "view_poses": List(Value("float32")),
        "view_viewmats": List(Value("float32")),
        "view_Ks": List(Value("float32")),
    }
)


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

    # whether some people wear glasses or earrings
    use_accessories: bool = True

    # pictures per person, and their side in pixels
    num_portraits: int = 3
    num_views: int = 9
    image_size: int = 128

    identities_per_shard: int = 16

    def __post_init__(self) -> None:
        for name in ("num_train", "identities_per_shard", "num_portraits", "num_views"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.num_test < 0 or self.image_size < 16:
            raise ValueError(
                "`num_test` must not be negative and `image_size` must be at least 16, "
                f"got {self.num_test} and {self.image_size}."
            )

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
    output_dir.mkdir(parents=True, exist_ok=True)
    rig = ProceduralHeadRig(config.resolution)
    _write_header(output_dir, config, rig)
    missing = [s for s in list_shards(output_dir, config) if not s.path.exists()]
    bar = tqdm(total=len(missing), unit="shard", disable=not show_progress)
    with bar:
        if num_proc == 1:
            for shard in missing:
                write_shard(shard, config)
                bar.update()
        else:
            # Forked children would inherit torch's thread pool in an unusable state.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(num_proc, context, _use_one_thread) as pool:
                for _ in pool.map(write_shard, missing, [config] * len(missing)):
                    bar.update()
    return output_dir


def _use_one_thread() -> None:
    torch.set_num_threads(1)


def list_shards(output_dir: Path, config: SyntheticDatasetConfig) -> list[Shard]:
    """All files of the data set, whether they exist or not."""
    shards = []
    for split, count in (("train", config.num_train), ("test", config.num_test)):
        first = FIRST_SEED[split] + 10_000_000 * config.seed
        seeds, step = range(first, first + count), config.identities_per_shard
        parts = [tuple(seeds[i : i + step]) for i in range(0, count, step)]
        names = [f"{split}-{i:05d}-of-{len(parts):05d}.parquet" for i in range(len(parts))]
        shards += [Shard(output_dir / n, p) for n, p in zip(names, parts, strict=True)]
    return shards


def write_shard(shard: Shard, config: SyntheticDatasetConfig) -> None:
    """Makes the people of a shard and writes its file in one move."""
    rig = ProceduralHeadRig(config.resolution)
    tokenizer = config.build_tokenizer(rig)
    rows = [build_row(seed, rig, tokenizer, config) for seed in shard.seeds]
    partial = shard.path.with_suffix(".partial")
    Dataset.from_list(rows, features=FEATURES).to_parquet(partial)
    os.replace(partial, shard.path)


def build_row(
    seed: int, rig: HeadRig, tokenizer: PointTokenizer, config: SyntheticDatasetConfig
) -> dict[str, object]:
    """One person as a row of the data set."""
    subject = build_subject(
        seed, resolution=config.resolution, use_accessories=config.use_accessories
    )
    cloud = sample_cloud(
        subject, num_skin_points=config.num_skin_points, hair_budget=config.hair_budget
    )
    points = CanonicalPoints(
        torch.tensor(cloud.means, dtype=torch.float32), torch.tensor(cloud.bindings)
    )
    portraits = take_portraits(subject, rig, config.num_portraits, size=config.image_size)
    views = take_views(subject, rig, config.num_views, size=config.image_size)
    return {
        "identity": seed,
        "hair_style": subject.identity.hair_style,
        "num_points": len(points),
        "input_ids": tokenizer.encode_points(points).tolist(),
        "betas": subject.identity.betas.tolist(),
        **_picture_columns("portrait", portraits),
        **_picture_columns("view", views),
        "view_viewmats": views.cameras.viewmats.flatten().tolist(),
        "view_Ks": views.cameras.Ks.flatten().tolist(),
    }


def _picture_columns(kind: str, pictures: Pictures) -> dict[str, object]:
    pixels = np.round(255 * pictures.images).astype(np.uint8)
    return {
        f"{kind}s": [PILImage.fromarray(image) for image in pixels],
        f"{kind}_expression": pictures.rig_params.expression.flatten().tolist(),
        f"{kind}_poses": pictures.rig_params.poses.flatten().tolist(),
    }


def _write_header(output_dir: Path, config: SyntheticDatasetConfig, rig: HeadRig) -> None:
    card = output_dir / "README.md"
    text = _card(config, rig)
    if card.exists() and card.read_text() != text:
        raise ValueError(
            f"`output_dir` must be empty or hold the same data set, and {output_dir} holds one of "
            "another configuration. Choose another folder, or remove it."
        )
    config.build_tokenizer(rig).save_pretrained(output_dir / "tokenizer")
    rig.save_pretrained(output_dir / "rig")
    card.write_text(text)


def _card(config: SyntheticDatasetConfig, rig: HeadRig) -> str:
    settings = "\n".join(f"| `{name}` | {value} |" for name, value in asdict(config).items())
    # datasets caches a local folder under its last name and the configuration's name only, so two
    # data sets in folders called "data" would be taken for one.
    digest = hashlib.sha256(f"{SCHEMA_VERSION}{settings}".encode()).hexdigest()[:12]
    splits = ["train"] + ["test"] * (config.num_test > 0)
    files = "\n".join(f'  - split: {s}\n    path: "{s}-*.parquet"' for s in splits)
    return f"""---
license: apache-2.0
tags: [pointillist, gaussian-splatting, head-avatar, synthetic]
configs:
- config_name: people-{digest}
  default: true
  data_files:
{files}
---
# Tokenised synthetic avatars

People of the procedural population of `pointillist_hf`: no photograph and no scan of anybody.
Each row holds a person's canonical point cloud as tokens ({config.num_bins} bins per axis,
{rig.num_faces} faces, order {config.token_order}), portraits, and views with cameras.
Schema version {SCHEMA_VERSION}; the columns are described in `pointillist_hf.data.token_dataset`.

| setting | value |
| --- | --- |
{settings}
"""


def load_token_dataset(folder: str | Path, split: str) -> Dataset:
    """A split of a tokenised data set on disk.

    Raises:
        FileNotFoundError: The folder holds no such split.
    """
    folder = Path(folder)
    if not list(folder.glob(f"{split}-*.parquet")):
        raise FileNotFoundError(
            f"`folder` must hold {split}-*.parquet files, and there are none in {folder}. "
            "Make a data set with examples/make_dataset.py."
        )
    return load_dataset(str(folder), split=split)


def row_params(row: dict[str, list], kind: str) -> RigParams:
    """Rig parameters of a row's portraits or views. kind: "portrait" or "view"."""
    poses = torch.tensor(row[f"{kind}_poses"]).view(-1, len(POSE_NAMES), 3)
    frames = len(poses)
    named = dict(zip(POSE_NAMES, poses.unbind(1), strict=True))
    return RigParams(
        betas=torch.tensor(row["betas"]).expand(frames, -1),
        expression=torch.tensor(row[f"{kind}_expression"]).view(frames, -1),
        transl=torch.zeros(frames, 3),
        **named,
    )


def row_cameras(row: dict[str, list]) -> Cameras:
    """Cameras of a row's views."""
    width, height = row["views"][0].size
    return Cameras(
        viewmats=torch.tensor(row["view_viewmats"]).view(-1, 4, 4),
        Ks=torch.tensor(row["view_Ks"]).view(-1, 3, 3),
        width=width,
        height=height,
    )


def picture_tensor(image: PILImage.Image) -> torch.Tensor:
    """SRGB and alpha of a stored picture. [H, W, 4] in [0, 1]"""
    return torch.from_numpy(np.array(image.convert("RGBA"))).float() / 255
