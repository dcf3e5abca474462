# SPDX-License-Identifier: Apache-2.0
"""The protocol of a comparison: who is shown, from which picture, in which pose, by which camera.

A benchmark is a folder that needs nothing else, so that any system can be run on it anywhere:

    manifest.json                  this record
    sources/<identity>.png         the one picture that a system may see of a person
    targets/<target>.png           what an item should look like (cross: the driver's picture)
    tracks/<capture>.npz           rig parameters over time, in VHAP's names

A system's renders are PNG files named by item. The SHA-256 of the manifest covers the pictures, and
only figures of one hash may be compared.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

from ..exporters.json_file import read_json_object, write_json_object
from ..geometry.structures import Cameras

SCHEMA = "pointillist-evaluation/1"
MANIFEST_FILE = "manifest.json"
TASKS = ("self", "cross")
SAFE = {*string.ascii_letters, *string.digits, *"._-"}


@dataclass(frozen=True)
class Source:
    """The picture that a system sees of a person."""

    identity: str
    camera: str
    timestep: int
    sha256: str  # of the file


@dataclass(frozen=True)
class Item:
    """One picture to be made."""

    item_id: str
    task: str  # self, cross
    identity: str  # who is shown
    capture: str  # whose expression and pose; the driver's for cross
    camera: str
    timestep: int  # row of the capture's track
    target: str  # name of the picture to compare with
    target_sha256: str
    viewmat: tuple[tuple[float, ...], ...]  # world to camera, OpenCV. [4, 4]
    K: tuple[tuple[float, ...], ...]  # pixels. [3, 3]


@dataclass(frozen=True)
class Manifest:
    """All choices of a comparison."""

    dataset: str
    seed: int
    image_size: int  # pixels, square
    crop: str  # how pictures of the data set became square
    background: tuple[float, ...]  # sRGB
    driver: str | None  # capture whose motion drives all of cross
    rig: dict[str, object] | None  # of the tracks; None: FLAME
    sources: tuple[Source, ...]
    items: tuple[Item, ...]

    @property
    def sha256(self) -> str:
        """Of everything above, pictures included."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(f"{SCHEMA}|{text}".encode()).hexdigest()

    @property
    def identities(self) -> list[str]:
        """People, in the order of the sources."""
        return [source.identity for source in self.sources]

    def of_task(self, task: str) -> list[Item]:
        """Items of a task."""
        return [item for item in self.items if item.task == task]


def item_camera(item: Item, size: int) -> Cameras:
    """The camera of an item."""
    return Cameras(
        viewmats=torch.tensor([item.viewmat], dtype=torch.float32),
        Ks=torch.tensor([item.K], dtype=torch.float32),
        width=size,
        height=size,
    )


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Writes the record of a benchmark."""
    content = {"schema": SCHEMA, "sha256": manifest.sha256, **asdict(manifest)}
    write_json_object(content, folder / MANIFEST_FILE)


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a benchmark.

    Raises:
        FileNotFoundError: The folder has none.
        ValueError: It is of another schema, damaged, or changed by hand.
    """
    path = Path(folder) / MANIFEST_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"`benchmark` must be a folder with {MANIFEST_FILE}, and {folder} has none; make one "
            "of captures with `--captures`."
        )
    content = read_json_object(path)
    if content.get("schema") != SCHEMA:
        raise ValueError(f"{path} must be of schema {SCHEMA}, got {content.get('schema')!r}.")
    try:
        manifest = _parse(content)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error!r}.") from error
    if manifest.sha256 != content.get("sha256"):
        raise ValueError(
            f"{path} was changed after it had been made: its hash is {manifest.sha256[:12]}, and "
            f"it says {str(content.get('sha256'))[:12]}. Make the benchmark anew."
        )
    _check_names(manifest, path)
    return manifest


def file_name(*parts: str) -> str:
    """Parts joined by hyphens, with an underscore for what file names had better not hold."""
    return "-".join("".join(c if c in SAFE else "_" for c in part) for part in parts)


def _parse(content: dict) -> Manifest:
    plain = {f.name: content[f.name] for f in fields(Manifest)}
    plain["background"] = tuple(float(value) for value in plain["background"])
    plain["sources"] = tuple(Source(**source) for source in plain["sources"])
    plain["items"] = tuple(
        Item(**{**item, "viewmat": _rows(item["viewmat"]), "K": _rows(item["K"])})
        for item in plain["items"]
    )
    return Manifest(**plain)


def _rows(matrix: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)


def _check_names(manifest: Manifest, path: Path) -> None:
    """Names become files: they must stay in their folders, and be different."""
    ids = [item.item_id for item in manifest.items]
    names = [*ids, *manifest.identities, *(item.target for item in manifest.items)]
    for name in names:
        if not name or not {*name} <= SAFE or name.startswith("."):
            raise ValueError(f"{path} holds the name {name!r}, which no file may have.")
    if len({*ids}) != len(ids):
        raise ValueError(f"{path} names an item twice.")
    if not {item.identity for item in manifest.items} <= {*manifest.identities}:
        raise ValueError(f"{path} has items of people without a source.")
    if not {item.task for item in manifest.items} <= {*TASKS}:
        raise ValueError(f"{path} has items of other tasks than {', '.join(TASKS)}.")
