# SPDX-License-Identifier: Apache-2.0
"""The layouts of a data set's clouds."""

from __future__ import annotations

import math

from torch import Tensor

from ..rigs.cloud_layout import OFF_SURFACE, count_layout
from .dataset import People, Person

ROUNDING = 2 * math.sqrt(3)  # of half a bin: skin in coarse bins does not stand off


def person_layout(person: Person, people: People, size: int) -> Tensor:
    """How many of a person's points stand off the skin, cell by cell. [size, size^2]"""
    tokenizer = people.tokenizer
    half_bin = tokenizer.cube_half_extent / tokenizer.num_bins
    return count_layout(
        tokenizer.decode_points(person.input_ids),
        people.rig,
        person.betas,
        size,
        cube_center=tokenizer.cube_center,
        cube_half_extent=tokenizer.cube_half_extent,
        tolerance=max(OFF_SURFACE, ROUNDING * half_bin),
    )
