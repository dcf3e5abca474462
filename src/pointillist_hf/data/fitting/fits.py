# SPDX-License-Identifier: Apache-2.0
"""Fits on disk, in the layout of GaussianAvatars.

    <folder>/point_cloud/iteration_<N>/point_cloud.ply   splats in the frames of their triangles
    <folder>/point_cloud/iteration_<N>/flame_param.npz   parameters of all time steps, refined
    <folder>/fit.json                                    ours: rig, capture, settings, figures

Folders of the original program lack fit.json and are read as well; their rig is FLAME with teeth.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ...exporters.atomic_file import write_atomically
from ...exporters.json_file import read_json_object
from ...exporters.ply import read_bound_ply, write_bound_ply
from ...geometry.structures import BoundSplats, RigParams
from ...motion.vhap_params import match_static_offset, read_params, write_params
from ...rigs.head_rig import HeadRig
from ..rig_reference import describe_rig, open_rig

logger = logging.getLogger(__name__)

FIT_FILE, POINTS_FILE, PARAMS_FILE = "fit.json", "point_cloud.ply", "flame_param.npz"
FORMAT_VERSION = 1
SH_DEGREE = 3  # of the file, as GaussianAvatars expects it


@dataclass(frozen=True)
class FittedPerson:
    """The result of a fit."""

    splats: BoundSplats
    rig: HeadRig
    rig_params: RigParams  # T time steps
    static_offset: Tensor  # [V, 3] metres
    notes: dict[str, object] = field(default_factory=dict)  # capture, settings, figures

    @property
    def rest_vertices(self) -> Tensor:
        """The person's mesh at rest, on which the canonical points lie, metres. [V, 3] float64

        Tokens must not depend on how a machine rounds, so everything up to the bins is float64.
        """
        rig, betas = self.rig, self.rig_params.betas[0].double()
        shape = torch.einsum("vcs,s->vc", rig.shapedirs.double(), betas)
        return rig.v_template.double() + self.static_offset.double() + shape


def write_fit(person: FittedPerson, folder: str | Path, *, iteration: int) -> None:
    """Writes a fit; `fit.json` comes last, so that it stands for a complete one."""
    folder = Path(folder)
    place = folder / "point_cloud" / f"iteration_{iteration}"
    write_atomically(
        place / POINTS_FILE, lambda path: write_bound_ply(person.splats, path, sh_degree=SH_DEGREE)
    )
    write_atomically(
        place / PARAMS_FILE,
        lambda path: write_params(
            path, person.rig_params, person.static_offset, with_dynamic_offset=True
        ),
    )
    notes = {
        "format_version": FORMAT_VERSION,
        "rig": describe_rig(person.rig),
        "iteration": iteration,
        "num_points": len(person.splats),
        **person.notes,
    }
    text = json.dumps(notes, indent=2)
    write_atomically(folder / FIT_FILE, lambda path: path.write_text(text, "utf-8"))


def read_fit(
    folder: str | Path,
    *,
    flame_path: str | Path | None = None,
    flame_version: str | None = None,
) -> FittedPerson:
    """A fit of ours, or of GaussianAvatars: the newest iteration.

    Args:
        folder: Of the fit.
        flame_path: The user's FLAME, for fits on FLAME; by default what FLAME_MODEL names.
        flame_version: Which release it is, if its name does not say.

    Raises:
        FileNotFoundError: The folder holds no fit, or its rig is not there.
        ValueError: A file is damaged, or made for another rig.
    """
    folder = Path(folder)
    notes = read_notes(folder)
    place = _find_iteration(folder, notes)
    rig = open_rig(
        notes.get("rig"), source=folder, flame_path=flame_path, flame_version=flame_version
    )
    params_file = place / PARAMS_FILE
    if not params_file.is_file():
        raise FileNotFoundError(f"`folder` must hold {params_file}, and there is no such file.")
    rig_params, offset = read_params(
        params_file, num_betas=rig.num_betas, num_expressions=rig.num_expressions
    )
    person = FittedPerson(
        splats=read_bound_ply(place / POINTS_FILE, num_faces=rig.num_faces),
        rig=rig,
        rig_params=rig_params,
        static_offset=match_static_offset(offset, len(rig.v_template), params_file),
        notes=notes,
    )
    empty = rig.num_faces - len(person.splats.bindings.unique())
    if empty:
        logger.warning("%d faces have no splat in %s; fits leave one on every face.", empty, folder)
    return person


def read_notes(folder: str | Path) -> dict[str, object]:
    """What `fit.json` says; nothing for fits of the original program.

    Raises:
        ValueError: The file is damaged or of another version.
    """
    path = Path(folder) / FIT_FILE
    if not path.is_file():
        return {}
    notes = read_json_object(path)
    if notes.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"`format_version` of {path} must be {FORMAT_VERSION}, got "
            f"{notes.get('format_version')!r}; fit the capture again."
        )
    for name, kind in (("iteration", int), ("capture", str)):
        if not isinstance(notes.get(name, kind()), kind):
            raise ValueError(
                f"`{name}` of {path} must be of type {kind.__name__}, got {notes[name]!r}; fit the "
                "capture again."
            )
    return notes


def fit_digest(folder: str | Path) -> str:
    """What tells a fit from another, in a few letters.

    Raises:
        FileNotFoundError: The folder holds no fit.
        ValueError: Its notes are damaged.
    """
    folder = Path(folder)
    place = _find_iteration(folder, read_notes(folder))
    digest = hashlib.sha256()
    for path in (place / POINTS_FILE, place / PARAMS_FILE, folder / FIT_FILE):
        digest.update(path.read_bytes() if path.is_file() else b"none")
    return digest.hexdigest()[:16]


def relative_to(path: str | Path, folder: str | Path) -> str:
    """A path as seen from a folder, so that both can be moved together."""
    path, folder = Path(path).resolve(), Path(folder).resolve()
    try:
        return os.path.relpath(path, folder)
    except ValueError:  # on two drives of Windows there is no way
        return str(path)


def _find_iteration(folder: Path, notes: Mapping[str, object]) -> Path:
    """The folder of the iteration that the notes name, or of the newest."""
    found = [
        (int(match[1]), path)
        for path in folder.glob("point_cloud/iteration_*")
        if (match := re.fullmatch(r"iteration_(\d+)", path.name)) and (path / POINTS_FILE).is_file()
    ]
    if not found:
        raise FileNotFoundError(
            f"`folder` must hold a fit, and there is no point_cloud/iteration_*/{POINTS_FILE} in "
            f"{folder}."
        )
    return dict(found).get(notes.get("iteration"), max(found)[1])
