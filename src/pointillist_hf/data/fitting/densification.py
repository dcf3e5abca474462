# SPDX-License-Identifier: Apache-2.0
"""Where a fit needs more splats and where fewer, so that every face keeps at least one.

Thresholds and rules are GaussianAvatars' (paper Sec. 3.1). A plan only says which splats there are
afterwards; `FitState.apply` carries values and optimiser moments along.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .config import FitConfig, PruneRule

NUM_CHILDREN = 2
SPLIT_SHRINKAGE = 1.6  # a child's scale is its parent's divided by this


@dataclass(frozen=True)
class Plan:
    """The splats after a change, in terms of those before."""

    sources: Tensor  # [N'] whose values each starts with
    is_new: Tensor  # [N'] clones and children: their moments start at zero
    is_child: Tensor  # [N'] of a split: smaller and moved

    def __len__(self) -> int:
        return len(self.sources)

    def keep(self, kept: Tensor) -> Plan:
        """The plan without the splats that are not kept. [N'] bool"""
        return Plan(self.sources[kept], self.is_new[kept], self.is_child[kept])


def plan_growth(gradients: Tensor, world_scales: Tensor, extent: float, config: FitConfig) -> Plan:
    """Clones small splats whose places pull strongly, and splits large ones.

    Args:
        gradients: Mean norm of the screen gradients, screen sides being 2 long. [N]
        world_scales: Largest scale of each splat, metres. [N]
        extent: Of the cameras, metres.
        config: Thresholds.
    """
    pulls = gradients > config.grad_threshold
    is_large = world_scales > config.split_scale * extent
    everything = torch.arange(len(gradients), device=gradients.device)
    stays = everything[~(pulls & is_large)]
    clones = everything[pulls & ~is_large]
    children = everything[pulls & is_large].repeat(NUM_CHILDREN)
    sources = torch.cat([stays, clones, children])
    first_child = len(stays) + len(clones)
    places = torch.arange(len(sources), device=gradients.device)
    return Plan(sources, is_new=places >= len(stays), is_child=places >= first_child)


def survivors(doomed: Tensor, bindings: Tensor, opacities: Tensor, rule: PruneRule) -> Tensor:
    """Which splats stay when the doomed go, no face losing its last one.

    Args:
        doomed: [N] bool
        bindings: [N]
        opacities: Of those the most opaque stays, under "keep_best". [N]
        rule: `PruneRule`.

    Returns:
        [N] bool
    """
    num_faces = int(bindings.max()) + 1 if len(bindings) else 0
    counts = torch.bincount(bindings, minlength=num_faces)
    lost = torch.bincount(bindings[doomed], minlength=num_faces)
    would_be_empty = (counts == lost)[bindings]
    if rule == "all_or_nothing":
        return ~doomed | would_be_empty
    return ~doomed | (would_be_empty & is_best_of_face(bindings, opacities))


def is_best_of_face(bindings: Tensor, values: Tensor) -> Tensor:
    """The splat of each face that has the largest value, the first among equals. [N] bool"""
    order = torch.argsort(values, descending=True, stable=True)
    order = order[torch.argsort(bindings[order], stable=True)]
    sorted_bindings = bindings[order]
    starts = torch.ones_like(sorted_bindings, dtype=torch.bool)
    starts[1:] = sorted_bindings[1:] != sorted_bindings[:-1]
    best = torch.zeros_like(starts)
    best[order[starts]] = True
    return best


def most_contributing(contributions: Tensor, bindings: Tensor, max_points: int) -> Tensor:
    """At most so many splats: the best of each face, then those that contribute most. [N] bool

    Raises:
        ValueError: There are more faces than points allowed.
    """
    best = is_best_of_face(bindings, contributions)
    room = max_points - int(best.sum())
    if room < 0:
        raise ValueError(
            f"`max_points` must be at least the number of faces, {int(best.sum())}, because every "
            f"face keeps a splat; got {max_points}."
        )
    others = contributions.masked_fill(best, -torch.inf)
    kept = best.clone()
    kept[torch.argsort(others, descending=True, stable=True)[:room]] = True
    return kept


def mean_gradients(gradient_sums: Tensor, num_seen: Tensor) -> Tensor:
    """Mean over the pictures in which a splat was seen; zero if it never was. [N]"""
    return gradient_sums / num_seen.clamp_min(1)
