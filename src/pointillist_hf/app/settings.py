# SPDX-License-Identifier: Apache-2.0
"""What whoever runs the app decides, and what no visitor can exceed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..default_model import EMBEDDED_FOLDER
from ..geometry.number_checks import check_integer

# Of a checkout; an installed package has none.
EXAMPLE_IMAGES = EMBEDDED_FOLDER.parents[1] / "examples" / "images"
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_PORT, MAX_QUEUE, MAX_REFINE_STEPS, MAX_SECONDS = 65535, 10_000, 1000, 86_400


@dataclass(frozen=True)
class AppSettings:
    """Of an app that one process serves, and another one computes for."""

    # A folder or an id of the Hub; None is the default model.
    model: str | None = None

    # Of the server. 0.0.0.0 lets other machines in; without a port, the first free from 7860 on.
    host: str = "127.0.0.1"
    port: int | None = None

    # Of a visitor.
    time_limit: int = 180  # seconds of a request, once its turn has come
    max_megabytes: int = 20  # of an upload
    max_refine_steps: int = 200
    queue_size: int = 20  # requests that wait; further ones are turned away
    keep_minutes: int = 30  # uploads and avatars, where the visitor does not leave earlier

    # Pictures to begin with.
    examples: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.port is not None:
            check_integer("port", self.port, 1, MAX_PORT)
        check_integer("time_limit", self.time_limit, 1, MAX_SECONDS)
        check_integer("max_megabytes", self.max_megabytes, 1, 1024)
        check_integer("max_refine_steps", self.max_refine_steps, 0, MAX_REFINE_STEPS)
        check_integer("queue_size", self.queue_size, 1, MAX_QUEUE)
        check_integer("keep_minutes", self.keep_minutes, 1, MAX_SECONDS)


def find_examples(folder: Path = EXAMPLE_IMAGES) -> tuple[Path, ...]:
    """The pictures of a folder, in the order of their names."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES))
