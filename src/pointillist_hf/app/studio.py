# SPDX-License-Identifier: Apache-2.0
"""What visitors can do: make an avatar, have it play a recording, leave. Knows no web framework."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..pipeline_avatar import ProgressCallback
from .jobs import FILES, POINTS, MadeAvatar, MakeAvatar, PlayTake, ReadTake
from .settings import AppSettings
from .storage import Storage, Visit
from .worker import JobError, Worker

NO_PHOTOGRAPH = "Please upload a photograph first."
NO_AVATAR = "Please make an avatar first."
# (words, share of the work when the step begins, share when it ends, its usual amount)
STEPS = {
    "track_portraits": ("Finding the face", 0.0, 0.12, None),
    "encode_image": ("Looking at the portrait", 0.12, 0.2, None),
    "generate_tokens": ("Writing points", 0.2, 0.5, 800),
    "decode_points": ("Completing the head from the photograph", 0.5, 0.6, None),
    "decode_gaussians": ("Painting the points", 0.6, 0.65, None),
    "refine": ("Comparing with the photograph", 0.65, 0.95, 100),
    "write_files": ("Writing the files", 0.95, 1.0, None),
}


class Studio:
    """One worker, and the files of those who are here.

    Args:
        settings: What visitors may ask for.
        worker: Makes the avatars.
        storage: Keeps what is theirs.
    """

    def __init__(self, settings: AppSettings, worker: Worker, storage: Storage) -> None:
        self.settings, self.worker, self.storage = settings, worker, storage

    def make(
        self,
        visitor: str,
        photograph: str | Path | None,
        *,
        seed: int = 0,
        refine_steps: int = 0,
        face: int | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> MadeAvatar:
        """A new avatar for the visitor, in place of an earlier one.

        Raises:
            JobError: There will be none, in a sentence for the visitor.
        """
        if photograph is None:
            raise JobError(NO_PHOTOGRAPH)
        visit = self._begin(visitor)
        path = Path(photograph)
        self.storage.keep_upload(visitor, "photograph", path)
        folder = self.storage.new_folder()
        refine_steps = min(refine_steps, self.settings.max_refine_steps)
        job = MakeAvatar(path, folder, seed=seed, refine_steps=refine_steps, face=face)

        def listen(step: str, done: object) -> None:
            if step == POINTS:
                visit.cloud = done
                visit.has_cloud.set()
            elif on_progress is not None:
                on_progress(step, done)

        try:
            made = self.worker.run(job, listen, lambda: visit.is_wanted)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            visit.has_cloud.set()
        self.storage.keep_folder(visitor, folder)
        return made

    def expect(self, visitor: str) -> None:
        """The visitor is about to have an avatar made."""
        visit = self._begin(visitor)
        visit.cloud = []
        visit.has_cloud.clear()

    def wait_for_cloud(self, visitor: str) -> list[list[float]]:
        """x, y, z of the points that are made for the visitor; empty if there will be none."""
        visit = self.storage.visit(visitor)
        seconds = self.settings.time_limit * self.settings.queue_size
        return visit.cloud if visit.has_cloud.wait(seconds) else []

    def play(self, visitor: str, take: str | Path | None) -> ReadTake:
        """The visitor's avatar plays a recording on the page `TAKE_PAGE`.

        Raises:
            JobError: It will not, in a sentence for the visitor.
        """
        visit = self._begin(visitor)
        if visit.folder is None:
            raise JobError(NO_AVATAR)
        if take is None:
            raise JobError("Please upload a recording first.")
        self.storage.keep_upload(visitor, "take", Path(take))
        job = PlayTake(Path(take), visit.folder)
        return self.worker.run(job, None, lambda: visit.is_wanted)

    def stop(self, visitor: str) -> None:
        """What is being made for the visitor is not wanted any more."""
        self.storage.visit(visitor).is_wanted = False

    def read_page(self, visitor: str, name: str) -> str | None:
        """A page of the visitor's avatar; None where there is none."""
        folder = self.storage.visit(visitor).folder
        page = None if folder is None else folder / name
        return page.read_text("utf-8") if page is not None and page.is_file() else None

    def list_files(self, visitor: str) -> dict[str, Path]:
        """The files that the visitor can take home, by name."""
        folder = self.storage.visit(visitor).folder
        return {} if folder is None else {name: folder / name for name in FILES}

    def _begin(self, visitor: str) -> Visit:
        visit = self.storage.visit(visitor)
        visit.is_wanted = True
        return visit


def describe_progress(step: str, done: int, refine_steps: int = 0) -> tuple[float, str]:
    """How much of the work is done, of 1, and what is going on."""
    words, start, end, usual = STEPS[step]
    if step == "refine" and done:
        words, usual = f"{words}: step {done} of {refine_steps}", refine_steps
    elif step == "generate_tokens" and done:
        words = f"{words}: {done}"
    share = min(done / usual, 1.0) if usual else 0.0
    return start + share * (end - start), words
