# SPDX-License-Identifier: Apache-2.0
"""Kernels compiled in another process: for the very types of arguments that come later."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from numba import typeof
from tiny_generators import CONTEXT, HEADS, build_anchored, build_generator, random_heads

from pointillist_hf.decoding.cpu import first_calls
from pointillist_hf.decoding.cpu.decoder import CompiledDecoder, build_rules
from pointillist_hf.decoding.cpu.records import SLOTS, Span
from pointillist_hf.decoding.grammar import PointGrammar
from pointillist_hf.decoding.sampling import SeededSampling
from pointillist_hf.kernels import beside
from pointillist_hf.kernels.compilation import is_kept
from pointillist_hf.models.tokenization_points import TOKENS_PER_POINT

EMBEDDED = Path(__file__).parents[2] / "model_cards" / "pointillist-tiny"
FIRST_USE = """
import sys, threading
from pointillist_hf.decoding.cpu import first_calls, points
first_calls.expect_model(sys.argv[1])
assert not {"torch", "transformers"} & {*sys.modules}
from pointillist_hf import AvatarPipeline
from pointillist_hf.first_use import warm_up
from pointillist_hf.kernels import nearest
from pointillist_hf.rendering.cpu.blending import blend_forward
pipe = AvatarPipeline.from_pretrained(sys.argv[1])
assert "compilation" in [thread.name for thread in threading.enumerate()]
warm_up(pipe)
assert not points.decode_points.stats.cache_misses, "compiled here"
assert points.decode_points.stats.cache_hits
assert blend_forward.signatures
assert nearest._find_nearest.signatures
"""


def arguments_of_decoder(model):
    """What the engine calls its kernel with."""
    layout = model.config.layout
    rules = build_rules(
        layout,
        PointGrammar(layout, level="full", min_points=1, max_points=9),
        SeededSampling([torch.Generator()], temperature=1.0, min_p=0.05),
    )
    heads = random_heads(1) if model.config.binding_head == "anchored" else None
    with torch.no_grad():
        decoder = CompiledDecoder(
            model, torch.randn(1, 2, CONTEXT), rules=rules, seeds=[0], face_anchors=heads
        )
    size = decoder.tokens_per_step
    rows = decoder._build_rows(1, torch.zeros(1, size, dtype=torch.long).numpy())
    common = (decoder.sizes, decoder.memory, decoder.scratch, rows, (rules, decoder.draws))
    own = (decoder._build_workers()[0], decoder.weights)
    small = [decoder.depth] if decoder.depth else []
    return (*own, *common, Span(0, 1), *small, *decoder.faces)


@pytest.mark.parametrize("head", first_calls.KERNELS)
@pytest.mark.parametrize("numbers", first_calls.NUMBERS)
def test_calls_that_do_nothing_have_the_types_of_real_ones(head, numbers):
    model = build_generator(**HEADS[head]) if head in HEADS else build_anchored()
    if numbers == "bfloat16":
        model = model.bfloat16().float()
    empty = first_calls.build_arguments(head, numbers)
    assert [*map(typeof, empty)] == [*map(typeof, arguments_of_decoder(model))]


def test_a_point_has_as_many_tokens_in_both_places():
    assert SLOTS == TOKENS_PER_POINT


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A kernel that nobody has compiled, in a file of its own."""
    (tmp_path / "kernel_of_a_test.py").write_text(
        "from pointillist_hf.kernels.compilation import compile_kernel\n"
        "@compile_kernel()\ndef double_of_a_test(x):\n    return 2 * x\n"
        "if __name__ == '__main__':\n    double_of_a_test(1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    from kernel_of_a_test import double_of_a_test

    yield double_of_a_test
    del sys.modules["kernel_of_a_test"]


def test_what_is_compiled_beside_is_found_here(kernel, caplog):
    caplog.set_level("INFO", logger="pointillist_hf")
    assert not is_kept(kernel)
    beside.compile_beside(kernel, "kernel_of_a_test", [])
    assert "Compiling CPU kernels beside" in caplog.text
    beside.wait_for_kernels()
    assert is_kept(kernel)
    assert kernel(21) == 42
    assert kernel.stats.cache_hits
    assert not kernel.stats.cache_misses
    beside.compile_beside(kernel, "kernel_of_a_test", [])
    assert not beside._processes


def test_what_fails_beside_is_compiled_here(kernel):
    beside.compile_beside(kernel, "there_is_no_such_module", [])
    beside.wait_for_kernels()
    assert not is_kept(kernel)
    assert kernel(21) == 42


def test_no_process_is_started_where_it_does_not_help(kernel, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    beside.compile_beside(kernel, "kernel_of_a_test", [])
    monkeypatch.delattr(sys, "frozen")
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    beside.compile_beside(kernel, "kernel_of_a_test", [])
    assert not beside._processes


@pytest.mark.parametrize("text", [None, "{", "[]", '{"point_head": "round", "dtype": "int4"}'])
def test_folders_that_are_no_pipelines_are_left_to_others(tmp_path, text):
    (tmp_path / "point_generator").mkdir()
    if text is not None:
        (tmp_path / "point_generator" / "config.json").write_text(text)
    first_calls.expect_model(tmp_path)
    assert not beside._processes


@pytest.mark.slow
def test_the_first_use_compiles_beside(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", FIRST_USE, str(EMBEDDED)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
