# SPDX-License-Identifier: Apache-2.0
"""How the numba kernels of this folder are compiled."""

from __future__ import annotations

from collections.abc import Callable, Collection

from numba import njit


def compile_kernel(*, fastmath: Collection[str] = ()) -> Callable[[Callable], Callable]:
    """Decorator: a kernel that releases the GIL and is cached on disk where a folder is writable.

    Args:
        fastmath: LLVM's names of the liberties taken with floating point.
    """
    options = {"fastmath": set(fastmath), "error_model": "numpy", "nogil": True}

    def compile_function(function: Callable) -> Callable:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:
            # "no locator available": neither NUMBA_CACHE_DIR nor the package nor the home folder
            # can be written, as in a locked-down container. Each process then compiles anew.
            return njit(**options)(function)

    return compile_function
