# SPDX-License-Identifier: Apache-2.0
"""Pictures that a system made, from any program, and everything that is wrong with them.

A folder of renders holds `<item_id>.png` for each item of the manifest, or a `renders.csv` with the
columns item_id and file. It may hold a `system.json` that says what made them: name, code, commit,
tracker, seconds_per_avatar, frames_per_second, bytes_per_avatar and whatever else. Nothing is
repaired in silence: what is changed or left out stands in the list of faults.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..exporters.json_file import read_json_object
from ..pretrained.weights_files import file_sha256
from .manifest import Item, Manifest

SYSTEM_FILE, LIST_FILE = "system.json", "renders.csv"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_PIXELS = 2**26
# Kinds of faults, and what becomes of the picture.
LEFT_OUT = {
    "missing": "there is no file",
    "unreadable": "the file is no picture, or is cut off",
    "wrong shape": "the picture is not square",
}
SCORED = {
    "resized": "it had another size, and was brought to the size of the manifest",
    "transparent": "it was laid on the background of the manifest",
    "not rgb": "it was grey, of a palette or of 16 bits, and was converted",
    "lossy": "it is no PNG; its compression counts against the system",
    "blank": "all of its pixels are equal",
    "repeated": "another item has the same file",
    "copied": "it is the target itself",
    "no face": "no face was found; metrics of landmarks leave it out",
}
BESIDE = {"extra": "the file belongs to no item"}
FAULTS = {**LEFT_OUT, **SCORED, **BESIDE}


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a render."""

    kind: str  # of `FAULTS`
    name: str  # of the item or the file
    detail: str = ""


@dataclass
class RenderSet:
    """The renders of a system."""

    system: str
    files: dict[str, Path]  # usable ones, by item
    sha256: dict[str, str]  # of these files
    faults: list[Fault]
    about: dict[str, object] = field(default_factory=dict)  # of system.json

    def count_faults(self) -> dict[str, int]:
        """How many faults there are of each kind."""
        counts = dict.fromkeys(FAULTS, 0)
        for fault in self.faults:
            counts[fault.kind] += 1
        return {kind: count for kind, count in counts.items() if count}


def find_renders(system: str, folder: str | Path, manifest: Manifest) -> RenderSet:
    """The renders in a folder, checked file by file.

    Args:
        system: What results call it.
        folder: Of the renders.
        manifest: What they should show.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: Its list of files is no table.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"`renders` of {system} must be a folder, and {folder} is none.")
    known = {item.item_id: item for item in manifest.items}
    named, faults = _name_files(folder, known)
    seen: dict[str, str] = {}
    digests: dict[str, str] = {}
    for item_id, item in known.items():
        if item_id not in named:
            faults.append(Fault("missing", item_id))
            continue
        found = _examine(named[item_id], item, manifest)
        if not any(fault.kind in LEFT_OUT for fault in found):
            digest = digests[item_id] = file_sha256(named[item_id])
            if digest == item.target_sha256:
                found.append(Fault("copied", item_id))
            if digest in seen:
                found.append(Fault("repeated", item_id, f"same as {seen[digest]}"))
            seen.setdefault(digest, item_id)
        faults += found
    about = read_json_object(folder / SYSTEM_FILE) if (folder / SYSTEM_FILE).is_file() else {}
    usable = {item_id: named[item_id] for item_id in digests}
    return RenderSet(system, usable, digests, faults, about)


def load_render(path: Path, image_size: int, background: Sequence[float]) -> Tensor:
    """A usable render as metrics take it: RGB on the background. [S, S, 3]"""
    with Image.open(path) as picture:
        picture = _to_eight_bits(picture)
        if "A" in picture.getbands() or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            color = tuple(round(255 * value) for value in background)
            paper = Image.new("RGBA", picture.size, (*color, 255))
            picture = Image.alpha_composite(paper, picture)
        picture = picture.convert("RGB")
    if picture.size != (image_size, image_size):
        picture = picture.resize((image_size, image_size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(picture, np.float32).copy()) / 255


def _name_files(folder: Path, known: Mapping[str, Item]) -> tuple[dict[str, Path], list[Fault]]:
    """Files by item, and those that belong to none."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES)
    if (folder / LIST_FILE).is_file():
        listed = _read_list(folder / LIST_FILE)
    else:
        # A .png comes before what else has its name.
        order = sorted(files, key=lambda path: -SUFFIXES.index(path.suffix.lower()))
        listed = {path.stem: path for path in order}
    named = {item_id: path for item_id, path in listed.items() if item_id in known}
    named = {item_id: path for item_id, path in named.items() if path.is_file()}
    taken = {path.resolve() for path in named.values()}
    extra = [path for path in files if path.resolve() not in taken]
    faults = [Fault("extra", str(path.relative_to(folder))) for path in extra]
    absent = [name for name in listed if name not in known and not listed[name].is_file()]
    return named, faults + [Fault("extra", name, "of no item, and no file") for name in absent]


def _read_list(path: Path) -> dict[str, Path]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"item_id", "file"} <= {*rows[0]}:
        raise ValueError(f"{path} must be a table with the columns item_id and file.")
    return {row["item_id"]: path.parent / (row["file"] or "") for row in rows}


def _examine(path: Path, item: Item, manifest: Manifest) -> list[Fault]:
    name, faults = item.item_id, []
    try:
        with Image.open(path) as picture:
            if picture.size[0] * picture.size[1] > MAX_PIXELS:
                raise ValueError(f"{picture.size[0]} x {picture.size[1]} pixels")
            picture.load()
            form, mode, size, info = picture.format, picture.mode, picture.size, picture.info
            ranges = picture.convert("RGB").getextrema()
            alpha = picture.getchannel("A").getextrema() if "A" in picture.getbands() else None
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:
        return [Fault("unreadable", name, str(error))]
    if size[0] != size[1]:
        return [Fault("wrong shape", name, f"{size[0]} x {size[1]}")]
    if size[0] != manifest.image_size:
        faults.append(Fault("resized", name, f"from {size[0]} to {manifest.image_size}"))
    if (alpha is not None and alpha[0] < 255) or "transparency" in info:
        faults.append(Fault("transparent", name))
    if mode not in ("RGB", "RGBA"):
        faults.append(Fault("not rgb", name, mode))
    if form != "PNG":
        faults.append(Fault("lossy", name, str(form)))
    if all(low == high for low, high in ranges):
        faults.append(Fault("blank", name, str(tuple(low for low, _ in ranges))))
    return faults


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((np.asarray(picture, np.float64) / 257).clip(0, 255).astype(np.uint8))
