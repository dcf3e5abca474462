# SPDX-License-Identifier: Apache-2.0
"""A capture on disk, and copies of it that a test may damage."""

import shutil

import pytest
from capture_files import tiny_capture

from pointillist_hf.data.captures.writing import write_capture


@pytest.fixture(scope="session")
def capture_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("captures") / "anna"
    write_capture(tiny_capture(), path)
    return path


@pytest.fixture
def capture_copy(capture_folder, tmp_path):
    return shutil.copytree(capture_folder, tmp_path / "copy")
