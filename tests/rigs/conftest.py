# SPDX-License-Identifier: Apache-2.0
"""A FLAME file of made-up numbers, its arrays, and the rig made of it."""

import pytest
from fake_flame import fake_arrays, write_flame

from pointillist_hf.rigs.flame_rig import FlameHeadRig


@pytest.fixture(scope="session")
def flame_arrays():
    return fake_arrays()


@pytest.fixture(scope="session")
def flame_file(flame_arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("flame") / "flame2023.pkl"
    write_flame(path, flame_arrays)
    return path


@pytest.fixture(scope="session")
def flame_rig(flame_file):
    return FlameHeadRig.from_flame(flame_file)
