# SPDX-License-Identifier: Apache-2.0
"""The command, killed on its way and given again, ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pointillist_hf.evaluation.manifest import read_manifest

pytestmark = pytest.mark.slow
TIMED = ("speed", "systems")  # seconds are not the same twice
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def command(tiny_pipeline, face_benchmark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_pipeline.save_pretrained(folder)

    def start(output, *options):
        words = ["evaluate", face_benchmark, "-o", output, "--model", folder, *options]
        return subprocess.Popen(
            [sys.executable, "-m", "pointillist_hf.cli", *map(str, words)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            start_new_session=True,  # so that its workers can be killed with it
        )

    return start


def finish(process):
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors.decode()[-2000:]


def kill_when(process, pattern, count):
    """Kills a process and its workers at once when so many files are there."""
    folder, name = pattern
    for _ in range(18000):
        if len([*folder.glob(name)]) >= count or process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.poll() is None, process.stderr.read().decode()[-2000:]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def contents(output):
    """Everything that does not tell the time."""
    results = json.loads((output / "results.json").read_text())
    results = {name: value for name, value in results.items() if name not in TIMED}
    files = {
        path.relative_to(output): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file() and path.suffix in (".png", ".npz", ".splat")
    }
    scores = {
        path.relative_to(output): json.loads(path.read_text())
        for path in output.glob("scores/**/*.json")
    }
    return results, files, scores


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    finish(command(output))
    return contents(output)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("renders/*/*.png", 3), ("renders/*/*.png", 13), ("scores/*/*.json", 5)],
)
def test_a_killed_run_ends_bit_for_bit_the_same(command, whole, tmp_path, pattern, count):
    process = command(tmp_path)
    kill_when(process, (tmp_path, pattern), count)
    assert not (tmp_path / "results.json").exists()
    finish(command(tmp_path))
    assert contents(tmp_path) == whole


@pytest.mark.xfail(strict=False, reason="sums of other processes may round differently")
def test_many_processes_do_the_same(command, whole, tmp_path, face_benchmark):
    process = command(tmp_path, "--num-proc", 2)
    kill_when(process, (tmp_path, "scores/*/*.json"), 2)
    finish(command(tmp_path, "--num-proc", 2))
    assert contents(tmp_path) == whole
    assert len([*tmp_path.glob("scores/*/*.json")]) == len(read_manifest(face_benchmark).items)
