# SPDX-License-Identifier: Apache-2.0
"""Lessons that begin with clouds as a pipeline's generator draws them (paper Sec. 4.4.2).

Portraits are tracked, encoded and sampled as in the pipeline's call. A cloud takes seconds, so each
is kept on disk, in a folder that is named after what it was drawn with.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from ..exporters.tensor_file import read_tensors, write_tensors
from ..geometry.structures import CanonicalPoints
from ..models.strict_loading import digest_weights
from ..pipeline_avatar import AvatarPipeline
from ..pipeline_steps import SAMPLING
from ..refinement.tracked_portrait import TrackedPortrait
from .dataset import People
from .lessons import Look, TrackedLessons

GENERATED, TRUE = 0.5, 0.25  # shares of the lessons; the rest begin with no points
SEEDS_PER_PERSON = 1_000


class GeneratedClouds:
    """The clouds of a generator, drawn when they are first asked for.

    Args:
        pipe: Whose generator it is; its defaults are the sampling.
        folder: Where clouds are kept.
    """

    def __init__(self, pipe: AvatarPipeline, folder: str | Path) -> None:
        self.pipe = pipe
        pipe.set_progress_bar_config(disable=True)
        parts = [digest_weights(part) for part in (pipe.conditioner, pipe.point_generator)]
        known = json.dumps([parts, {name: pipe.config[name] for name in SAMPLING}])
        self.folder = Path(folder) / hashlib.sha256(known.encode()).hexdigest()[:12]
        self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(
        self, name: str, seed: int, image: Tensor, tracked: TrackedPortrait
    ) -> CanonicalPoints:
        """The cloud of a photograph.

        Args:
            name: Of the file that keeps it.
            seed: Of the sampling.
            image: The photograph. [3, H, W]
            tracked: The same.
        """
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            rig_params, context, layouts = self.pipe.encode_image([image], None, [tracked])
            made = self.pipe.generate_tokens(context, rig_params, layouts, seeds=[seed])
            write_tensors({"input_ids": made.input_ids[0].to(torch.int32)}, path)
        return self.pipe.tokenizer.decode_points(read_tensors(path)["input_ids"].long())


class GeneratedLessons(TrackedLessons):
    """Lessons of tracked portraits, half of which begin with generated points.

    A quarter begins with the person's own points, a quarter with none. What the generator gets
    wrong, completion and decoder then have to live with.

    Args:
        people: The data set; all pictures of a person in one light.
        pipe: Its tracker and its generator.
        folder: Where clouds are kept.
    """

    def __init__(self, people: People, pipe: AvatarPipeline, folder: str | Path) -> None:
        super().__init__(people, pipe.portrait_tracker)
        self.clouds = GeneratedClouds(pipe, folder)

    def _choose_points(
        self, index: int, portrait: int, look: Look, stream: torch.Generator
    ) -> CanonicalPoints | None:
        chance = float(torch.rand((), generator=stream))
        if chance < GENERATED and look.tracked is not None:
            seed = SEEDS_PER_PERSON * index + portrait
            return self.clouds(f"{index:06d}-{portrait:03d}", seed, look.image, look.tracked)
        return self._own_points(index) if chance < GENERATED + TRUE else None
