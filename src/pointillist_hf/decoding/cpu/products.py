# SPDX-License-Identifier: Apache-2.0
"""Sums, and products of stored matrices and states, in LLVM's vectors.

In these and not in loops, because LLVM would sum in another order when other sums stand beside: a
row of a batch would not have the bits that it has alone.

A rounded matrix wants rounded states: so four products and their sums are one instruction where a
processor has it, and memory is what limits. Sums of integers are exact, so there is but one result.

numba's cache of `points` notices no edits in this file: delete `__pycache__` after one.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy import ndarray

from ...kernels.compilation import compile_part
from .arithmetic import LANES, count_packed, repeat
from .rounding import BLOCK, Rounded

NUM_SUMS = 4  # that are under way at a time, because an addition takes as long as four begin
VNNI = "llvm.x86.avx512.vpdpbusd.512"


class _Emitter:
    """Writes one call of `sum_columns`, whose arguments it is given, and their types."""

    def __init__(self, target: object, builder: ir.IRBuilder, kinds: tuple, args: tuple) -> None:
        self.target, self.builder, self.args = target, builder, args
        self.i32, self.wide = ir.IntType(32), ir.IntType(64)
        self.words = ir.VectorType(self.i32, LANES)
        self.floats = ir.VectorType(ir.FloatType(), LANES)
        self.kinds, self.size = kinds, count_packed(kinds[0])
        self.starts = [builder.extract_value(args[4], n) for n in range(len(kinds[4]))]

    def data(self, n: int) -> ir.Value:
        """Pointer to the elements of an argument."""
        return self.target.make_array(self.kinds[n])(self.target, self.builder, self.args[n]).data

    def member(self, n: int, m: int) -> ir.Value:
        """Pointer to the elements of an array in an argument that is a tuple of arrays."""
        array = self.builder.extract_value(self.args[n], m)
        return self.target.make_array(self.kinds[n][m])(self.target, self.builder, array).data

    def count_parts(self, count: ir.Value, size: int) -> ir.Value:
        """Parts of a size that hold so many."""
        more = self.builder.add(count, self.wide(size - 1))
        return self.builder.udiv(more, self.wide(size))

    def read(self, data: ir.Value, place: ir.Value) -> ir.Value:
        return self.builder.load(self.builder.gep(data, [place]))

    def read_words(self, word: ir.Value) -> ir.Value:
        """Four bytes of each row."""
        first = self.builder.mul(word, self.wide(LANES * self.size))
        place = self.builder.add(self.args[1], first)
        at = self.builder.gep(self.data(0), [place])
        return self.builder.load(self.builder.bitcast(at, self.words.as_pointer()), align=1)

    def widen(self, words: ir.Value, column: int) -> ir.Value:
        """The float32 numbers of a column of words."""
        if self.size == 2:
            sixteen, high = (ir.Constant(self.words, [n] * LANES) for n in (16, 0xFFFF0000))
            builder = self.builder
            words = builder.and_(words, high) if column else builder.shl(words, sixteen)
        return self.builder.bitcast(words, self.floats)

    def new(self, kind: ir.Type) -> ir.Value:
        return cgutils.alloca_once_value(self.builder, ir.Constant(kind, [0] * LANES))

    def add_product(self, total: ir.Value, first: ir.Value, second: ir.Value) -> None:
        # Fused where the processor can do it, whatever stands beside.
        kind = ir.FunctionType(self.floats, [self.floats] * 3)
        name = f"llvm.fmuladd.v{LANES}f32"
        multiply_add = cgutils.get_or_insert_function(self.builder.module, kind, name)
        now = self.builder.load(total)
        self.builder.store(self.builder.call(multiply_add, [first, second, now]), total)

    def put(self, totals: list[ir.Value]) -> None:
        """Sums of each state to where they go, LANES apart."""
        out, kind = self.data(6), self.floats.as_pointer()
        for n, total in enumerate(totals):
            place = self.builder.add(self.args[7], self.wide(n * LANES))
            at = self.builder.bitcast(self.builder.gep(out, [place]), kind)
            self.builder.store(total, at, align=1)

    def emit_floats(self) -> None:
        """Sums of stored float32 or bfloat16 numbers times states."""
        builder, wide, size = self.builder, self.wide, self.size
        states, count, unroll = self.data(2), self.args[5], NUM_SUMS // size
        sums = [[self.new(self.floats) for _ in self.starts] for _ in range(NUM_SUMS)]

        def add_words(word: ir.Value, u: int, num_columns: int) -> None:
            words = self.read_words(word)
            for column in range(num_columns):
                weights = self.widen(words, column)
                k = builder.add(builder.mul(word, wide(size)), wide(column))
                for total, start in zip(sums[u * size + column], self.starts, strict=True):
                    state = repeat(builder, self.read(states, builder.add(start, k)), LANES)
                    self.add_product(total, weights, state)

        full = builder.udiv(count, wide(size))
        blocks = builder.mul(builder.udiv(full, wide(unroll)), wide(unroll))
        with cgutils.for_range_slice(builder, wide(0), blocks, wide(unroll)) as (word, _):
            for u in range(unroll):
                add_words(builder.add(word, wide(u)), u, size)
        with cgutils.for_range_slice(builder, blocks, full, wide(1)) as (word, _):
            add_words(word, 0, size)
        if size == 2:
            odd = builder.icmp_unsigned("!=", builder.urem(count, wide(2)), wide(0))
            with builder.if_then(odd):
                add_words(full, 0, 1)
        totals = zip(*([builder.load(total) for total in row] for row in sums), strict=True)
        self.put([_add_pairs(builder, list(parts)) for parts in totals])

    def add_integers(self, total: ir.Value, words: ir.Value, state: ir.Value) -> ir.Value:
        """Adds four products of a byte, taken as unsigned, and a signed one."""
        builder = self.builder
        if "+avx512vnni" in self.target.codegen().magic_tuple()[2]:
            kind = ir.FunctionType(self.words, [self.words] * 3)
            multiply_add = cgutils.get_or_insert_function(builder.module, kind, VNNI)
            return builder.call(multiply_add, [total, words, repeat(builder, state, LANES)])
        for column in range(self.size):
            left, right = self.i32(24 - 8 * column), self.i32(24)
            number = builder.ashr(builder.shl(state, left), right)
            shift, byte = (ir.Constant(self.words, [n] * LANES) for n in (8 * column, 255))
            weights = builder.and_(builder.lshr(words, shift), byte)
            total = builder.add(total, builder.mul(weights, repeat(builder, number, LANES)))
        return total

    def emit_integers(self) -> None:
        """Sums of rounded numbers times rounded states: exact in each block, then scaled."""
        builder, wide = self.builder, self.wide
        numbers, scales, offsets = (self.member(3, n) for n in range(3))
        numbers = builder.bitcast(numbers, self.i32.as_pointer())
        totals = [self.new(self.floats) for _ in self.starts]
        num_words = self.count_parts(self.args[5], 4)
        num_blocks = self.count_parts(self.args[5], BLOCK)
        with cgutils.for_range_slice(builder, wide(0), num_blocks, wide(1)) as (block, _):
            places = [builder.add(builder.udiv(start, wide(BLOCK)), block) for start in self.starts]
            sums = [self.new(self.words) for _ in self.starts]
            for total, place in zip(sums, places, strict=True):
                builder.store(repeat(builder, self.read(offsets, place), LANES), total)
            first = builder.mul(block, wide(BLOCK // 4))
            last = builder.add(first, wide(BLOCK // 4))
            last = builder.select(builder.icmp_unsigned("<", last, num_words), last, num_words)
            with cgutils.for_range_slice(builder, first, last, wide(1)) as (word, _):
                words = self.read_words(word)
                for total, start in zip(sums, self.starts, strict=True):
                    place = builder.add(builder.udiv(start, wide(4)), word)
                    state = self.read(numbers, place)
                    builder.store(self.add_integers(builder.load(total), words, state), total)
            for total, result, place in zip(sums, totals, places, strict=True):
                number = builder.sitofp(builder.load(total), self.floats)
                scale = repeat(builder, self.read(scales, place), LANES)
                self.add_product(result, number, scale)
        self.put([builder.load(total) for total in totals])


def _build_sums(num_states: int) -> Callable:
    """`sum_columns` for so many states, whose results follow each other in `out`, LANES apart."""

    @intrinsic
    def sums(context, a, i, x, rounded, places, count, out, at):  # noqa: ANN001, ANN202
        """Emits the sums; numba reads the names of the arguments."""
        index = types.int64
        kinds = a, index, x, rounded, types.UniTuple(index, num_states), index, out, index

        def emit(target: object, builder: ir.IRBuilder, _: object, args: tuple) -> ir.Value:
            emitter = _Emitter(target, builder, kinds, args)
            if a.dtype == types.uint8:
                emitter.emit_integers()
            else:
                emitter.emit_floats()
            return target.get_dummy_value()

        return types.void(*kinds), emit

    return sums


sum_columns_1, sum_columns_2, sum_columns_4 = map(_build_sums, (1, 2, 4))


@intrinsic
def add_up(context: object, x: types.Type, at: types.Type, count: types.Type) -> tuple:
    """Sum of so many float32 from a place on."""

    def emit(target: object, builder: ir.IRBuilder, _: object, args: tuple) -> ir.Value:
        wide, vector = ir.IntType(64), ir.VectorType(ir.FloatType(), LANES)
        data = builder.gep(target.make_array(x)(target, builder, args[0]).data, [args[1]])
        step = wide(NUM_SUMS * LANES)
        blocks = builder.mul(builder.udiv(args[2], step), step)
        nothing = ir.Constant(vector, [0.0] * LANES)
        sums = [cgutils.alloca_once_value(builder, nothing) for _ in range(NUM_SUMS)]
        with cgutils.for_range_slice(builder, wide(0), blocks, step) as (k, _):
            for u, total in enumerate(sums):
                place = builder.gep(data, [builder.add(k, wide(u * LANES))])
                part = builder.load(builder.bitcast(place, vector.as_pointer()), align=1)
                builder.store(builder.fadd(builder.load(total), part), total)
        parts = [builder.load(total) for total in sums]
        lanes = _add_pairs(builder, parts)
        parts = [builder.extract_element(lanes, ir.IntType(32)(lane)) for lane in range(LANES)]
        total = cgutils.alloca_once_value(builder, _add_pairs(builder, parts))
        with cgutils.for_range_slice(builder, blocks, args[2], wide(1)) as (k, _):
            rest = builder.load(builder.gep(data, [k]))
            builder.store(builder.fadd(builder.load(total), rest), total)
        return builder.load(total)

    return types.float32(x, types.int64, types.int64), emit


def _add_pairs(builder: ir.IRBuilder, parts: list[ir.Value]) -> ir.Value:
    """Their sum: neighbours first, then the sums of neighbours."""
    while len(parts) > 1:
        parts = [builder.fadd(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


@compile_part(is_inlined=True)
def sum_columns(
    a: ndarray, i: int, x: ndarray, rounded: Rounded, j: int, count: int, out: ndarray, at: int
) -> None:
    """Sums of a[row, k] x[j + k] over k, for the LANES rows that start at a[i], into out[at + row].

    If `a` is rounded, x must be so too, at `rounded` from j on.
    """
    sum_columns_1(a, i, x, rounded, (j,), count, out, at)
