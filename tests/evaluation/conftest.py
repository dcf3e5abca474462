# SPDX-License-Identifier: Apache-2.0
"""A benchmark of tiny captures, made once."""

from dataclasses import replace

import pytest
from capture_files import CONFIG

from pointillist_hf.data.captures.synthetic import write_synthetic_captures
from pointillist_hf.evaluation.benchmark_choice import BenchmarkConfig
from pointillist_hf.evaluation.benchmark_making import make_benchmark


@pytest.fixture(scope="session")
def capture_folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captures")
    return write_synthetic_captures(folder, 3, CONFIG, seed=5, show_progress=False)


@pytest.fixture(scope="session")
def drawn():
    return BenchmarkConfig(num_identities=2, num_timesteps=2, num_views=2, image_size=64)


@pytest.fixture(scope="session")
def benchmark_folder(capture_folders, drawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark") / "made"
    make_benchmark(capture_folders, folder, drawn, dataset="tiny people", show_progress=False)
    return folder


@pytest.fixture(scope="session")
def face_benchmark(drawn, tmp_path_factory):
    """As `benchmark_folder`, of people large enough for their faces to be found."""
    folder = tmp_path_factory.mktemp("faces")
    config = replace(CONFIG, image_size=160, num_timesteps=2)
    captures = write_synthetic_captures(folder, 3, config, seed=5, show_progress=False)
    drawn = replace(drawn, image_size=160)
    make_benchmark(captures, folder / "made", drawn, dataset="people", show_progress=False)
    return folder / "made"
