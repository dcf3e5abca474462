# SPDX-License-Identifier: Apache-2.0
"""The layouts of a data set's clouds."""

from __future__ import annotations

from torch import Tensor

from ..rigs.cloud_layout import count_layout
from .dataset import People, Person


def person_layout(person: Person, people: People, size: int) -> Tensor:
    """How many of a person's points stand off the skin, cell by cell. [size, size^2]"""
    tokenizer = people.tokenizer
    return count_layout(
        tokenizer.decode_points(person.input_ids),
        people.rig,
        person.betas,
        size,
        cube_center=tokenizer.cube_center,
        cube_half_extent=tokenizer.cube_half_extent,
    )
