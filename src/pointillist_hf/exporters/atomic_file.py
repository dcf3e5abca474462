# SPDX-License-Identifier: Apache-2.0
"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import zlib
from collections.abc import Callable
from pathlib import Path

from .folder_owner import PARTIAL_SUFFIX, hold_lock
from .write_targets import describe_full_disk, resolve_file, resolve_new_folder


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a file beside the target and moves it in place in one step.

    An interrupted write leaves what was there before. Missing folders are made; a symbolic link
    stays, and what it leads to is written.

    Args:
        path: The target.
        write: Gets the path to write to, which has another suffix than the target.

    Raises:
        OSError: The target cannot be written; said before `write` is called, if the disk is not
            full.
    """
    target = resolve_file(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = name_partial(target)
    try:
        partial.touch()
        # Some writers make files that nobody else may read.
        mode = (target if target.exists() else partial).stat().st_mode
        write(partial)
        partial.chmod(stat.S_IMODE(mode))
        os.replace(partial, target)
    except OSError as error:
        raise describe_full_disk(error, path) from error
    finally:
        partial.unlink(missing_ok=True)


def write_folder_atomically(path: str | Path, fill: Callable[[Path], object]) -> None:
    """Lets `fill` write into a folder beside the target and moves it in place in one step.

    Args:
        path: The target, which must be new or an empty folder.
        fill: Gets the folder to write to.

    Raises:
        FileExistsError: There is a file at the target, or a folder that holds something.
        BlockingIOError: Another process is at work on the same folder.
    """
    target = resolve_new_folder(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder, which is not there yet; of a length that every name leaves room for.
    lock = target.parent / f".{zlib.crc32(os.fsencode(target.name)):08x}.lock"
    partial = name_partial(target)
    with hold_lock(lock, target):
        # Another may have filled it while the lock was taken.
        resolve_new_folder(path)
        partial.mkdir()
        try:
            fill(partial)
            if target.exists():
                target.rmdir()  # not every system replaces an empty folder
            os.replace(partial, target)
        except OSError as error:
            raise describe_full_disk(error, path) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def name_partial(target: Path) -> Path:
    """A path beside the target that no other process, thread or call uses.

    The process stands in the name, so that what a killed one leaves is known as such. The name of
    the target does not: it may be as long as the disk allows.
    """
    return target.with_name(f".{os.getpid()}-{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
