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
from ..data.tokens.rows import row_cameras, row_params
from ..data.tokens.stored_pictures import StoredPictures, read_pictures, undecoded
from ..geometry.structures import Cameras, RigParams
from ..models.tokenization_points import TOKENS_PER_POINT, PointTokenizer, TokenOrder
from ..rigs.head_rig import HeadRig


@dataclass(frozen=True)
class Person:
    """One row of the data set as tensors; what is large is held as it is stored."""

    identity: str
    hair_style: str
    stored_ids: Tensor  # [4 (N + 2)] as few bytes as the vocabulary allows
    portraits: StoredPictures  # [K, H, W, 4] uint8, straight alpha
    portrait_params: RigParams  # K frames
    portrait_cameras: Cameras  # K
    views: StoredPictures  # [V, H, W, 4] uint8; V may be 0
    view_params: RigParams  # V frames
    view_cameras: Cameras

    @property
    def input_ids(self) -> Tensor:
        """Tokens of the cloud. [4 (N + 2)]"""
        return self.stored_ids.long()

    @property
    def betas(self) -> Tensor:
        """Identity coefficients. [S]"""
        return self.portrait_params.betas[0]

    @property
    def num_points(self) -> int:
        """Points of the cloud."""
        return len(self.stored_ids) // TOKENS_PER_POINT - 2


@dataclass(frozen=True)
class People:
    """A split with the tokenizer and the rig that its numbers refer to."""

    persons: list[Person]
    tokenizer: PointTokenizer
    rig: HeadRig

    def __len__(self) -> int:
        return len(self.persons)


def load_people(
    folder: str | Path,
    split: str,
    *,
    token_order: TokenOrder | None = None,
    show_progress: bool = False,
) -> People:
    """Reads a split of a tokenised data set.

    Args:
        folder: Of the data set.
        split: Of it.
        token_order: Order that the clouds are encoded in; the data set's own unless given.
        show_progress: Whether to draw a bar.

    Raises:
        FileNotFoundError: The folder holds no such split.
        ValueError: A file or a row is damaged, or of another tokenizer or rig.
    """
    rows = load_token_dataset(folder, split)
    tokenizer, rig = open_tokenizer(folder), open_saved_rig(Path(folder) / "rig")
    check_data_set(tokenizer, rig, folder)
    known_hash, pictures, persons = rig_hash(rig), undecoded(rows), []
    for number in tqdm(range(len(rows)), disable=not show_progress, desc=split):
        row = read_row(rows, number)
        check_row(row, tokenizer, rig, known_hash=known_hash)
        persons.append(_read_person(row, read_pictures(pictures, number), tokenizer))
    people = People(persons=persons, tokenizer=tokenizer, rig=rig)
    return with_token_order(people, token_order or tokenizer.token_order)


def check_views(people: People) -> None:
    """Refuses people of whom there is nothing but a cloud and portraits.

    Raises:
        ValueError: Somebody has no view.
    """
    for person in people.persons:
        if not len(person.views):
            raise ValueError(
                f"`data` must hold views for this stage, and {person.identity!r} has none; make a "
                "data set with num_views of 1 or more. The generator alone learns without."
            )


def with_token_order(people: People, token_order: TokenOrder) -> People:
    """The same clouds as they read in another order of tokens.

    They are decoded and encoded anew: a bin's centre falls into the same bin.
    """
    old = people.tokenizer
    if token_order == old.token_order:
        return people
    new = PointTokenizer(
        num_bins=old.num_bins,
        num_faces=old.num_faces,
        token_order=token_order,
        cube_center=old.cube_center,
        cube_half_extent=old.cube_half_extent,
        outside=old.outside,
    )
    persons = [
        replace(
            person, stored_ids=_pack(new.encode_points(old.decode_points(person.input_ids)), new)
        )
        for person in people.persons
    ]
    return replace(people, persons=persons, tokenizer=new)


def _pack(input_ids: Tensor, tokenizer: PointTokenizer) -> Tensor:
    """The ids in the smallest type that holds the vocabulary."""
    fits = tokenizer.vocab_size <= torch.iinfo(torch.int16).max
    return input_ids.to(torch.int16 if fits else torch.int32)


def _read_person(
    row: dict, files: dict[str, tuple[bytes, ...]], tokenizer: PointTokenizer
) -> Person:
    cameras = {kind: row_cameras(row, kind) for kind in ("portrait", "view")}
    pictures = {
        kind: StoredPictures(files[f"{kind}s"], camera.width, camera.height)
        for kind, camera in cameras.items()
    }
    return Person(
        identity=row["identity"],
        hair_style=row["hair_style"],
        stored_ids=_pack(torch.tensor(row["input_ids"]), tokenizer),
        portraits=pictures["portrait"],
        portrait_params=row_params(row, "portrait"),
        portrait_cameras=cameras["portrait"],
        views=pictures["view"],
        view_params=row_params(row, "view"),
        view_cameras=cameras["view"],
    )
