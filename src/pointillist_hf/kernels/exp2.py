# SPDX-License-Identifier: Apache-2.0
"""Powers of two inside numba kernels, in code that LLVM turns into vector instructions."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

F = np.float32


@intrinsic
def times_power_of_two(context: object, value: types.Type, exponent: types.Type) -> tuple:
    """Value * 2**exponent by adding to the float's exponent bits; scalar `.view` fails inlined."""

    def emit(_: object, builder: ir.IRBuilder, __: object, args: tuple) -> ir.Value:
        i32 = ir.IntType(32)
        shifted = builder.shl(args[1], ir.Constant(i32, 23))
        return builder.bitcast(builder.add(builder.bitcast(args[0], i32), shifted), ir.FloatType())

    return types.float32(types.float32, types.int32), emit


C5, C4, C3 = F(0.001327647129073739), F(0.009675540961325169), F(0.05550713092088699)
C2, C1, C0 = F(0.24022120237350464), F(0.6931469440460205), F(1.0000001192092896)
HALF, LOWEST = F(0.5), F(-125)


@njit(inline="always")
def exp2(power: float) -> float:
    """2**power for power <= 0, to float32 accuracy: a minimax polynomial on [-1/2, 1/2].

    What lies below -125 counts as -125.
    """
    power = max(power, LOWEST)
    n = np.int32(power - HALF)
    r = power - F(n)
    return times_power_of_two(((((C5 * r + C4) * r + C3) * r + C2) * r + C1) * r + C0, n)
