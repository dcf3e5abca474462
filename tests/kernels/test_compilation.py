# SPDX-License-Identifier: Apache-2.0
"""What the kernels cost before the first picture: compiled once, kept where a folder allows it."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

SOURCE = Path(__file__).parents[2] / "src"
KERNEL = """
import logging
from pointillist_hf.kernels.compilation import compile_kernel, report_compilation
logging.basicConfig(level=logging.INFO, format="%(message)s")

@compile_kernel()
def double(x):
    return 2 * x

assert double(21) == 42
report_compilation()
report_compilation()
"""
RENDER = """
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
import torch
import pointillist_hf
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.structures import Gaussians
from pointillist_hf.rendering import rasterize
assert ".zip" in pointillist_hf.__file__
ball = Gaussians(
    torch.zeros(1, 3), torch.ones(1, 4), torch.full((1, 3), 0.1), torch.ones(1), torch.ones(1, 3)
)
for _ in range(2):
    _, alphas = rasterize(ball, orbit_cameras([0.0], width=8, height=8))
assert alphas.max() > 0.9
"""


def run_python(program, **environment):
    """What a fresh interpreter logs; None takes a variable away."""
    values = {**os.environ, "PYTHONPATH": str(SOURCE), **environment}
    values = {name: str(value) for name, value in values.items() if value is not None}
    command = (
        [sys.executable, program] if isinstance(program, Path) else [sys.executable, "-c", program]
    )
    run = subprocess.run(command, env=values, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stderr


def test_kernels_are_compiled_once_and_kept(tmp_path):
    program = tmp_path / "kernel.py"
    program.write_text(KERNEL)
    cache = tmp_path / "missing" / "folder"
    first = run_python(program, NUMBA_CACHE_DIR=cache)
    assert first.count("CPU kernels compiled in") == 1
    assert f"kept in {cache}" in first
    assert run_python(program, NUMBA_CACHE_DIR=cache) == ""


def test_kernels_compile_where_no_cache_can_be_written():
    nowhere = "from numba.core import caching\ncaching.CacheImpl._locator_classes = []\n"
    assert "not kept: set NUMBA_CACHE_DIR" in run_python(nowhere + KERNEL)


@pytest.mark.slow
def test_a_locked_down_container_renders(tmp_path):
    """No folder can be made below a file, not even by root; nor can a zip hold a cache."""
    (tmp_path / "file").write_text("")
    with ZipFile(tmp_path / "package.zip", "w") as package:
        for file in (SOURCE / "pointillist_hf").rglob("*.py"):
            package.write(file, file.relative_to(SOURCE))
    log = run_python(
        RENDER,
        PYTHONPATH=tmp_path / "package.zip",
        NUMBA_CACHE_DIR=tmp_path / "file" / "cache",
        HOME=tmp_path / "file" / "home",
        XDG_CACHE_HOME=None,
    )
    assert log.count("CPU kernels compiled in") == 1
    assert "not kept: set NUMBA_CACHE_DIR" in log
