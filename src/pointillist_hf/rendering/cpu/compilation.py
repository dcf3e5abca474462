# SPDX-License-Identifier: Apache-2.0
"""How the numba kernels of this folder are compiled, and how long that took."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Collection

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
    options = {"fastmath": set(fastmath), "error_model": "numpy", "nogil": True}
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


def _check_writable(folder: str) -> None:
    """Raises OSError: for a package in a zip, numba finds out only when it has compiled."""
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def report_compilation() -> None:
    """Logs the time spent on compiling since the last report; nothing if there was none."""
    if _clock.seconds == 0:
        return
    folders = {kernel.stats.cache_path for kernel in _clock.kernels} - {None}
    where = f"kept in {folders.pop()}" if folders else "not kept: set NUMBA_CACHE_DIR"
    logger.info("CPU kernels compiled in %.1f s, %s", _clock.seconds, where)
    _clock.seconds = 0.0
