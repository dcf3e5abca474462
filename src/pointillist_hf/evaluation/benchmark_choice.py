# SPDX-License-Identifier: Apache-2.0
"""Which people, pictures and motions a benchmark takes: drawn by a seed, person by person.

Every draw takes the first few of an order by the hash of the seed, the purpose and the thing's own
name. A person, camera or time step that is added takes the place of one other at most.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.rotations import axis_angle_to_matrix
from ..geometry.structures import Capture
from .manifest import file_name

PAPER_IDENTITIES = 25  # held out of NeRSemble's 419; the paper does not say which


@dataclass(frozen=True)
class BenchmarkConfig:
    """What to draw.

    The paper gives the number of people and nothing else; what it leaves open is fixed here.
    """

    num_identities: int = PAPER_IDENTITIES
    num_timesteps: int = 16  # of each person, and of the driver
    num_views: int = 4  # of each of them
    image_size: int = 512  # pixels
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    max_angle: float = 60.0  # degrees between the face and a camera
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_identities", "num_timesteps", "num_views"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.image_size < 64:
            raise ValueError(f"`image_size` must be at least 64, got {self.image_size}.")


def draw(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """All names, in an order that the seed and the purpose give."""

    def place(name: str) -> bytes:
        return hashlib.sha256(f"{seed}|{purpose}|{name}".encode()).digest()

    return sorted(names, key=place)


def person_of(capture: str) -> str:
    """Whom a capture shows, by its name.

    NeRSemble's captures of a person begin with the three digits of the participant, in
    GaussianAvatars' release after UNION10_ and the like; any other capture is a person of its own.
    """
    found = re.match(r"(?:UNION\d*_)?(\d{3})(?:_|$)", capture)
    return found[1] if found else capture


def choose_identities(
    names: Sequence[str], config: BenchmarkConfig
) -> tuple[list[str], str | None]:
    """The captures to show, one of each person drawn, and the one that drives all of them.

    People are drawn by their own names, so that the list does not depend on who has which captures
    of them. The driver is nobody of them where there is anyone else; with one person in all, there
    is none.
    """
    captures: dict[str, list[str]] = {}
    for name in names:
        captures.setdefault(person_of(name), []).append(name)
    order = [
        draw(captures[person], config.seed, "capture")[0]
        for person in draw(captures, config.seed, "identity")
    ]
    chosen = order[: config.num_identities]
    others = order[config.num_identities :] or (chosen[:1] if len(chosen) > 1 else [])
    return chosen, others[0] if others else None


def view_angles(capture: Capture) -> Tensor:
    """Degrees between where the head looks and where the camera stands, picture by picture. [K]"""
    params = capture.rig_params
    turn = axis_angle_to_matrix(params.global_orient) @ axis_angle_to_matrix(params.neck_pose)
    forward, places = turn[:, :, 2][capture.timesteps], params.transl[capture.timesteps]
    viewmats = capture.cameras.viewmats
    eyes = -torch.einsum("kji,kj->ki", viewmats[:, :3, :3], viewmats[:, :3, 3])
    cosine = torch.nn.functional.cosine_similarity(eyes - places, forward, dim=-1)
    return torch.rad2deg(cosine.clamp(-1, 1).arccos())


def choose_source(capture: Capture, config: BenchmarkConfig) -> int:
    """Number of the picture that systems see: of the middle half of the times, the most frontal.

    The paper draws it among intermediate frames with little occlusion.
    """
    times = capture.timesteps.unique().tolist()
    middle = times[len(times) // 4 : max(len(times) - len(times) // 4, len(times) // 4 + 1)]
    drawn = draw([str(t) for t in middle], config.seed, f"source|{capture.name}")[0]
    rows = (capture.timesteps == int(drawn)).nonzero()[:, 0]
    return int(rows[view_angles(capture)[rows].argmin()])


def choose_targets(
    capture: Capture, config: BenchmarkConfig, *, purpose: str, without: int | None = None
) -> list[int]:
    """Numbers of the pictures of a person that items ask for.

    Args:
        capture: Of the person, or of the driver.
        config: How many.
        purpose: Of the draw.
        without: A picture that may not be among them.
    """
    angles = view_angles(capture)
    rows = {
        file_name(capture.camera_ids[k], str(int(capture.timesteps[k]))): k
        for k in range(len(capture))
        if k != without and angles[k] <= config.max_angle
    }
    chosen: dict[int, list[int]] = {}
    for name in draw(rows, config.seed, f"{purpose}|{capture.name}"):
        views = chosen.setdefault(int(capture.timesteps[rows[name]]), [])
        if len(views) < config.num_views:
            views.append(rows[name])
    times = draw(map(str, chosen), config.seed, f"{purpose} times|{capture.name}")
    kept = sorted(int(time) for time in times[: config.num_timesteps])
    return [k for time in kept for k in sorted(chosen[time])]
