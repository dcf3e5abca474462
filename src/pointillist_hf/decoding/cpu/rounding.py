# SPDX-License-Identifier: Apache-2.0
"""States rounded to integers, in blocks, for the products with rounded matrices.

Blocks of a fixed length are rounded in LLVM's vectors: it makes single steps of such short loops.

numba's cache of `points` notices no edits in this file: delete `__pycache__` after one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy import ndarray

from ...kernels.compilation import compile_part
from .arithmetic import FAST_MATH, LARGEST, LEAST_SCALE, ONE, larger, repeat, round_to_integer

BLOCK = 32  # numbers that are rounded with one scale


class Rounded(NamedTuple):
    """States, or weights of values, as they meet a rounded matrix: in blocks, each with a scale."""

    numbers: ndarray  # int8, zeros up to the end of a block
    scales: ndarray  # of each block
    offsets: ndarray  # of each block, -128 times its sum: what the 128 of the matrix add


@intrinsic
def _largest_of_block(context: object, x: types.Type, at: types.Type) -> tuple:
    """The largest magnitude of BLOCK float32."""

    def emit(target: object, builder: ir.IRBuilder, _: object, args: tuple) -> ir.Value:
        vector = _read_block(target, builder, x, args)
        call = _vector_caller(builder, vector)
        bare = builder.call(call("fabs", vector.type), [vector])
        return builder.call(call("vector.reduce.fmax", ir.FloatType()), [bare], fastmath=("nnan",))

    return types.float32(x, types.int64), emit


@intrinsic
def _round_all_of_block(
    context: object, x: types.Type, at: types.Type, factor: types.Type, numbers: types.Type,
    place: types.Type,
) -> tuple:  # fmt: skip
    """Stores BLOCK float32 times a factor as the nearest integers; their sum."""

    def emit(target: object, builder: ir.IRBuilder, _: object, args: tuple) -> ir.Value:
        vector = _read_block(target, builder, x, args[:2])
        call, integers = _vector_caller(builder, vector), ir.VectorType(ir.IntType(32), BLOCK)
        factors = repeat(builder, args[2], BLOCK)
        nearest = builder.call(call("rint", vector.type), [builder.fmul(vector, factors)])
        found = builder.fptosi(nearest, integers)
        bytes_ = ir.VectorType(ir.IntType(8), BLOCK)
        data = target.make_array(numbers)(target, builder, args[3]).data
        at = builder.bitcast(builder.gep(data, [args[4]]), bytes_.as_pointer())
        builder.store(builder.trunc(found, bytes_), at, align=1)
        call = _vector_caller(builder, found)
        return builder.call(call("vector.reduce.add", ir.IntType(32)), [found])

    return types.int32(x, types.int64, types.float32, numbers, types.int64), emit


def _read_block(
    target: object, builder: ir.IRBuilder, kind: types.Type, args: Sequence[ir.Value]
) -> ir.Value:
    """BLOCK float32 of an array, from a place on."""
    data = target.make_array(kind)(target, builder, args[0]).data
    pointer = ir.VectorType(ir.FloatType(), BLOCK).as_pointer()
    return builder.load(builder.bitcast(builder.gep(data, [args[1]]), pointer), align=1)


def _vector_caller(builder: ir.IRBuilder, vector: ir.Value) -> Callable:
    """Declares LLVM's functions of one vector, by name and result."""
    kind = f"v{vector.type.count}{'f32' if vector.type.element == ir.FloatType() else 'i32'}"

    def declare(name: str, result: ir.Type) -> ir.Function:
        signature = ir.FunctionType(result, [vector.type])
        return cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.{kind}")

    return declare


@compile_part(fastmath=FAST_MATH)
def _round_part(x: ndarray, at: int, size: int, rounded: Rounded, place: int) -> None:
    """Rounds what does not fill a block, and fills it with zeros."""
    block, largest, total = place // BLOCK, LEAST_SCALE, np.int32(0)
    for k in range(at, at + size):
        largest = larger(largest, abs(x[k]))
    scale = largest / LARGEST
    factor = ONE / scale
    for k in range(size):
        number = round_to_integer(x[at + k] * factor)
        rounded.numbers[place + k] = number
        total += number
    rounded.numbers[place + size : place + BLOCK] = 0
    rounded.scales[block], rounded.offsets[block] = scale, -128 * total


@compile_part()
def round_blocks(x: ndarray, at: int, count: int, rounded: Rounded, place: int) -> None:
    """Rounds x[at], ... to integers, from a place on, which must be a multiple of BLOCK."""
    full = count // BLOCK * BLOCK
    for start in range(0, full, BLOCK):
        source, target = at + start, place + start
        scale = larger(_largest_of_block(x, source), LEAST_SCALE) / LARGEST
        total = _round_all_of_block(x, source, ONE / scale, rounded.numbers, target)
        rounded.scales[target // BLOCK], rounded.offsets[target // BLOCK] = scale, -128 * total
    if full < count:
        _round_part(x, at + full, count - full, rounded, place + full)
