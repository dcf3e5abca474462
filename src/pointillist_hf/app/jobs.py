# SPDX-License-Identifier: Apache-2.0
"""What the worker does for a visitor: records that say what to do, and what came of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..avatar import Avatar
from ..decoding.streamers import PointStreamer
from ..geometry.structures import CanonicalPoints
from ..motion.motion_files import read_motion
from ..pipeline_avatar import AvatarPipeline
from ..portraits.image_processing_portrait import load_image
from .greeting import FPS, build_greeting

# Of the files that a visitor can take home, in the order in which they are offered.
FILES = {
    "avatar.html": "Web page",
    "avatar.ply": "3DGS .ply",
    "avatar.splat": ".splat",
    "avatar.spz": ".spz",
    "avatar.glb": "glTF .glb",
    "avatar.ga.ply": "GaussianAvatars .ply",
    "avatar.zip": "For Python .zip",
}
FOLDER = "avatar"  # as `Avatar.save_pretrained` writes it
STILL_PAGE, GREETING_PAGE, TAKE_PAGE = "avatar.html", "greeting.html", "take.html"
MAX_TAKE_SECONDS = 300
WRITING = "write_files"  # the step after those of the pipeline
POINTS = "points"  # no step: the cloud as it was generated

# Gets a step and how much of it is done, as the pipeline says it, or `POINTS` and x, y, z of each
# point in metres, in their order.
JobCallback = Callable[[str, object], None]


@dataclass(frozen=True)
class MadeAvatar:
    """An avatar in a folder."""

    num_points: int
    seconds: dict[str, float]  # of each step


@dataclass(frozen=True)
class ReadTake:
    """A recording that plays in a page."""

    num_frames: int


@dataclass(frozen=True)
class MakeAvatar:
    """A photograph -> the files of `FILES` and the pages in a folder."""

    photograph: Path
    output: Path
    seed: int = 0
    refine_steps: int | None = None
    face: int | None = None

    def run(self, pipe: AvatarPipeline, tell: JobCallback) -> MadeAvatar:
        """Makes the avatar.

        Raises:
            ValueError: The file is no picture, or shows no face.
        """
        cloud: list[list[float]] = []

        def keep(row: int, point: CanonicalPoints) -> None:
            cloud.append(point.means[0].tolist())

        def tell_of_points(step: str, done: int) -> None:
            if step == "decode_points":
                tell(POINTS, cloud)
            tell(step, done)

        result = pipe(
            load_image(self.photograph),
            seed=self.seed,
            refine_steps=self.refine_steps,
            face=self.face,
            on_progress=tell_of_points,
            streamer=PointStreamer(pipe.tokenizer, keep),
        )
        tell(WRITING, 0)
        self._write(result.avatar)
        return MadeAvatar(len(result.avatar), result.timings)

    def _write(self, avatar: Avatar) -> None:
        avatar.save_pretrained(self.output / FOLDER)
        shutil.make_archive(str(self.output / FOLDER), "zip", self.output / FOLDER)
        for name in FILES:
            if not name.endswith(".zip"):
                avatar.export(self.output / name)
        motion = build_greeting(avatar)
        avatar.export(self.output / GREETING_PAGE, motion=motion, fps=FPS)


@dataclass(frozen=True)
class PlayTake:
    """A recording -> a page on which the avatar of a folder plays it."""

    take: Path
    output: Path

    def run(self, pipe: AvatarPipeline, tell: JobCallback) -> ReadTake:
        """Writes the page.

        Raises:
            ValueError: The file is no recording, or a long one.
        """
        avatar = Avatar.from_pretrained(self.output / FOLDER)
        motion = read_motion(self.take, avatar.rig, betas=avatar.betas, fps=FPS)
        if len(motion) > MAX_TAKE_SECONDS * FPS:
            raise ValueError(
                f"`take` must be at most {MAX_TAKE_SECONDS} seconds long here, got "
                f"{len(motion) / FPS:.0f}; cut it, or use `pointillist-hf animate`."
            )
        avatar.export(self.output / TAKE_PAGE, motion=motion, fps=FPS)
        return ReadTake(len(motion))
