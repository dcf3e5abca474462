# SPDX-License-Identifier: Apache-2.0
"""The settings that a run began with, so that it goes on with no others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ..exporters.atomic_file import write_atomically
from ..exporters.json_file import read_json_object

FILE_NAME = "settings.json"
# Where a run is, how it is watched and how it is computed may change under way.
FREE = {"output_dir", "save_steps", "num_workers", "show_progress", "tracker", "eval_steps"}
FREE |= {"sample_steps", "num_eval_people", "num_sample_points", "accumulation_steps"}
FREE |= {"mixed_precision", "gradient_checkpointing", "compile_layers"}
FREE |= {"lpips_weights", "lpips_heads"}


def keep_settings(settings: Mapping[str, object], folder: Path, *, is_new: bool) -> None:
    """Writes the settings of a new run, and compares those of one that goes on.

    Args:
        settings: The fields of a `LoopConfig`.
        folder: Of the run.
        is_new: Whether no step has been taken.

    Raises:
        ValueError: The run began with other settings.
    """
    path = folder / FILE_NAME
    bound = {name: value for name, value in settings.items() if name not in FREE}
    if settings["schedule"] == "constant":
        del bound["max_steps"]  # nothing but the end depends on it
    if is_new:
        text = json.dumps(dict(settings), indent=1, default=str) + "\n"
        write_atomically(path, lambda partial: partial.write_text(text, "utf-8"))
        return
    began = read_json_object(path) if path.exists() else {}
    for name, value in bound.items():
        if began.get(name, value) != value:
            raise ValueError(
                f"`{name}` was {began[name]!r} when the run in {folder} began, got {value!r}. "
                "Go on with the settings of its settings.json, or give another `output_dir`."
            )
