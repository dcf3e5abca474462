# SPDX-License-Identifier: Apache-2.0
"""What the decoding kernels are made of: stored numbers, their products, and a barrier.

Matrices are float32, bfloat16 in the bits of uint16, or int8. Arrays are flat, with unsigned
offsets, because LLVM vectorises those. A product is always summed in the same order.

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


@njit
def share_rows(first: int, last: int, thread: int, num_threads: int) -> tuple[int, int]:
    """As `share`, for the rows of a matrix between two: those side by side stay together."""
    start = first // LANES
    low, high = share((last + LANES - 1) // LANES - start, thread, num_threads)
    return max(first, (start + low) * LANES), min(last, (start + high) * LANES)


def _build_sums(num_states: int) -> Callable:
    """`sum_columns(a, i, x, places, count, out, at)`, see `sum_columns`, for so many states.

    The results of the states follow each other in `out`, LANES apart. Written in vectors, because
    LLVM would sum in another order when other sums stand beside: a row of a batch would not have
    the bits that it has alone.
    """
    wide, vector = ir.IntType(64), ir.VectorType(ir.FloatType(), LANES)
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    nothing = ir.Constant(vector, [0.0] * LANES)

    def emit(target: object, builder: ir.IRBuilder, signature: object, args: tuple) -> ir.Value:
        stored, states, results = (
            target.make_array(signature.args[n])(target, builder, args[n]).data for n in (0, 2, 5)
        )
        _, i, _, places, count, _, at = args
        starts = [builder.extract_value(places, n) for n in range(num_states)]

        def vector_at(data: ir.Value, place: ir.Value) -> ir.Value:
            kind = ir.VectorType(data.type.pointee, LANES).as_pointer()
            return builder.bitcast(builder.gep(data, [place]), kind)

        def add_products(sums: list[ir.Value], k: ir.Value) -> None:
            row = builder.add(i, builder.mul(k, wide(LANES)))
            weights = _widen(builder, builder.load(vector_at(stored, row), align=1))
            for total, start in zip(sums, starts, strict=True):
                state = builder.load(builder.gep(states, [builder.add(start, k)]))
                state = builder.insert_element(nothing, state, ir.IntType(32)(0))
                state = builder.shuffle_vector(state, state, everywhere)
                product = builder.fmul(weights, state, flags=FUSED)
                builder.store(builder.fadd(builder.load(total), product, flags=FUSED), total)

        sums = [
            [cgutils.alloca_once_value(builder, nothing) for _ in starts] for _ in range(UNROLL)
        ]
        blocks = builder.mul(builder.udiv(count, wide(UNROLL)), wide(UNROLL))
        with cgutils.for_range_slice(builder, wide(0), blocks, wide(UNROLL)) as (k, _):
            for u in range(UNROLL):
                add_products(sums[u], builder.add(k, wide(u)))
        with cgutils.for_range_slice(builder, blocks, count, wide(1)) as (k, _):
            add_products(sums[0], k)
        for n in range(num_states):
            parts = [builder.load(sums[u][n]) for u in range(UNROLL)]
            while len(parts) > 1:
                parts = [builder.fadd(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
            place = builder.add(at, wide(n * LANES))
            builder.store(parts[0], vector_at(results, place), align=1)
        return target.get_dummy_value()

    @intrinsic
    def sums(context, a, i, x, places, count, out, at):  # noqa: ANN001, ANN202  numba reads the names
        """Emits the sums."""
        index = types.int64
        offsets = types.UniTuple(index, num_states)
        return types.void(a, index, x, offsets, index, out, index), emit

    return sums


sum_columns_1, sum_columns_2, sum_columns_4 = map(_build_sums, (1, 2, 4))


@njit(inline="always")
def sum_columns(a: ndarray, i: int, x: ndarray, j: int, count: int, out: ndarray, at: int) -> None:
    """Sums of a[i + LANES k + lane] x[j + k] over k, for all lanes, into out[at + lane].

    So a matrix times a state, where LANES of its rows lie side by side in `a`: nothing is summed
    within a vector, and memory is read from end to end. `a` may be stored in any type.
    """
    sum_columns_1(a, i, x, (j,), count, out, at)
