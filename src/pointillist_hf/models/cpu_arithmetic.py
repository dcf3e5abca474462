# SPDX-License-Identifier: Apache-2.0
"""What the decoding kernels are made of: stored numbers, dot products, and a barrier.

Matrices are float32, bfloat16 in the bits of uint16, or int8. Arrays are flat, with unsigned
offsets, because LLVM vectorises those. A dot product is always summed in the same order.

numba's cache of `cpu_decoding` notices no edits in this file: delete `__pycache__` after one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy import ndarray

F32, U = np.float32, np.uint64
ZERO, ONE, LOG2_E = F32(0), F32(1), F32(1.4426950408889634)
LANES, UNROLL = 16, 4  # of the vectors that sums are made of
AHEAD = 4096  # bytes; less does not get over a page's border in time
SPINS = 2000  # looks at the barrier before a thread offers its core to others
FUSED = ("contract",)  # a product and its sum in one instruction, where there is one
FAST_MATH = {"contract", "nnan", "ninf", "nsz", "arcp", "reassoc", "afn"}
_yield_core = types.ExternalFunction(
    "SwitchToThread" if sys.platform == "win32" else "sched_yield", types.int32()
)


def _widen(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """The float32 numbers of a vector of stored ones, or of one of them."""
    kind = value.type
    lanes = getattr(kind, "count", None)
    element = kind.element if lanes else kind

    def like(scalar: ir.Type) -> ir.Type:
        return ir.VectorType(scalar, lanes) if lanes else scalar

    if element == ir.FloatType():
        return value
    if element == ir.IntType(8):
        return builder.sitofp(value, like(ir.FloatType()))
    sixteen = ir.Constant(like(ir.IntType(32)), [16] * lanes if lanes else 16)
    bits = builder.shl(builder.zext(value, like(ir.IntType(32))), sixteen)
    return builder.bitcast(bits, like(ir.FloatType()))


@intrinsic
def narrow(context: object, value: types.Type, like: types.Type) -> tuple:
    """A float32 as numbers are stored in `like`: itself, the nearest bfloat16, or integer."""

    def emit(_: object, builder: ir.IRBuilder, __: object, args: tuple) -> ir.Value:
        i32 = ir.IntType(32)
        if like.dtype == types.float32:
            return args[0]
        if like.dtype == types.int8:
            kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()])
            nearest = builder.module.declare_intrinsic("llvm.rint", (ir.FloatType(),), kind)
            return builder.fptosi(builder.call(nearest, [args[0]]), ir.IntType(8))
        bits = builder.bitcast(args[0], i32)
        odd = builder.and_(builder.lshr(bits, ir.Constant(i32, 16)), ir.Constant(i32, 1))
        bits = builder.add(builder.add(bits, ir.Constant(i32, 0x7FFF)), odd)
        return builder.trunc(builder.lshr(bits, ir.Constant(i32, 16)), ir.IntType(16))

    return like.dtype(types.float32, like), emit


@intrinsic
def is_rounded(context: object, like: types.Type) -> tuple:
    """Whether an array holds integers that are to be scaled; known when compiling."""

    def emit(*_: object) -> ir.Value:
        return ir.Constant(ir.IntType(1), int(like.dtype == types.int8))

    return types.boolean(like), emit


@intrinsic
def pointer(context: object, address: types.Type, like: types.Type) -> tuple:
    """An address as a pointer to elements of the type of `like`."""
    kind = types.CPointer(like.dtype)

    def emit(target: object, builder: ir.IRBuilder, __: object, args: tuple) -> ir.Value:
        return builder.inttoptr(args[0], target.get_value_type(kind))

    return kind(types.int64, like), emit


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


@njit
def is_given_up(barrier: ndarray) -> bool:
    """Whether a thread will never come, so that the work is void."""
    return _look(barrier, 1) != 0


@njit
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


@njit
def share(count: int, thread: int, num_threads: int) -> tuple[int, int]:
    """First and last but one of the things, out of so many, that are a thread's."""
    return count * thread // num_threads, count * (thread + 1) // num_threads


def _add_lanes(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    """Sum of a vector's elements, half by half."""
    width = LANES
    while width > 1:
        width //= 2
        halves = [
            builder.shuffle_vector(
                vector, vector, ir.Constant(ir.VectorType(ir.IntType(32), width), list(lanes))
            )
            for lanes in (range(width), range(width, 2 * width))
        ]
        vector = builder.fadd(*halves)
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


def _build_dots(num_states: int) -> Callable:
    """`dots(a, i, x, places, count)`: sums of a[i + k] x[place + k], one for each place.

    Written in vectors, because what is left to LLVM is summed in another order when other sums
    stand beside it: a row of a batch would not have the bits that it has alone.
    """
    vector, wide = ir.VectorType(ir.FloatType(), LANES), ir.IntType(64)

    def emit(target: object, builder: ir.IRBuilder, signature: object, args: tuple) -> ir.Value:
        arrays, (_, i, _, places, count) = signature.args, args
        stored, states = (
            target.make_array(arrays[n])(target, builder, args[n]).data for n in (0, 2)
        )
        starts = [builder.extract_value(places, n) for n in range(num_states)]

        def add_products(sums: list[ir.Value], k: ir.Value, kind: Callable) -> None:
            """Adds the products at k, a vector or a single one each, to the sums."""
            weight = _widen(builder, kind(stored, builder.add(i, k)))
            for total, start in zip(sums, starts, strict=True):
                state = kind(states, builder.add(start, k))
                product = builder.fmul(weight, state, flags=FUSED)
                builder.store(builder.fadd(builder.load(total), product, flags=FUSED), total)

        def read(data: ir.Value, place: ir.Value) -> ir.Value:
            return builder.load(builder.gep(data, [place]))

        def read_vector(data: ir.Value, place: ir.Value) -> ir.Value:
            at = builder.gep(data, [place])
            kind = ir.VectorType(data.type.pointee, LANES)
            return builder.load(builder.bitcast(at, kind.as_pointer()), align=1)

        def prefetch(data: ir.Value, place: ir.Value) -> None:
            """Asks for a page ahead: left alone, the hardware stops where a page ends."""
            i32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
            ask = builder.module.declare_intrinsic("llvm.prefetch", (byte,), kind)
            size = target.get_abi_sizeof(data.type.pointee)
            at = builder.bitcast(builder.gep(data, [place]), byte)
            for line in range(0, UNROLL * LANES * size, 64):
                builder.call(ask, [builder.gep(at, [wide(AHEAD + line)]), i32(0), i32(3), i32(1)])

        zero = ir.Constant(wide, 0)
        sums = [
            [cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * LANES)) for _ in starts]
            for _ in range(UNROLL)
        ]
        step = LANES * UNROLL
        blocks = builder.mul(builder.udiv(count, wide(step)), wide(step))
        vectors = builder.mul(builder.udiv(count, wide(LANES)), wide(LANES))
        with cgutils.for_range_slice(builder, zero, blocks, wide(step)) as (k, _):
            prefetch(stored, builder.add(i, k))
            for u in range(UNROLL):
                add_products(sums[u], builder.add(k, wide(u * LANES)), read_vector)
        with cgutils.for_range_slice(builder, blocks, vectors, wide(LANES)) as (k, _):
            add_products(sums[0], k, read_vector)
        totals = []
        for n in range(num_states):
            parts = [builder.load(sums[u][n]) for u in range(UNROLL)]
            while len(parts) > 1:
                parts = [builder.fadd(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
            totals.append(cgutils.alloca_once_value(builder, _add_lanes(builder, parts[0])))
        with cgutils.for_range_slice(builder, vectors, count, wide(1)) as (k, _):
            add_products(totals, k, read)
        results = [builder.load(total) for total in totals]
        return target.make_tuple(builder, signature.return_type, results)

    @intrinsic
    def dots(context, a, i, x, places, count):  # noqa: ANN001, ANN202  numba reads the names
        """Emits the sums."""
        offsets = types.UniTuple(types.int64, num_states)
        result = types.UniTuple(types.float32, num_states)
        return result(a, types.int64, x, offsets, types.int64), emit

    return dots


dots_1, dots_2, dots_4 = (_build_dots(num_states) for num_states in (1, 2, 4))


@njit(inline="always")
def dot(a: ndarray, i: int, x: ndarray, j: int, count: int) -> float:
    """Sum of a[i + k] x[j + k]; `a` may be stored in any type."""
    return dots_1(a, i, x, (j,), count)[0]
