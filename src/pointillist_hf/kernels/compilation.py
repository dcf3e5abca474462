# SPDX-License-Identifier: Apache-2.0
"""How numba compiles our kernels and their parts, and how long that took.

Most of that time goes into code that nobody runs: doors for Python at functions that only kernels
call, and one more optimisation of a function for each level of calls above it.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path

from numba import njit
from numba.core import event

logger = logging.getLogger(__name__)


class _CompilationClock(event.Listener):
    """Adds up the seconds in which numba compiles our kernels, not those of loading them."""

    def __init__(self) -> None:
        self.kernels: list[Callable] = []
        self.seconds = 0.0
        self.start = 0.0
        self.was_announced = False

    def on_start(self, event: event.Event) -> None:
        # What a kernel calls is compiled within its own time.
        if event.data["dispatcher"] in self.kernels:
            if not self.was_announced:
                logger.info("Compiling CPU kernels, which takes a while on their first use ...")
            self.was_announced = True
            self.start = time.perf_counter()

    def on_end(self, event: event.Event) -> None:
        if event.data["dispatcher"] in self.kernels:
            self.seconds += time.perf_counter() - self.start


_clock = _CompilationClock()
event.register("numba:compile", _clock)


def compile_kernel(
    *, fastmath: Collection[str] = (), counts_references: bool = True
) -> Callable[[Callable], Callable]:
    """Decorator: a kernel that releases the GIL and is cached on disk where a folder is writable.

    Args:
        fastmath: LLVM's names of the liberties taken with floating point.
        counts_references: Whether arrays may be made. If not, neither the kernel nor what it calls
            counts who has them: locked instructions, which hold up what is read next.
    """
    # Nobody calls our kernels from C.
    options = {
        "fastmath": set(fastmath),
        "error_model": "numpy",
        "nogil": True,
        "no_cfunc_wrapper": True,
    }
    if not counts_references:
        options["_nrt"] = False

    def compile_function(function: Callable) -> Callable:
        try:
            kernel = njit(cache=True, **options)(function)
            _check_writable(kernel.stats.cache_path)
        except (RuntimeError, OSError):
            # "No locator available" or a folder that cannot be written: neither NUMBA_CACHE_DIR
            # nor the package nor the home folder will do, as in a locked-down container. Each
            # process then compiles anew.
            kernel = njit(**options)(function)
        _clock.kernels.append(kernel)
        return kernel

    return compile_function


def compile_part(
    *, fastmath: Collection[str] = (), is_inlined: bool = False
) -> Callable[[Callable], Callable]:
    """Decorator: a function that kernels call. Called from Python, it crashes the interpreter.

    Args:
        fastmath: As for kernels; an inlined function has those of its caller.
        is_inlined: Whether it becomes part of its callers, which is quicker to compile where there
            are one or two.
    """
    options = {"fastmath": set(fastmath), "error_model": "numpy"}
    if is_inlined:
        options["inline"] = "always"
    return njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)


def _check_writable(folder: str) -> None:
    """Raises OSError: for a package in a zip, numba finds out only when it has compiled."""
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def is_kept(kernel: Callable) -> bool:
    """Whether numba's cache holds the kernel, compiled after its sources were written.

    For other types of arguments than it was compiled for, it may have to be compiled all the same.
    """
    source = Path(kernel.py_func.__code__.co_filename)
    if kernel.stats.cache_path is None or not source.is_file():
        return False
    written = max(path.stat().st_mtime for path in source.parent.glob("*.py"))
    found = Path(kernel.stats.cache_path).glob(f"*{kernel.py_func.__name__}-*.nbi")
    return any(path.stat().st_mtime >= written for path in found)


def report_compilation() -> None:
    """Logs the time spent on compiling since the last report; nothing if there was none."""
    if _clock.seconds == 0:
        return
    folders = {kernel.stats.cache_path for kernel in _clock.kernels} - {None}
    where = f"kept in {folders.pop()}" if folders else "not kept: set NUMBA_CACHE_DIR"
    logger.info("CPU kernels compiled in %.1f s, %s", _clock.seconds, where)
    _clock.seconds = 0.0
