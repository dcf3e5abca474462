# SPDX-License-Identifier: Apache-2.0
"""Run by test_launch_configs.py: examples/train.py, FSDP sharing out weights among CPUs.

Accelerate takes up FSDP on accelerators only. Here it is told that processes on CPUs, over gloo,
are such.
"""

import os
import runpy
import sys

from accelerate import PartialState
from accelerate.utils import DistributedType


def choose_gloo(*_):
    return "gloo", DistributedType.MULTI_GPU


if __name__ == "__main__":
    PartialState._prepare_backend = choose_gloo
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
    # PyTorch's caches of sharded tensors keep the group, so that destroying it leaves gloo's
    # threads running; the interpreter's end, now and then, is aborted by them.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
