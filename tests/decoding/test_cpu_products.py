"""The products of the decoding kernels, against float64 and against integers."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numba import njit

from pointillist_hf.decoding.cpu.arithmetic import LANES
from pointillist_hf.decoding.cpu.products import (
    add_up,
    sum_columns,
    sum_columns_2,
    sum_columns_4,
)
from pointillist_hf.decoding.cpu.rounding import BLOCK, Rounded, round_blocks
from pointillist_hf.decoding.cpu.weights import WeightFormat, group_rows, quantize_rows, store

FORMATS = WeightFormat.__args__


def new_rounded(count):
    blocks = -(-count // BLOCK)
    return Rounded(
        np.full(blocks * BLOCK, 77, np.int8),
        np.zeros(blocks, np.float32),
        np.zeros(blocks, np.int32),
    )


@njit
def round_them(x, at, count, rounded, place):
    round_blocks(x, at, count, rounded, place)


@njit
def multiply(a, i, x, rounded, starts, count, out):
    """Each state alone, then two, then four of them at once."""
    for n in range(4):
        sum_columns(a, i, x, rounded, starts[n], count, out, n * LANES)
    two = starts[0], starts[3]
    sum_columns_2(a, i, x, rounded, two, count, out, 4 * LANES)
    four = starts[0], starts[1], starts[2], starts[3]
    sum_columns_4(a, i, x, rounded, four, count, out, 6 * LANES)


def products(matrix, states, weight_format):
    """The last LANES rows of a matrix times four states, by the kernels. [10, LANES]"""
    numbers, scales = store(matrix, weight_format)
    grouped, (n, k) = group_rows(numbers), matrix.shape
    wide = -(-k // BLOCK) * BLOCK
    step = wide if weight_format == "int8" else k
    x, rounded = states.numpy().ravel(), new_rounded(4 * wide)
    for b in range(4):
        round_them(x, b * k, k, rounded, b * wide)
    out = np.zeros(10 * LANES, np.float32)
    flat = grouped.ravel()
    start = (len(grouped) - 1) * grouped[0].size
    multiply(flat, start, x, rounded, np.arange(4) * step, k, out)
    return out.reshape(10, LANES)[:, : (n - 1) % LANES + 1] * scales[(n - 1) // LANES * LANES :]


def stored(matrix, weight_format):
    """The numbers that a format keeps of a matrix, in float64."""
    if weight_format == "bfloat16":
        return matrix.bfloat16().double()
    if weight_format == "int8":
        numbers, scales = quantize_rows(matrix)
        return torch.from_numpy(numbers).double() * torch.from_numpy(scales).double()[:, None]
    return matrix.double()


def rounded_states(states):
    """The states as a rounded matrix meets them: each block has 255 values."""
    blocks = torch.nn.functional.pad(states.double(), (0, -states.shape[1] % BLOCK))
    blocks = blocks.unflatten(1, (-1, BLOCK))
    scales = blocks.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return ((blocks / scales).round() * scales).flatten(1)[:, : states.shape[1]]


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("shape", [(16, 32), (7, 3), (33, 37), (32, 1), (48, 130)])
def test_products_are_those_of_float64(shape, weight_format):
    torch.manual_seed(0)
    matrix, states = torch.randn(shape), torch.randn(4, shape[1])
    found = products(matrix, states, weight_format)
    met = rounded_states(states) if weight_format == "int8" else states.double()
    expected = met @ stored(matrix, weight_format)[(shape[0] - 1) // LANES * LANES :].mT
    np.testing.assert_allclose(found[:4], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found[4:6], found[[0, 3]])
    np.testing.assert_array_equal(found[6:], found[:4])


def test_blocks_are_rounded_each_by_itself():
    x = (torch.randn(3, BLOCK) * torch.tensor([[1e-20], [1.0], [1e20]])).numpy().ravel()
    x[-5:] = 1e25  # beyond the count
    rounded, count = new_rounded(x.size + BLOCK), x.size - 5
    round_them(x, 0, count, rounded, BLOCK)
    numbers = rounded.numbers.astype(np.int64).reshape(4, BLOCK)
    assert (numbers[0] == 77).all()  # before the place
    assert (numbers[3, -5:] == 0).all()
    assert (abs(numbers[1:]).max(1) == 127).all()
    assert rounded.offsets.tolist()[1:] == (-128 * numbers[1:].sum(1)).tolist()
    error = abs(numbers[1:] * rounded.scales[1:, None].astype(np.float64) - x.reshape(3, BLOCK))
    assert (
        error.ravel()[:count].reshape(-1) <= np.repeat(rounded.scales[1:], BLOCK)[:count] * 0.5001
    ).all()


def test_zeros_are_rounded_to_zeros():
    rounded = new_rounded(BLOCK)
    round_them(np.zeros(BLOCK, np.float32), 0, BLOCK, rounded, 0)
    assert not rounded.numbers.any()
    assert not rounded.offsets.any()
    assert np.isfinite(rounded.scales).all()


def multiply_bytes():
    torch.manual_seed(1)
    matrix, states = torch.randn(31, 77), torch.randn(4, 77)
    expected = rounded_states(states) @ stored(matrix, "int8")[LANES:].mT
    return products(matrix, states, "int8").astype(np.float32), expected


def test_processors_without_dot_products_of_bytes_find_the_same_sums():
    """Integers have but one sum; what is made of them differs by fused additions at most."""
    script = "import test_cpu_products as t; print(t.multiply_bytes()[0].tobytes().hex())"
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([*sys.path, os.path.dirname(__file__)])
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, check=True
    )
    without = np.frombuffer(bytes.fromhex(done.stdout.decode().strip()), np.float32).reshape(10, -1)
    found, expected = multiply_bytes()
    np.testing.assert_allclose(without[:4], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(without, found, rtol=1e-6, atol=1e-6)


@njit
def sum_from(x, at, count):
    return add_up(x, at, count)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 63, 64, 65, 200])
def test_sums_are_those_of_float64(count):
    x = np.random.default_rng(0).standard_normal(210).astype(np.float32)
    x[3 + count :] = np.nan
    assert sum_from(x, 3, count) == pytest.approx(
        x[3 : 3 + count].astype(np.float64).sum(), abs=1e-5
    )
