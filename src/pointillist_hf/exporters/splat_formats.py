# SPDX-License-Identifier: Apache-2.0
"""The formats of splats without a rig, by suffix, and what each lets one choose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..geometry.structures import Gaussians
from .atomic_file import write_folder_atomically
from .gltf import write_glb
from .ply import write_ply
from .splat import write_splat
from .spz import write_spz

SPLAT_WRITERS: dict[str, Callable[..., None]] = {
    ".ply": write_ply,
    ".splat": write_splat,
    ".spz": write_spz,
    ".glb": write_glb,
}
SPLAT_OPTIONS: dict[str, tuple[str, ...]] = {
    ".ply": ("sh_degree", "y_down"),
    ".splat": ("y_down",),
    ".spz": ("version",),
    # The axes of the others are in their specifications.
    ".glb": (),
}


def check_options(
    suffix: str, options: Mapping[str, object], known: tuple[str, ...] | None = None
) -> None:
    """Refuses options that a format does not have.

    Args:
        suffix: Of the format.
        options: By name.
        known: Those it has; by default what `SPLAT_OPTIONS` says.
    """
    known = SPLAT_OPTIONS[suffix] if known is None else known
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ValueError(
            f"`{unknown[0]}` is no option of a {suffix}; it has {', '.join(known) or 'none'}."
        )


def write_splat_folder(
    frames: Iterable[Gaussians], path: str | Path, suffix: str, options: Mapping[str, object]
) -> None:
    """Writes one file per frame: 00000.ply and so on.

    Args:
        frames: Of an animation, one by one.
        path: The folder, which is made. One that holds files already is refused.
        suffix: Of the files.
        options: Of the format.
    """

    def fill(folder: Path) -> None:
        for index, gaussians in enumerate(frames):
            SPLAT_WRITERS[suffix](gaussians, folder / f"{index:05d}{suffix}", **options)

    write_folder_atomically(path, fill)
