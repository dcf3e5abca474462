# SPDX-License-Identifier: Apache-2.0
"""Kernels that are compiled in a process beside this one, while it loads and computes.

In one process numba compiles one kernel at a time, and half of that time it holds the GIL. What the
other process has compiled lies in numba's cache, where this one finds it.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .compilation import is_kept

logger = logging.getLogger(__name__)

# The same packages as here, wherever a program has put them.
RUN = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv[1]); del sys.argv[:2]; "
    "runpy.run_module(sys.argv[0], run_name='__main__')"
)
_processes: list[subprocess.Popen] = []


def compile_beside(kernel: Callable, module: str, arguments: Sequence[str]) -> None:
    """Starts a process that compiles a kernel, if it is not compiled yet and a core is free.

    Args:
        kernel: Decorated with `compile_kernel`.
        module: Run as a script; it has to compile the kernel. It must not load torch, which would
            take as long as it saves.
        arguments: Of the script.
    """
    # In a frozen program, the executable is the program.
    is_python = bool(sys.executable) and not getattr(sys, "frozen", False)
    cores = os.cpu_count() or 1
    if _processes or is_kept(kernel) or kernel.stats.cache_path is None or cores < 2:
        return
    if not is_python:
        return
    command = [sys.executable, "-c", RUN, json.dumps(sys.path), module, *arguments]
    nothing = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    hidden = {"creationflags": getattr(subprocess, "CREATE_NO_WINDOW", 0)}  # on Windows
    try:
        _processes.append(subprocess.Popen(command, **nothing, **hidden))
    except OSError:  # where processes cannot be made, kernels are compiled here
        return
    where = Path(kernel.stats.cache_path)
    logger.info("Compiling CPU kernels beside, once on this machine; they are kept in %s", where)


def wait_for_kernels() -> None:
    """Returns when nothing is being compiled beside; what failed there is compiled here then."""
    while _processes:
        _processes[-1].wait()
        _processes.clear()
