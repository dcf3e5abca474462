# SPDX-License-Identifier: Apache-2.0
"""The files of visitors: each has a folder nobody can guess, and all of them are deleted.

They go when the visitor leaves, when something newer takes their place, when they are old, and
when the app ends.
"""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Visit:
    """What one visitor has here."""

    folder: Path | None = None  # of the avatar
    uploads: dict[str, Path] = field(default_factory=dict)  # by the place on the page
    last_seen: float = field(default_factory=time.monotonic)
    is_wanted: bool = True  # whether what is being made for the visitor still is
    cloud: list[list[float]] = field(default_factory=list)  # of what is being made; x, y, z
    has_cloud: threading.Event = field(default_factory=threading.Event)  # or will have none


class Storage:
    """Keeps account of who holds what.

    Args:
        root: Folder for the avatars.
        is_kept: Of uploads that belong to the page, such as its examples. Two visitors who upload
            the same picture hold the same file.
    """

    def __init__(self, root: Path, is_kept: Callable[[Path], bool] = lambda path: False) -> None:
        self.root, self.is_kept = root, is_kept
        self._visits: dict[str, Visit] = {}
        self._lock = threading.Lock()

    def visit(self, visitor: str) -> Visit:
        """What the visitor has, who was seen just now."""
        with self._lock:
            visit = self._visits.setdefault(visitor, Visit())
            visit.last_seen = time.monotonic()
            return visit

    def new_folder(self) -> Path:
        """An empty folder, which `keep_folder` gives to somebody."""
        folder = self.root / secrets.token_urlsafe(16)
        folder.mkdir(parents=True)
        return folder

    def keep_folder(self, visitor: str, folder: Path) -> None:
        """The visitor's folder from here on; the one before is deleted."""
        visit = self.visit(visitor)
        before, visit.folder = visit.folder, folder
        _delete_folder(before)

    def keep_upload(self, visitor: str, place: str, path: Path | None) -> None:
        """The visitor's upload in that place from here on; the one before is deleted."""
        visit = self.visit(visitor)
        before = visit.uploads.pop(place, None)
        if path is not None:
            visit.uploads[place] = path
        self._release(before)

    def end_visit(self, visitor: str) -> None:
        """Deletes all that the visitor has, and ends what is being made."""
        with self._lock:
            visit = self._visits.pop(visitor, None)
        if visit is None:
            return
        visit.is_wanted = False
        visit.has_cloud.set()  # nobody is kept waiting
        _delete_folder(visit.folder)
        for path in visit.uploads.values():
            self._release(path)

    def end_old_visits(self, seconds: float) -> None:
        """Ends the visits of those who have not been seen for so long."""
        now = time.monotonic()
        with self._lock:
            old = [name for name, v in self._visits.items() if now - v.last_seen > seconds]
        for visitor in old:
            self.end_visit(visitor)

    def _release(self, path: Path | None) -> None:
        """Deletes an upload that nobody holds any more."""
        if path is None or self.is_kept(path):
            return
        with self._lock:
            held = {other for visit in self._visits.values() for other in visit.uploads.values()}
        if path not in held:
            path.unlink(missing_ok=True)


def _delete_folder(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
