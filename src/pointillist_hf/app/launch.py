# SPDX-License-Identifier: Apache-2.0
"""The app as a server: its process, its folder of files, and how both end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

try:
    import gradio as gr
except ImportError as error:
    raise ImportError(
        '`pointillist-hf app` needs gradio: pip install "pointillist-hf[app]"'
    ) from error

from .page import build_page, read_style
from .settings import AppSettings
from .storage import Storage
from .studio import Studio
from .worker import Worker

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 30.0  # between looks at who has not been seen for long
CACHE = "GRADIO_TEMP_DIR"  # the variable that tells gradio where uploads go


def launch_app(settings: AppSettings) -> None:
    """Serves the page until it is interrupted; then nothing of its visitors is left.

    Raises:
        JobError: The model cannot be loaded.
        ImportError: gradio is not installed.
        OSError: The port is taken.
    """
    # Files are deleted where the program ends by itself, and not where a signal ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    worker = Worker(settings.model, settings.time_limit)
    with tempfile.TemporaryDirectory(prefix="pointillist-", ignore_cleanup_errors=True) as folder:
        worker.start()  # loads while the page is built
        os.environ[CACHE] = folder
        # Results lie in gradio's folder, or it would copy them to places named by their content.
        storage = Storage(Path(folder) / "avatars")
        page = build_page(Studio(settings, worker, storage))
        page.queue(max_size=settings.queue_size, api_open=False)
        ended = threading.Event()
        sweep = (storage, 60.0 * settings.keep_minutes, ended)
        threading.Thread(target=_end_old_visits, args=sweep, daemon=True).start()
        try:
            worker.wait()
            _, address, _ = page.launch(
                server_name=settings.host,
                server_port=settings.port,
                max_file_size=f"{settings.max_megabytes}mb",
                theme=build_theme(),
                css=read_style(),
                share=False,
                ssr_mode=False,
                footer_links=[],
                enable_monitoring=False,
                run_history=False,
                quiet=True,
                prevent_thread_lock=True,
            )
            logger.info("The app is at %s until Ctrl-C ends it.", address)
            page.block_thread()
        finally:
            ended.set()
            worker.close()


def _end_old_visits(storage: Storage, seconds: float, ended: threading.Event) -> None:
    while not ended.wait(SWEEP_SECONDS):
        storage.end_old_visits(seconds)


def build_theme() -> gr.Theme:
    """Of gradio's own, with fonts of the system: nothing is loaded from elsewhere."""
    fonts = ["system-ui", "Segoe UI", "Roboto", "Helvetica", "sans-serif"]
    return gr.themes.Soft(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        font=fonts,
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )
