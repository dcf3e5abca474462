# SPDX-License-Identifier: Apache-2.0
"""Gaussians made to lie on photographs: rendered over them, compared, moved a step, again.

What no photograph shows keeps every bit of its values, and other views are held where they were.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from ..geometry.cameras import project_points
from ..geometry.rotations import quat_to_matrix
from ..geometry.structures import Cameras, CanonicalPoints, Gaussians
from ..rigs.head_rig import HeadRig
from .coloring import find_color_range
from .face_kinds import PointKind, find_face_kinds
from .gaps import measure_spacings, smallest_scales
from .hair_surface import smooth_step
from .lids import LID, is_folded, measure_blink
from .pixel_kinds import classify_pixels
from .placement import Placement, place_points
from .portrait_view import PortraitView
from .refinement_losses import (
    NUM_ANCHORS,
    AnchorViews,
    ViewTarget,
    anchor_loss,
    blending_weights,
    build_anchors,
    build_target,
    photograph_loss,
)
from .rig_points import STRETCHED, find_stretch

logger = logging.getLogger(__name__)

SEEN = 0.03  # pixels that a point must make: Adam moves the others at full speed, anywhere
FULLY_SEEN = 1.0  # pixels from which a point may move as it likes
FLATTEST, GRAZING = 0.2, 0.35  # facing from which a point moves at all, and over which in full
# How far colours may leave those around a point, from which facing, and over which in full.
SLACK, UPRIGHT, SLANTED = 0.6, 0.5, 0.3


@dataclass(frozen=True)
class RefinementSettings:
    """How far and how fast values may move."""

    color_rate: float = 0.05  # of the logits, like that of the opacity
    opacity_rate: float = 0.04
    scale_rate: float = 0.03  # of the logarithms
    rotation_rate: float = 0.02
    offset_rate: float = 0.05  # in units of the largest offset
    max_skin_offset: float = 1.5e-3  # metres
    max_eye_offset: float = 4e-4  # metres
    max_hair_offset: float = 4e-3  # metres
    max_log_scale: float = 0.7
    max_stretched_shrinkage: float = 0.1  # how far the same may fall on faces that stretch
    max_turn: float = 0.25  # of the parts of a quaternion: about 30 degrees
    offset_weight: float = 0.01
    scale_weight: float = 0.005
    color_weight: float = 0.02
    anchor_weight: float = 0.3
    anchor_every: int = 2  # steps


def refine(
    gaussians: Gaussians,
    bindings: Tensor,
    kinds: Tensor,
    views: Sequence[PortraitView],
    rig: HeadRig,
    *,
    num_steps: int = 100,
    seed: int = 0,
    settings: RefinementSettings | None = None,
    show_progress: bool = True,
    on_step: Callable[[int], None] | None = None,
) -> Gaussians:
    """The gaussians after some steps towards the photographs.

    The steps are computed on the device of the gaussians, what they need to know on the CPU.

    An interrupt (Ctrl-C) ends the steps early and keeps what they have brought.

    Args:
        gaussians: Canonical, N of them.
        bindings: The face of each. [N]
        kinds: `PointKind` of each. [N]
        views: At least one photograph of the person, each with its own rig parameters.
        rig: Of the bindings.
        num_steps: Each looks at one photograph, in turn.
        seed: Of backgrounds and anchor views; the same seed gives the same bits.
        settings: By default `RefinementSettings()`.
        show_progress: Whether a progress bar is shown.
        on_step: Gets the number of steps done; what it raises ends the refinement.

    Raises:
        ValueError: There is no view, or `num_steps` is negative.
    """
    if not views or num_steps < 0:
        raise ValueError(
            "`views` must hold at least one photograph and `num_steps` be 0 or more, got "
            f"{len(views)} and {num_steps}."
        )
    if num_steps == 0:
        return gaussians
    settings = settings or RefinementSettings()
    generator = torch.Generator().manual_seed(seed)
    device, rig_on_cpu = gaussians.means.device, rig.on_cpu()
    scenes = _build_scenes(gaussians, bindings, views, rig_on_cpu, generator)
    trusts = [_weigh_points(gaussians, kinds, scene) for scene in scenes]
    trust = torch.stack(trusts).amax(0)
    bounds = _join_bounds(gaussians, scenes, trusts)
    points = CanonicalPoints(gaussians.means, bindings).to("cpu")
    blink = measure_blink(points, rig_on_cpu, views[0].rig_params.betas.to("cpu")).to(device)
    is_rim = find_face_kinds(rig_on_cpu).is_lid[points.bindings].to(device)
    trust = trust * ~is_folded(blink, is_rim)
    limits = _limit_offsets(kinds, blink, settings)
    betas = views[0].rig_params.betas.to(device)
    shrinkage = _limit_shrinkage(gaussians, bindings, kinds, rig, betas, settings)
    change = _Change(gaussians, trust, limits, shrinkage, bounds, settings)
    steps = tqdm(range(num_steps), desc="Refining", unit="step", disable=not show_progress)
    try:
        for step in steps:
            loss = _take_step(change, scenes, step, generator, settings)
            steps.set_postfix(loss=f"{loss:.4f}", refresh=False)
            if on_step is not None:
                on_step(step + 1)
    except KeyboardInterrupt:
        logger.warning("Refinement was interrupted; what its steps have brought is kept.")
    return change.apply(detached=True)


@dataclass(frozen=True)
class _Scene:
    """One photograph, the way into its pose, and the views around it."""

    target: ViewTarget
    placement: Placement
    anchors: AnchorViews
    darkest: Tensor  # [N, 3] that each point may become
    lightest: Tensor  # [N, 3]


def _build_scenes(
    gaussians: Gaussians,
    bindings: Tensor,
    views: Sequence[PortraitView],
    rig: HeadRig,
    generator: torch.Generator,
) -> list[_Scene]:
    face_kinds, device = find_face_kinds(rig), gaussians.means.device
    points = CanonicalPoints(gaussians.means, bindings).to("cpu")
    scenes = []
    for view in (view.to("cpu") for view in views):
        placement = place_points(points, rig, view.rig_params).to(device)
        target = build_target(view, classify_pixels(view, rig, face_kinds)).to(device)
        posed = placement.pose_gaussians(gaussians)
        anchors = build_anchors(posed, view, rig, generator)
        scenes.append(_Scene(target, placement, anchors, *_bound_colors(posed, view)))
    return scenes


def _bound_colors(posed: Gaussians, view: PortraitView) -> tuple[Tensor, Tensor]:
    """The darkest and the lightest that each point may become. [N, 3] each

    Many points fall on one pixel where they are seen at a slant. Together they can draw it with
    black and white among them, which would be specks from the side.
    """
    pixels, _ = project_points(posed.means.to("cpu"), view.cameras)
    low, high = (bound.to(posed.means) for bound in find_color_range(view, pixels[0]))
    facing = _find_facing(posed, view.cameras.to(posed.means.device))
    slack = SLACK * smooth_step((facing - UPRIGHT) / SLANTED)[:, None]
    return low - slack, high + slack


def _join_bounds(
    gaussians: Gaussians, scenes: Sequence[_Scene], trusts: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """What any photograph that shows a point allows it, and what it is. [N, 3] each"""
    darkest, lightest = gaussians.colors, gaussians.colors
    for scene, trust in zip(scenes, trusts, strict=True):
        shown = (trust > 0)[:, None]
        darkest = torch.where(shown, torch.minimum(darkest, scene.darkest), darkest)
        lightest = torch.where(shown, torch.maximum(lightest, scene.lightest), lightest)
    return darkest, lightest


def _weigh_points(gaussians: Gaussians, kinds: Tensor, scene: _Scene) -> Tensor:
    """How far each point may follow a photograph: fully, or not at all if it is hidden. [N]"""
    posed = scene.placement.pose_gaussians(gaussians)
    made = blending_weights(posed, scene.target)
    trust = torch.where(made > SEEN, (made / FULLY_SEEN).clamp(max=1), 0)
    # At a slant a point makes few pixels, and would be painted for them at the cost of the side.
    slant = smooth_step((_find_facing(posed, scene.target.cameras) - FLATTEST) / GRAZING)
    trust = torch.where(kinds == PointKind.HAIR, trust, trust * slant)
    # What lies behind the lips is seen dark and must not stay so.
    return torch.where(kinds == PointKind.MOUTH, 0, trust)


def _find_facing(posed: Gaussians, cameras: Cameras) -> Tensor:
    """Cosine between the thin axis of each disc and the way to the camera. [N]"""
    axes = quat_to_matrix(posed.quats).gather(
        2, posed.scales.argmin(-1)[:, None, None].expand(-1, 3, 1)
    )[..., 0]
    rotation, shift = cameras.viewmats[0, :3, :3], cameras.viewmats[0, :3, 3]
    to_eye = normalize(-(shift @ rotation) - posed.means, dim=-1)
    return (axes * to_eye).sum(-1)


def _limit_offsets(kinds: Tensor, blink: Tensor, settings: RefinementSettings) -> Tensor:
    """How far each point may go, metres. [N]"""
    hair = kinds == PointKind.HAIR
    limits = torch.where(hair, settings.max_hair_offset, settings.max_skin_offset)
    # An eye and its lids slide along each other, and there is no room for more.
    return torch.where((kinds == PointKind.EYE) | (blink > LID), settings.max_eye_offset, limits)


def _limit_shrinkage(
    gaussians: Gaussians,
    bindings: Tensor,
    kinds: Tensor,
    rig: HeadRig,
    betas: Tensor,
    settings: RefinementSettings,
) -> Tensor:
    """By how much the logarithms of the scales may fall. [N, 3]"""
    # A cheek that lost a little here would tear at the corner of an open mouth.
    stretched = (find_stretch(rig, betas) > STRETCHED)[bindings] & (kinds != PointKind.HAIR)
    usual = torch.full_like(bindings, settings.max_log_scale, dtype=betas.dtype)
    limits = torch.where(stretched, settings.max_stretched_shrinkage, usual)
    least = smallest_scales(gaussians, kinds, measure_spacings(gaussians.means, kinds))
    room = gaussians.scales.log() - least.log()
    return torch.minimum(limits[:, None], room.clamp(min=0))


def _take_step(
    change: _Change,
    scenes: Sequence[_Scene],
    step: int,
    generator: torch.Generator,
    settings: RefinementSettings,
) -> float:
    scene = scenes[step % len(scenes)]
    gaussians = change.apply()
    posed = scene.placement.pose_gaussians(gaussians)
    background = torch.rand(3, generator=generator).to(posed.means.device)
    loss = photograph_loss(posed, scene.target, background)
    loss = loss + change.penalty()
    if settings.anchor_weight and step % settings.anchor_every == 0:
        index = step // settings.anchor_every % NUM_ANCHORS
        loss = loss + settings.anchor_weight * anchor_loss(posed, scene.anchors, index)
    change.optimizer.zero_grad()
    loss.backward()
    change.optimizer.step()
    return loss.item()


class _Change:
    """The values that move, as unbounded parameters around where they started."""

    def __init__(
        self,
        start: Gaussians,
        trust: Tensor,
        limits: Tensor,
        shrinkage: Tensor,
        bounds: tuple[Tensor, Tensor],
        settings: RefinementSettings,
    ) -> None:
        moved = trust.nonzero()[:, 0]
        self.start, self.moved, self.settings = start, moved, settings
        self.trust = trust[moved, None]
        own = start[moved]
        self.limits, self.own = limits[moved, None], own
        self.shrinkage = shrinkage[moved]
        self.darkest, self.lightest = (bound[moved] for bound in bounds)
        self.color_logits = torch.logit(own.colors.clamp(0.02, 0.98))
        self.opacity_logits = torch.logit(own.opacities.clamp(0.02, 0.95))
        self.colors = torch.zeros_like(own.colors).requires_grad_()
        self.opacities = torch.zeros_like(own.opacities).requires_grad_()
        self.scales = torch.zeros_like(own.scales).requires_grad_()
        self.quats = torch.zeros_like(own.quats).requires_grad_()
        self.offsets = torch.zeros_like(own.means).requires_grad_()
        rates = (
            (self.colors, settings.color_rate),
            (self.opacities, settings.opacity_rate),
            (self.scales, settings.scale_rate),
            (self.quats, settings.rotation_rate),
            (self.offsets, settings.offset_rate),
        )
        groups = [{"params": [values], "lr": rate} for values, rate in rates]
        self.optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))

    def apply(self, *, detached: bool = False) -> Gaussians:
        """All gaussians, changed where they move."""
        largest = torch.where(self.scales < 0, self.shrinkage, self.settings.max_log_scale)
        growth = self.trust * largest * torch.tanh(self.scales)
        fading = self.trust[:, 0] * self.opacities
        values = {
            "means": self.own.means + self.trust * self.limits * torch.tanh(self.offsets),
            "quats": normalize(self.own.quats + self.trust * self._find_turns(), dim=-1),
            "scales": self.own.scales * torch.exp(growth),
            "opacities": torch.sigmoid(self.opacity_logits + fading),
            "colors": self._find_colors(),
        }
        if detached:
            values = {name: value.detach() for name, value in values.items()}
        whole = {
            f.name: getattr(self.start, f.name).index_copy(0, self.moved, values[f.name])
            for f in fields(Gaussians)
        }
        return replace(self.start, **whole)

    def _find_turns(self) -> Tensor:
        """Half-angles, about. Discs that stood up would be scratches from the side. [M, 4]"""
        return self.settings.max_turn * torch.tanh(self.quats)

    def _find_colors(self) -> Tensor:
        free = torch.sigmoid(self.color_logits + self.trust * self.colors)
        return torch.minimum(torch.maximum(free, self.darkest), self.lightest)

    def penalty(self) -> Tensor:
        """What speaks for staying: small offsets, scales and colours as they were."""
        settings = self.settings
        drift = (self._find_colors() - self.own.colors).square().mean()
        return (
            settings.offset_weight * self.offsets.square().mean()
            + settings.scale_weight * self.scales.square().mean()
            + settings.color_weight * drift
        )
