# SPDX-License-Identifier: Apache-2.0
"""What the buttons of the page do, for the visitor who pressed them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr

from .frames import show_cloud, show_page
from .jobs import FILES, GREETING_PAGE, STILL_PAGE, TAKE_PAGE
from .studio import Studio, describe_progress
from .worker import JobError, StoppedError

logger = logging.getLogger(__name__)

LOOKS_AROUND, STILL, RECORDING = "looks around", "holds still", "plays my recording"
PAGES = {LOOKS_AROUND: GREETING_PAGE, STILL: STILL_PAGE, RECORDING: TAKE_PAGE}
# What the library calls by the names of its arguments.
NAMES = {"`image`": "The photograph", "`take`": "The recording", "`path`": "The recording"}


class Events:
    """Callbacks of a page.

    Args:
        studio: Does the work.
        page: Whose own files, such as examples, are not a visitor's to delete.
    """

    def __init__(self, studio: Studio, page: gr.Blocks) -> None:
        self.studio, self.page = studio, page
        studio.storage.is_kept = self.is_kept

    def is_kept(self, path: Path) -> bool:
        """Whether a file of the cache belongs to the page."""
        return any(str(path) in block.keep_in_cache for block in self.page.blocks.values())

    def make(
        self,
        photograph: str | None,
        seed: float,
        refine_steps: float,
        face: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  so gradio finds that it is wanted
    ) -> list[object]:
        """Viewer, sentence, choice of motions, column of the result, and the downloads."""

        def tell(step: str, done: int) -> None:
            share, words = describe_progress(step, done, int(refine_steps))
            progress(share, desc=words)

        visitor = request.session_hash
        progress(0.0, desc="Waiting for the worker")
        with _sentences():
            made = self.studio.make(
                visitor,
                photograph,
                seed=int(seed),
                refine_steps=int(refine_steps),
                # Without a choice the pipeline warns where there are several.
                face=int(face) if face and face > 1 else None,
                on_progress=tell,
            )
        paths = self.studio.list_files(visitor)
        seconds = sum(made.seconds.values())
        return [
            show_page(self.studio.read_page(visitor, GREETING_PAGE)),
            f"{made.num_points:,} points in {seconds:.1f} s.",
            gr.Radio(value=LOOKS_AROUND, visible=True),
            gr.Column(visible=True),
            *(gr.DownloadButton(value=str(paths[name])) for name in FILES),
        ]

    def begin(self, request: gr.Request) -> list[gr.Button]:
        """The buttons, for as long as an avatar is made."""
        self.studio.expect(request.session_hash)
        return switch_buttons(is_busy=True)

    def end(self, request: gr.Request) -> list[gr.Button]:
        """The buttons, once there is an avatar or will be none."""
        self.studio.storage.visit(request.session_hash).has_cloud.set()
        return switch_buttons(is_busy=False)

    def watch(self, request: gr.Request) -> object:
        """Viewer, with the points as soon as they are written."""
        cloud = self.studio.wait_for_cloud(request.session_hash)
        return show_cloud(cloud) if cloud else gr.skip()

    def play(self, take: str | None, request: gr.Request) -> list[object]:
        """Viewer, sentence, choice of motions."""
        visitor = request.session_hash
        with _sentences():
            played = self.studio.play(visitor, take)
        page = self.studio.read_page(visitor, TAKE_PAGE)
        return [show_page(page), f"{played.num_frames} frames of your recording.", RECORDING]

    def show(self, choice: str, request: gr.Request) -> object:
        """Viewer, with the head that does what was chosen."""
        page = self.studio.read_page(request.session_hash, PAGES[choice])
        if page is None:
            gr.Info("Upload a recording, and the head will play it.")
            return gr.skip()
        return show_page(page)

    def stop(self, request: gr.Request) -> None:
        """Ends what is being made."""
        self.studio.stop(request.session_hash)

    def keep_photograph(self, photograph: str | None, request: gr.Request) -> None:
        """So that it is deleted when its visitor leaves, used or not."""
        path = None if photograph is None else Path(photograph)
        self.studio.storage.keep_upload(request.session_hash, "photograph", path)

    def drop_photograph(self, request: gr.Request) -> None:
        """The visitor has taken it back."""
        self.studio.storage.keep_upload(request.session_hash, "photograph", None)

    def leave(self, request: gr.Request) -> None:
        """The visitor has closed the page."""
        self.studio.storage.end_visit(request.session_hash)


def switch_buttons(is_busy: bool) -> list[gr.Button]:
    """The button that begins, or the one that stops."""
    return [gr.Button(visible=not is_busy), gr.Button(visible=is_busy)]


@contextmanager
def _sentences() -> Iterator[None]:
    """Shows what is wrong on the page."""
    try:
        yield
    except StoppedError as error:
        raise gr.Error(str(error), duration=4, print_exception=False) from error
    except JobError as error:
        logger.info("Refused: %s", error)
        sentence = str(error)
        for name, words in NAMES.items():
            sentence = sentence.replace(name, words)
        raise gr.Error(sentence, duration=None, print_exception=False) from error
