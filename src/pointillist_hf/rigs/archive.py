# SPDX-License-Identifier: Apache-2.0
"""Arrays of .npz files that come from elsewhere."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

MAX_UNPACKED_SIZE = 2**30  # bytes
# Each of these is what numpy or zipfile say of some damaged archive.
DAMAGE = (
    ValueError, OSError, EOFError, MemoryError, RuntimeError, NotImplementedError, TypeError,
    zlib.error, zipfile.BadZipFile, tokenize.TokenError, SyntaxError,
)  # fmt: skip


def read_archive(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays of these names, as far as they are there; others are not unpacked.

    Raises:
        ValueError: The archive is damaged, would fill the memory, or holds objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        size = sum(sizes.get(f"{name}.npy", 0) for name in names)
        if size > MAX_UNPACKED_SIZE:
            raise ValueError(f"it unpacks to {size} bytes")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names if name in archive}
    except DAMAGE as error:
        reason = str(error) or "it is damaged"
        raise ValueError(f"{path} cannot be read as .npz of plain arrays: {reason}.") from error
