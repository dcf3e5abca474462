# SPDX-License-Identifier: Apache-2.0
"""The page as gradio draws it: a photograph on the left, the head that moves on the right."""

from __future__ import annotations

from importlib.resources import files

import gradio as gr

from .events import LOOKS_AROUND, PAGES, Events
from .frames import show_nothing
from .jobs import FILES
from .settings import AppSettings
from .studio import Studio

TITLE = "From one portrait to a head that moves"
INTRO = f"""# {TITLE}
One photograph becomes a cloud of 3D Gaussians on a head mesh. Turn it, move its face, take it home.
"""
ABOUT = """Make avatars only of people who agree to it. Your photograph and your avatar are deleted
when you leave this page, and {minutes} minutes after you last used it at the latest. From the side
and behind, hair is a guess. An independent open implementation of AvatarPointillist (CVPR 2026)."""
QUIET = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
QUEUED = {"api_visibility": "private", "concurrency_id": "worker", "concurrency_limit": 1}
MAX_SEED = 2**31 - 1


def build_page(studio: Studio) -> gr.Blocks:
    """The page of a studio; `launch_app` serves it."""
    settings = studio.settings
    page = gr.Blocks(
        title=TITLE,
        analytics_enabled=False,
        # Of uploads that nobody came to use.
        delete_cache=(60, 60 * settings.keep_minutes),
    )
    events = Events(studio, page)
    with page:
        gr.Markdown(INTRO, elem_id="intro")
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                photograph, make, stop, options = _draw_inputs(settings)
                with gr.Column(visible=False, elem_id="result") as result:
                    take, downloads = _draw_result()
            with gr.Column(scale=5, min_width=420):
                viewer = gr.HTML(show_nothing(), elem_id="viewer", padding=False)
                with gr.Row(elem_id="under"):
                    told = gr.Markdown(elem_id="told")
                    motion = gr.Radio(
                        [*PAGES], value=LOOKS_AROUND, show_label=False, visible=False,
                        container=False, elem_id="motion",
                    )  # fmt: skip
        gr.Markdown(ABOUT.format(minutes=settings.keep_minutes), elem_id="about")
        begun = make.click(events.begin, None, [make, stop], **QUIET)
        begun.then(events.watch, None, viewer, **QUIET)
        shown = [viewer, told, motion, result, *downloads]
        inputs = [photograph, *options]
        made = begun.then(events.make, inputs, shown, show_progress_on=viewer, **QUEUED)
        for ended in (made.success, made.failure):
            ended(events.end, None, [make, stop], **QUIET)
        stop.click(events.stop, None, None, **QUIET)
        photograph.upload(events.keep_photograph, photograph, None, **QUIET)
        photograph.clear(events.drop_photograph, None, None, **QUIET)
        motion.input(events.show, motion, viewer, **QUIET)
        take.upload(events.play, take, [viewer, told, motion], show_progress_on=viewer, **QUEUED)
        page.unload(events.leave)
    return page


def _draw_inputs(
    settings: AppSettings,
) -> tuple[gr.Image, gr.Button, gr.Button, list[gr.components.Component]]:
    """Photograph, both buttons, and what else `Events.make` takes."""
    photograph = gr.Image(
        label="Photograph",
        sources=["upload", "webcam", "clipboard"],
        height=270,
        elem_id="photograph",
    )
    # Files are left to the one reader of pictures of this package.
    photograph.preprocess = find_file
    make = gr.Button("Make the avatar", variant="primary", elem_id="make")
    stop = gr.Button("Stop", visible=False, elem_id="stop")
    if settings.examples:
        pictures = [[str(path)] for path in settings.examples]
        gr.Examples(pictures, [photograph], label="Or one of these")
    with gr.Accordion("Settings", open=False):
        most = settings.max_refine_steps
        refine_steps = gr.Slider(
            0,
            max(most, 10),
            value=min(100, most),
            visible=most > 0,
            step=10,
            label="Steps of refinement",
            info="More steps bring it closer to the photograph, and take longer.",
        )
        seed = gr.Number(
            0,
            precision=0,
            minimum=0,
            maximum=MAX_SEED,
            label="Seed",
            info="Another cloud of points.",
        )
        face = gr.Number(
            1, precision=0, minimum=1, maximum=99, label="Face", info="1 is the largest one."
        )
    return photograph, make, stop, [seed, refine_steps, face]


def _draw_result() -> tuple[gr.File, list[gr.DownloadButton]]:
    """A recording that the head can play, and what a visitor can take home."""
    gr.Markdown("### Take it home")
    with gr.Row(elem_id="files"):
        downloads = [
            gr.DownloadButton(words, size="sm", elem_id=name.replace(".", "-"))
            for name, words in FILES.items()
        ]
    gr.Markdown("### Let it play a recording")
    take = gr.File(
        label="ARKit coefficients (.csv, .json)",
        file_types=[".csv", ".json"],
        height=120,
        elem_id="take",
    )
    return take, downloads


def find_file(payload: gr.FileData | None) -> str | None:
    """Where an upload lies; gradio has made sure that it is one."""
    return None if payload is None else payload.path


def read_style() -> str:
    """The style sheet of the page."""
    return (files(__package__) / "app.css").read_text("utf-8")
