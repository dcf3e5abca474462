# SPDX-License-Identifier: Apache-2.0
"""A tokenised data set held in memory, ready to be cut into batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data.rig_reference import open_saved_rig, rig_hash
from ..data.tokens.dataset import load_token_dataset, open_tokenizer, read_row
from ..data.tokens.row_checks import check_data_set, check_row
from ..data.tokens.rows import picture_tensor, row_cameras, row_params
from ..geometry.structures import Cameras, RigParams
from ..models.tokenization_points import (
    TOKENS_PER_POINT,
    PointTokenizer,
    TokenLayout,
    TokenOrder,
    point_order,
)
from ..rigs.head_rig import HeadRig


@dataclass(frozen=True)
class Person:
    """One row of the data set as tensors."""

    identity: str
    hair_style: str
    input_ids: Tensor  # [4 (N + 2)]
    portraits: Tensor  # [K, H, W, 4] uint8, straight alpha
    portrait_params: RigParams  # K frames
    portrait_cameras: Cameras  # K
    views: Tensor  # [V, H, W, 4] uint8
    view_params: RigParams  # V frames
    view_cameras: Cameras

    @property
    def betas(self) -> Tensor:
        """Identity coefficients. [S]"""
        return self.view_params.betas[0]

    @property
    def num_points(self) -> int:
        """Points of the cloud."""
        return len(self.input_ids) // 4 - 2


@dataclass(frozen=True)
class People:
    """A split with the tokenizer and the rig that its numbers refer to."""

    persons: list[Person]
    tokenizer: PointTokenizer
    rig: HeadRig

    def __len__(self) -> int:
        return len(self.persons)


def load_people(folder: str | Path, split: str, *, show_progress: bool = False) -> People:
    """Reads a split of a tokenised data set.

    Raises:
        FileNotFoundError: The folder holds no such split.
        ValueError: A file or a row is damaged, or of another tokenizer or rig.
    """
    rows = load_token_dataset(folder, split)
    tokenizer, rig = open_tokenizer(folder), open_saved_rig(Path(folder) / "rig")
    check_data_set(tokenizer, rig, folder)
    known_hash, persons = rig_hash(rig), []
    for number in tqdm(range(len(rows)), disable=not show_progress, desc=split):
        row = read_row(rows, number)
        check_row(row, tokenizer, rig, known_hash=known_hash)
        persons.append(_read_person(row))
    return People(persons=persons, tokenizer=tokenizer, rig=rig)


def with_token_order(people: People, token_order: TokenOrder) -> People:
    """The same points, the tokens of each in another order, and they in that order's."""
    old = people.tokenizer
    tokenizer = PointTokenizer(
        num_bins=old.num_bins,
        num_faces=old.num_faces,
        token_order=token_order,
        cube_center=old.cube_center,
        cube_half_extent=old.cube_half_extent,
        outside=old.outside,
    )
    layout = tokenizer.layout
    persons = [
        replace(person, input_ids=_reorder(person.input_ids, old.layout, layout))
        for person in people.persons
    ]
    return replace(people, persons=persons, tokenizer=tokenizer)


def _reorder(input_ids: Tensor, old: TokenLayout, new: TokenLayout) -> Tensor:
    """A whole sequence in another layout of the same vocabulary. [L] -> [L]"""
    blocks = input_ids.view(-1, TOKENS_PER_POINT)
    columns = {axis: blocks[1:-1, old.slot_of(axis)] for axis in "xyzb"}
    bins = torch.stack([columns[axis] for axis in "xyz"], dim=-1)
    order = point_order(bins, columns["b"], new.sort_key)
    points = torch.stack([columns[axis][order] for axis in new.token_order], dim=-1)
    return torch.cat([blocks[:1], points, blocks[-1:]]).flatten()


def _read_person(row: dict) -> Person:
    return Person(
        identity=row["identity"],
        hair_style=row["hair_style"],
        input_ids=torch.tensor(row["input_ids"]),
        portraits=_stack(row["portraits"]),
        portrait_params=row_params(row, "portrait"),
        portrait_cameras=row_cameras(row, "portrait"),
        views=_stack(row["views"]),
        view_params=row_params(row, "view"),
        view_cameras=row_cameras(row, "view"),
    )


def _stack(images: list) -> Tensor:
    return torch.stack([(255 * picture_tensor(image)).round().to(torch.uint8) for image in images])
