# SPDX-License-Identifier: Apache-2.0
"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a file beside the target and moves it in place in one step.

    An interrupted write leaves what was there before. Missing folders are made.

    Args:
        path: The target.
        write: Gets the path to write to, which has another suffix than the target.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_folder_atomically(path: str | Path, fill: Callable[[Path], object]) -> None:
    """Lets `fill` write into a folder beside the target and moves it in place in one step.

    Args:
        path: The target, which must be new or an empty folder.
        fill: Gets the folder to write to.

    Raises:
        FileExistsError: There is a file at the target, or a folder that holds something.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f"`path` must be a new or empty folder, and {path} is not.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        fill(partial)
        if path.exists():
            path.rmdir()  # not every system replaces an empty folder
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
