# SPDX-License-Identifier: Apache-2.0
"""Networks that begin where others ended: a model goes on with more people, or with one's own."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from ..exporters.json_file import read_json_object, write_json_object
from ..models.configuration_point_generator import PointGeneratorConfig
from .checkpoints import find_checkpoints

FILE_NAME = "start.json"


def choose_start(start_from: str | Path | None, output_dir: Path) -> str | None:
    """Where a run begins, or began if it goes on; remembered beside its checkpoints.

    Raises:
        ValueError: It began elsewhere.
    """
    path, wanted = output_dir / FILE_NAME, None if start_from is None else str(start_from)
    if not find_checkpoints(output_dir):
        if os.environ.get("RANK", "0") == "0":
            write_json_object({"start_from": wanted}, path)
        return wanted
    began = read_json_object(path).get("start_from") if path.is_file() else None
    if wanted not in (None, began):
        raise ValueError(
            f"`start_from` was {began!r} when the run in {output_dir} began, got {wanted!r}. Leave "
            "it out to go on, or give another `output`."
        )
    return began


def find_wider(folder: Path, config: PointGeneratorConfig) -> tuple[str, ...]:
    """What may have more inputs than that of the saved generator, which was told of no layouts.

    Raises:
        ValueError: It was told of them at other heights.
    """
    path = folder / "config.json"
    saved = read_json_object(path).get("layout_heights") if path.is_file() else None
    if saved in (None, config.layout_heights):
        # What faces are told of layouts comes behind what they have been told.
        return ("model.face_anchors.hidden_proj.weight",)
    raise ValueError(
        f"`start_from` must hold a generator with `layout_heights` {config.layout_heights} or "
        f"none, and {folder} has {saved}; name another."
    )


def take_over_weights(
    model: PreTrainedModel,
    folder: Path,
    *,
    new: Collection[str] = (),
    own: Collection[str] = (),
    wider: Collection[str] = (),
) -> None:
    """Gives a network the weights of a saved one of the same shape, in place.

    Args:
        model: Whose configuration holds.
        folder: Of the saved one.
        new: Parts that the saved one may lack; they stay as they are.
        own: Parts that stay as they are in any case.
        wider: Matrices that may have more inputs than the saved one's, behind those; what they do
            begins at nothing.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds a network of another kind or other sizes.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"`start_from` must hold a folder {folder.name}, and {folder} does not exist; name a "
            "folder of components, such as a pipeline's."
        )
    found = type(model).from_pretrained(folder, dtype=torch.float32).state_dict()
    saved, wanted = _without(own, found), _without(own, model.state_dict())
    for name in set(wider) & set(saved) & set(wanted):
        saved[name] = _widen(saved[name], wanted[name])
    wrong = [n for n, w in saved.items() if n not in wanted or wanted[n].shape != w.shape]
    wrong += [name for name in _without(new, wanted) if name not in saved]
    if wrong:
        raise ValueError(
            f"`start_from` must hold networks of the sizes of this run, and {wrong[0]} of {folder} "
            f"is none of them{_count_others(wrong)}; name the `size` that it was trained with."
        )
    model.load_state_dict(saved, strict=False)


def _without(parts: Collection[str], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: w for name, w in weights.items() if name.split(".")[0] not in parts}


def _widen(saved: Tensor, wanted: Tensor) -> Tensor:
    """A matrix with columns of zeros behind its own, as many as are missing."""
    return pad(saved, (0, max(wanted.shape[1] - saved.shape[1], 0)))


def _count_others(names: Sequence[str]) -> str:
    return f", nor are {len(names) - 1} others" if len(names) > 1 else ""
