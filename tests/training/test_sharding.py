# SPDX-License-Identifier: Apache-2.0
"""Generators whose weights are shared out by FSDP2 are trained, looked at and saved like others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("sharded_generator.py")


@pytest.mark.slow
def test_a_sharded_generator_is_a_whole_one(tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # of tiny_generators too
    done = subprocess.run(
        [*launch, "--standalone", str(SCRIPT), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
