# SPDX-License-Identifier: Apache-2.0
"""Makes a benchmark of captures in the layout of VHAP: NeRSemble, synthetic people, videos.

A video of one talking head is a capture with one camera. Pictures become square by their middle.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ..data.captures.reading import find_captures, read_capture
from ..exporters.atomic_file import write_folder_atomically
from ..geometry.structures import Capture
from ..motion.vhap_params import write_params
from ..pretrained.weights_files import file_sha256
from .benchmark_choice import BenchmarkConfig, choose_identities, choose_source, choose_targets
from .manifest import (
    MANIFEST_FILE,
    Item,
    Manifest,
    Source,
    file_name,
    read_manifest,
    write_manifest,
)

logger = logging.getLogger(__name__)

CROP = "centre"


def make_benchmark(
    captures: Sequence[str | Path],
    folder: str | Path,
    config: BenchmarkConfig | None = None,
    *,
    dataset: str = "captures",
    show_progress: bool = True,
) -> Manifest:
    """Writes a benchmark; see `manifest` for what is in its folder.

    Args:
        captures: Captures, or folders of captures, one for each person.
        folder: New or empty.
        config: What to draw.
        dataset: What results call the data.
        show_progress: Whether to draw a bar.

    Raises:
        FileNotFoundError: There are no captures.
        ValueError: Two captures have one name, or are tracked on different rigs.
    """
    config = config or BenchmarkConfig()
    found = {file_name(path.resolve().name): path for path in find_captures(captures)}
    if len(found) != len(find_captures(captures)):
        raise ValueError("`captures` must have different names, and two of them have the same.")
    people, driver = choose_identities(list(found), config)
    if len(people) < config.num_identities:
        logger.warning("%d of %d people are there.", len(people), config.num_identities)
    made: list[Manifest] = []

    def fill(place: Path) -> None:
        maker = _Maker(place, config)
        driving = None if driver is None else maker.target_pictures(found[driver], "cross")
        for name in tqdm(people, disable=not show_progress, unit="person"):
            maker.add_person(found[name], name, driving)
        manifest = maker.manifest(dataset, driver)
        write_manifest(manifest, place)
        made.append(manifest)

    write_folder_atomically(folder, fill)
    return made[0]


def prepare_benchmark(
    folder: str | Path,
    captures: Sequence[str | Path] = (),
    config: BenchmarkConfig | None = None,
    *,
    dataset: str = "captures",
    show_progress: bool = True,
) -> Manifest:
    """The manifest of a benchmark, which is made of captures if it is not there.

    The arguments are those of `make_benchmark`. A benchmark that is there stays as it is.

    Raises:
        FileNotFoundError: It is not there, and there are no captures.
    """
    folder = Path(folder)
    if captures and not (folder / MANIFEST_FILE).is_file():
        return make_benchmark(
            captures, folder, config, dataset=dataset, show_progress=show_progress
        )
    if captures:
        logger.warning("%s is there already; `captures` are not looked at.", folder)
    return read_manifest(folder)


class _Maker:
    """A benchmark on the way."""

    def __init__(self, folder: Path, config: BenchmarkConfig) -> None:
        self.folder, self.config = folder, config
        self.sources: list[Source] = []
        self.items: list[Item] = []
        self.rigs: list[dict | None] = []
        for name in ("sources", "targets", "tracks"):
            (folder / name).mkdir()

    def add_person(self, path: Path, name: str, driving: list[dict] | None) -> None:
        capture = self.read(path)
        source = choose_source(capture, self.config)
        file = self.folder / "sources" / f"{name}.png"
        self.write_picture(capture, source, file)
        camera, time = capture.camera_ids[source], int(capture.timesteps[source])
        self.sources.append(Source(name, camera, time, file_sha256(file)))
        for task, pictures in (
            ("self", self.target_pictures(path, "self", capture=capture, without=source)),
            ("cross", driving or []),
        ):
            for picture in pictures:
                time = f"{picture['timestep']:05d}"
                item_id = file_name(task, name, picture["camera"], time)
                self.items.append(Item(item_id=item_id, task=task, identity=name, **picture))

    def target_pictures(
        self,
        path: Path,
        purpose: str,
        *,
        capture: Capture | None = None,
        without: int | None = None,
    ) -> list[dict]:
        """Writes pictures to compare with; says of each what an item says of it."""
        capture = self.read(path) if capture is None else capture
        name = file_name(path.resolve().name)
        write_params(self.folder / "tracks" / f"{name}.npz", capture.rig_params)
        found = []
        for k in choose_targets(capture, self.config, purpose=purpose, without=without):
            camera, time = capture.camera_ids[k], int(capture.timesteps[k])
            target = file_name(name, camera, f"{time:05d}")
            file = self.folder / "targets" / f"{target}.png"
            matrix = self.write_picture(capture, k, file)
            found.append(
                {
                    "capture": name,
                    "camera": camera,
                    "timestep": time,
                    "target": target,
                    "target_sha256": file_sha256(file),
                    "viewmat": _plain(capture.cameras.viewmats[k]),
                    "K": _plain(matrix),
                }
            )
        return found

    def read(self, path: Path) -> Capture:
        capture = read_capture(path)
        self.rigs.append(None if capture.rig is None else dict(capture.rig))
        if self.rigs[-1] != self.rigs[0]:
            raise ValueError(f"`captures` must be tracked on one rig, and {path} is on another.")
        return capture

    def write_picture(self, capture: Capture, k: int, file: Path) -> Tensor:
        """Writes a picture as systems and metrics see it; its intrinsics. [3, 3]"""
        pixels = compose(capture.images[k], capture.masks[k], self.config.background)
        side = min(pixels.shape[:2])
        top, left = ((extent - side) // 2 for extent in pixels.shape[:2])
        pixels = pixels[top : top + side, left : left + side]
        picture = Image.fromarray((255 * pixels).round().byte().numpy())
        size = self.config.image_size
        picture.resize((size, size), Image.Resampling.LANCZOS).save(file)
        matrix = capture.cameras.Ks[k].clone()
        matrix[:2, 2] -= torch.tensor([left, top])
        matrix[:2] *= size / side
        return matrix

    def manifest(self, dataset: str, driver: str | None) -> Manifest:
        return Manifest(
            dataset=dataset,
            seed=self.config.seed,
            image_size=self.config.image_size,
            crop=CROP,
            background=tuple(self.config.background),
            driver=driver,
            rig=self.rigs[0],
            sources=tuple(self.sources),
            items=tuple(self.items),
        )


def compose(image: Tensor, mask: Tensor, background: Sequence[float]) -> Tensor:
    """The person on the background; one who stands on it already is left as is. [H, W, 3]"""
    paper = image.new_tensor(background)
    outside = image[mask[..., 0] == 0]
    if len(outside) and torch.equal(outside, paper.expand_as(outside)):
        return image
    return image * mask + paper * (1 - mask)


def _plain(matrix: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in np.asarray(matrix, np.float64).tolist())
