# SPDX-License-Identifier: Apache-2.0
"""The app as a script: run it here, or put it into a Space; see docs/app.md."""

import logging
import os
from pathlib import Path

from pointillist_hf.app.launch import launch_app
from pointillist_hf.app.settings import AppSettings, find_examples

IS_SPACE = "SPACE_ID" in os.environ

# The worker is another process, which imports this file too.
if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    launch_app(
        AppSettings(
            # A Space's visitors come from outside of its container.
            host="0.0.0.0" if IS_SPACE else "127.0.0.1",
            port=7860 if IS_SPACE else None,
            examples=find_examples(Path(__file__).parent / "images"),
        )
    )
