# SPDX-License-Identifier: Apache-2.0
"""What the decoding kernels are made of: stored numbers, vectors, shares of work, and a barrier.

Numbers are stored as float32, as bfloat16 in the bits of uint16, or as uint8, 128 more than the
rounded number, which has a scale. Of a matrix, LANES rows lie side by side, and in each as many
columns as fit into four bytes: [n / LANES, k / packed, LANES, packed]. So a vector is a cache line
for every type, memory is read from end to end, and nothing is summed within a vector. Arrays are
flat, with unsigned offsets, because LLVM vectorises those.

numba's cache of `points` notices no edits in this file: delete `__pycache__` after one.
"""

from __future__ import annotations

import sys

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy import ndarray

from ...kernels.compilation import compile_part

F32, U = np.float32, np.uint64
ZERO, ONE, LOG2_E = F32(0), F32(1), F32(1.4426950408889634)
# An offset that is typed like the others: for a literal, parts would be compiled anew.
START = np.int64(0)
LANES = 16  # numbers of a vector
PADDING = 4  # columns of a matrix are padded to a multiple, see above
LARGEST = F32(127)
LEAST_SCALE = F32(1e-30)
SPINS = 2000  # looks at the barrier before a thread offers its core to others
# What does not change numbers. The order of a sum, and whether products are fused, would be decided
# anew wherever LLVM copies a function: cached kernels would not have the bits of fresh ones.
FAST_MATH = {"nnan", "ninf", "nsz"}
_yield_core = types.ExternalFunction(
    "SwitchToThread" if sys.platform == "win32" else "sched_yield", types.int32()
)


def count_packed(array: types.Type) -> int:
    """Numbers in four bytes."""
    return {types.float32: 1, types.uint16: 2, types.uint8: 4}[array.dtype]


@intrinsic
def packed(context: object, like: types.Type) -> tuple:
    """Numbers in four bytes of an array; known when compiling."""

    def emit(*_: object) -> ir.Value:
        return ir.Constant(ir.IntType(64), count_packed(like))

    return types.int64(like), emit


@compile_part()
def place_in_group(lane: int, k: int, size: int) -> int:
    """Where the number of a row and a column is, among LANES rows, so many in four bytes."""
    return (k // size * LANES + lane) * size + k % size


@compile_part()
def pad(count: int) -> int:
    """Columns that a matrix is stored with."""
    return (count + PADDING - 1) // PADDING * PADDING


def round_up(count: int, step: int) -> int:
    """The next multiple of a step, for Python; `round_up(count, PADDING)` is `pad`."""
    return -(-count // step) * step


def _round(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """The nearest integer to a float32, as 32 bits."""
    kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()])
    nearest = builder.module.declare_intrinsic("llvm.rint", (ir.FloatType(),), kind)
    return builder.fptosi(builder.call(nearest, [value]), ir.IntType(32))


@intrinsic
def narrow(context: object, value: types.Type, like: types.Type) -> tuple:
    """A float32 as numbers are stored in `like`: itself, the nearest bfloat16, or integer."""

    def emit(_: object, builder: ir.IRBuilder, __: object, args: tuple) -> ir.Value:
        i32 = ir.IntType(32)
        if like.dtype == types.float32:
            return args[0]
        if like.dtype == types.uint8:
            number = builder.add(_round(builder, args[0]), i32(128))
            return builder.trunc(number, ir.IntType(8))
        bits = builder.bitcast(args[0], i32)
        odd = builder.and_(builder.lshr(bits, i32(16)), i32(1))
        bits = builder.add(builder.add(bits, i32(0x7FFF)), odd)
        return builder.trunc(builder.lshr(bits, i32(16)), ir.IntType(16))

    return like.dtype(types.float32, like), emit


@intrinsic
def round_to_integer(context: object, value: types.Type) -> tuple:
    """The nearest integer to a float32."""

    def emit(_: object, builder: ir.IRBuilder, __: object, args: tuple) -> ir.Value:
        return _round(builder, args[0])

    return types.int32(types.float32), emit


@intrinsic
def larger(context: object, first: types.Type, second: types.Type) -> tuple:
    """The larger of two float32, neither of them NaN: loops with Python's `max` stay scalar."""

    def emit(_: object, builder: ir.IRBuilder, __: object, args: tuple) -> ir.Value:
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()] * 2)
        larger = builder.module.declare_intrinsic("llvm.maxnum", (ir.FloatType(),), kind)
        return builder.call(larger, args, fastmath=("nnan", "nsz"))

    return types.float32(types.float32, types.float32), emit


@intrinsic
def is_rounded(context: object, like: types.Type) -> tuple:
    """Whether an array holds integers that are to be scaled; known when compiling."""

    def emit(*_: object) -> ir.Value:
        return ir.Constant(ir.IntType(1), int(like.dtype == types.uint8))

    return types.boolean(like), emit


@intrinsic
def _arrive(context: object, barrier: types.Type) -> tuple:
    """Adds one to the arrivals; those before."""

    def emit(target: object, builder: ir.IRBuilder, _: object, args: tuple) -> ir.Value:
        counter = target.make_array(barrier)(target, builder, args[0]).data
        return builder.atomic_rmw("add", counter, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(barrier), emit


@intrinsic
def _look(context: object, barrier: types.Type, place: types.Type) -> tuple:
    """An element as other threads have left it."""

    def emit(target: object, builder: ir.IRBuilder, _: object, args: tuple) -> ir.Value:
        data = target.make_array(barrier)(target, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "acquire", 8)

    return types.int64(barrier, types.int64), emit


@compile_part()
def is_given_up(barrier: ndarray) -> bool:
    """Whether a thread will never come, so that the work is void."""
    return _look(barrier, 1) != 0


@compile_part()
def wait(barrier: ndarray, num_threads: int) -> None:
    """Returns when all threads have come, or when the work is given up.

    Args:
        barrier: Arrivals, which are never set back; not zero once the work is given up. [2]
        num_threads: All of them.
    """
    if num_threads == 1:
        return
    target = (_arrive(barrier) // num_threads + 1) * num_threads
    spins = 0
    while _look(barrier, 0) < target and not is_given_up(barrier):
        spins += 1
        if spins > SPINS:
            _yield_core()


@compile_part()
def share(count: int, thread: int, num_threads: int) -> tuple[int, int]:
    """First, and one past the last, of the things out of so many that are a thread's."""
    return count * thread // num_threads, count * (thread + 1) // num_threads


@compile_part()
def share_rows(first: int, last: int, thread: int, num_threads: int) -> tuple[int, int]:
    """As `share`, for the rows of a matrix between two: those side by side stay together."""
    start = first // LANES
    low, high = share((last + LANES - 1) // LANES - start, thread, num_threads)
    return max(first, (start + low) * LANES), min(last, (start + high) * LANES)


def repeat(builder: ir.IRBuilder, value: ir.Value, count: int) -> ir.Value:
    """A vector of one value."""
    i32, kind = ir.IntType(32), ir.VectorType(value.type, count)
    vector = builder.insert_element(ir.Constant(kind, ir.Undefined), value, i32(0))
    everywhere = ir.Constant(ir.VectorType(i32, count), [0] * count)
    return builder.shuffle_vector(vector, vector, everywhere)
