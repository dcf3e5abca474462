# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a place to write to, said before the work is done."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def resolve_file(path: str | Path) -> Path:
    """The file that a path means, behind symbolic links; it need not be there yet.

    Raises:
        OSError: It is a folder, a device or read-only, its name is too long, or its folder cannot
            be written to.
        ValueError: The path is none.
    """
    target = _follow_links(path)
    if target.is_dir():
        raise IsADirectoryError(
            f"`path` must be a file to write, and {path} is a folder; name a file inside it."
        )
    if target.exists() and not target.is_file():
        raise FileExistsError(
            f"`path` must be an ordinary file, and {path} is a device or a pipe; name another."
        )
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(
            f"`path` must be a file that may be changed, and {path} is read-only; name another."
        )
    _check_place(target.parent, path)
    return target


def resolve_folder(path: str | Path) -> Path:
    """The folder that a path means, behind symbolic links; it need not be there yet.

    Raises:
        OSError: It is a file, its name is too long, or it cannot be written to.
        ValueError: The path is none.
    """
    target = _follow_links(path)
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"`path` must be a folder, and {path} is a file; name another.")
    _check_place(target, path)
    return target


def resolve_new_folder(path: str | Path) -> Path:
    """As `resolve_folder`, of a folder that is new or empty.

    Raises:
        FileExistsError: There is a file, or a folder that holds something.
    """
    target = _follow_links(path)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(
            f"`path` must be a new or empty folder, and {path} is not; name another."
        )
    return resolve_folder(path)


def describe_full_disk(error: OSError, path: str | Path) -> OSError:
    """The same error, but for a full disk, of which the system names no file."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return OSError(
        error.errno, f"`path` must lie where there is room, and the disk of {path} is full"
    )


def _follow_links(path: str | Path) -> Path:
    if "\0" in os.fspath(path):
        raise ValueError(f"`path` must not hold a zero character, got {os.fspath(path)!r}.")
    target = Path(os.path.realpath(path))
    try:
        target.lstat()
    except FileNotFoundError:
        return target
    except NotADirectoryError as error:
        raise NotADirectoryError(
            f"`path` must lie in a folder, and a part of {path} is a file; name another."
        ) from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise OSError(
            error.errno, f"`path` must have a name that the disk takes, and {path} is too long"
        ) from error
    if target.is_symlink():
        raise OSError(errno.ELOOP, f"`path` must lead to a file, and the link {path} to itself")
    return target


def _check_place(folder: Path, path: str | Path) -> None:
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        raise NotADirectoryError(
            f"`path` must lie in a folder, and {existing} is a file; name another place."
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(
            f"`path` must lie where you may write, and {path} lies in {existing}, which is "
            "read-only for you; name another place."
        )
