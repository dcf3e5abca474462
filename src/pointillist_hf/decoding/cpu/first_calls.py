# SPDX-License-Identifier: Apache-2.0
"""Calls of the decoding kernels that do nothing but compile them, without a model and torch.

    python -m pointillist_hf.decoding.cpu.first_calls depth bfloat16

The letters of shapes stand in `records`. What is built here has the types of what `decoder` builds;
a test compares them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import get_type_hints

import numpy as np
from numpy import ndarray

from ...kernels.beside import compile_beside
from .points import decode_points, decode_tokens
from .records import (
    DepthInputs,
    DepthScratch,
    DepthSizes,
    Faces,
    FlatInputs,
    Memory,
    Rows,
    Scratch,
    Sizes,
    Span,
    Store,
    Weights,
    Worker,
)
from .rounding import Rounded
from .sampling import Draws, Rules

KERNELS = {"flat": decode_tokens, "depth": decode_points, "anchored": decode_points}
# How exact weights are stored, see `weights.WeightFormat`.
NUMBERS = {"float32": np.float32, "bfloat16": np.uint16}
NOTHING = {int: 0, float: 0.0, bool: False}


def _empty(shape: int = 1, kind: type = np.float32) -> ndarray:
    """An array of so many dimensions, and of no elements."""
    return np.zeros((0,) * shape, kind)


def _build(record: type, **given: object) -> tuple:
    """A record of zeros and empty float32 arrays, but for what is given."""
    values = {
        name: _empty() if kind is ndarray else NOTHING.get(kind)
        for name, kind in get_type_hints(record).items()
    }
    return record(**{**values, **given})


def build_arguments(head: str, numbers: str) -> tuple:
    """Arguments of a head's kernel for weights of a type, with nothing to do.

    Args:
        head: "flat", "depth", or "anchored", which is "depth" with bindings that are.
        numbers: "float32" or "bfloat16".
    """
    ints = _empty(kind=np.int64)
    rounded = _build(Rounded, numbers=_empty(kind=np.int8), offsets=_empty(kind=np.int32))
    inputs = _build(FlatInputs) if head == "flat" else _build(DepthInputs, offsets=ints)
    weights = _build(
        Weights,
        matrices=_empty(kind=NUMBERS[numbers]),
        starts=ints,
        first_scales=ints,
        inputs=inputs,
    )
    store = _build(Store, rows=ints)
    rows = _build(Rows, tokens=_empty(2, np.int64), states=_empty(3), ended=_empty(kind=np.bool_))
    draws = _build(
        Draws,
        marks=_empty(kind=np.int32),
        points=_empty(3, np.int64),
        twister=_empty(kind=np.uint32),
        words=_empty(2, np.int64),
        on_face=ints,
    )
    rules = _build(Rules, firsts=ints, counts=ints, ranks=ints)
    arguments = (
        _build(Worker, rounded=rounded, seen=ints, live=ints),
        weights,
        _build(Sizes),
        Memory(store, store, ints),
        _build(Scratch, barrier=np.zeros(2, np.int64)),
        rows,
        (rules, draws),
        Span(0, 0),
    )
    small = [] if head == "flat" else [(_build(DepthSizes), _build(DepthScratch))]
    names = ("starts", "first_scales", "heads", "shifts", "bins")
    # Faces stay exact where the weights are stored in fewer bits.
    faces = [_build(Faces, **dict.fromkeys(names, ints))] if head == "anchored" else []
    return (*arguments, *small, *faces)


def expect_model(folder: str | Path) -> None:
    """Lets the kernel that a pipeline's generator needs be compiled beside, if it is not yet.

    Args:
        folder: Of the pipeline; nothing happens if it is none.
    """
    path = Path(folder) / "point_generator" / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
        head, numbers = config.get("point_head", "flat"), config.get("dtype", "float32")
        head = "anchored" if config.get("binding_head") == "anchored" else head
    except (OSError, ValueError, AttributeError):  # who loads the pipeline will say what is wrong
        return
    if head in KERNELS and numbers in NUMBERS:
        compile_beside(KERNELS[head], __name__, (head, numbers))


if __name__ == "__main__":
    KERNELS[sys.argv[1]](*build_arguments(*sys.argv[1:]))
