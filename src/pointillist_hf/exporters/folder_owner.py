# SPDX-License-Identifier: Apache-2.0
"""One writer per folder: a second one is told who the first is, and a dead one leaves no lock.

The lock is the system's (`flock`), held on a file that names the process. The system frees it when
the process ends, however it ends, so a lock file without a living owner is taken over.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .write_targets import describe_full_disk, resolve_folder

try:
    import fcntl
except ImportError:  # Windows: folders are not guarded there
    fcntl = None

# What disks say that know no locks; folders are not guarded there either.
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
LOCK_FILE = ".lock"
PARTIAL_SUFFIX = ".partial"  # of `.PROCESS-CHANCE.partial`, what is being written


@contextmanager
def own_folder(folder: str | Path) -> Iterator[Path]:
    """The folder, made if it is missing, for this caller alone until the block ends.

    What killed processes were writing when they ended is removed. The lock file `.lock` lies in
    the folder and goes with the block. Another thread of the same process is another caller.

    Raises:
        BlockingIOError: Somebody else owns the folder.
        OSError: The folder cannot be written to.
    """
    place = resolve_folder(folder)
    place.mkdir(parents=True, exist_ok=True)
    with hold_lock(place / LOCK_FILE, place):
        _remove_leftovers(place)
        yield place


@contextmanager
def hold_lock(lock: Path, folder: Path) -> Iterator[None]:
    """Holds a lock file, which is made and removed; the folder is what it guards.

    Raises:
        BlockingIOError: Somebody else holds it.
    """
    if fcntl is None:
        yield
        return
    descriptor = _acquire(lock, folder)
    try:
        yield
    finally:
        # While it is held: afterwards it may be another's.
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(lock: Path, folder: Path) -> int:
    """The descriptor of the lock file, locked."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(descriptor), lock.stat())
        except BlockingIOError as error:
            owner = os.read(descriptor, 300).decode("utf-8", "replace").strip()
            os.close(descriptor)
            raise BlockingIOError(
                f"`folder` must have one writer at a time, and {folder} is being written by "
                f"{owner or 'another process'}; wait until it ends, or name another folder."
            ) from error
        except FileNotFoundError:
            is_ours = False  # its owner removed the file between our two steps
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            is_ours = True
        if is_ours:
            _sign(descriptor, lock, folder)
            return descriptor
        os.close(descriptor)


def _sign(descriptor: int, lock: Path, folder: Path) -> None:
    """Writes who the owner is."""
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except OSError as error:
        lock.unlink(missing_ok=True)
        os.close(descriptor)
        raise describe_full_disk(error, folder) from error


def _remove_leftovers(folder: Path) -> None:
    if fcntl is None:
        return
    for partial in folder.glob(f".*-*{PARTIAL_SUFFIX}"):
        process = partial.name[1:].split("-")[0]
        if not process.isdecimal() or _is_alive(int(process)):
            continue
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks, and sends nothing
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
