# SPDX-License-Identifier: Apache-2.0
"""An avatar refined by photographs of its person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ..avatar import Avatar
from ..geometry.structures import CanonicalPoints
from .optimization import refine
from .portrait_view import PortraitView
from .projection import project_onto_portrait


def refine_avatar(
    avatar: Avatar,
    views: Sequence[PortraitView],
    *,
    num_steps: int = 100,
    seed: int = 0,
    show_progress: bool = True,
    on_step: Callable[[int], None] | None = None,
) -> Avatar:
    """The avatar after some steps towards the photographs; see `refine`.

    Args:
        avatar: Made by a pipeline, or loaded.
        views: At least one photograph, each with its own pose and expression. The identity is the
            avatar's.
        num_steps: Each looks at one photograph, in turn.
        seed: The same seed gives the same bits.
        show_progress: Whether a progress bar is shown.
        on_step: Gets the number of steps done.
    """
    views = [_seen_as(avatar, view) for view in views]
    first = views[0]
    points = CanonicalPoints(avatar.gaussians.means, avatar.bindings).to("cpu")
    seen = project_onto_portrait(
        points, avatar.rig.on_cpu(), first.rig_params, first.cameras, first.matte
    )
    with torch.enable_grad():
        gaussians = refine(
            avatar.gaussians,
            avatar.bindings,
            seen.kinds.to(avatar.bindings.device),
            views,
            avatar.rig,
            num_steps=num_steps,
            seed=seed,
            show_progress=show_progress,
            on_step=on_step,
        )
    return Avatar(gaussians, avatar.bindings, avatar.rig, avatar.betas)


def _seen_as(avatar: Avatar, view: PortraitView) -> PortraitView:
    """The photograph, taken for one of the avatar's identity; on the CPU."""
    view = view.to("cpu")
    rig_params = replace(view.rig_params, betas=avatar.betas[None].to("cpu"))
    return replace(view, rig_params=rig_params)
