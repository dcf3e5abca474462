# SPDX-License-Identifier: Apache-2.0
"""What points turn out to be once a photograph has been seen: a collar, a bald head, a fringe."""

from __future__ import annotations

import torch
from torch import Tensor

from .face_kinds import PointKind
from .neighbors import nearest_points

OUTER = (PointKind.SKIN, PointKind.HAIR, PointKind.CLOTH)  # one may lie where another is expected
NUM_VOTERS = 9


def vote_kinds(means: Tensor, kinds: Tensor, is_visible: Tensor, seen_kinds: Tensor) -> Tensor:
    """Kinds of the points, by what is seen there or, where nothing is, next to there.

    Args:
        means: At rest, metres. [N, 3]
        kinds: `PointKind` as expected. [N]
        is_visible: [N]
        seen_kinds: `PointKind` at each point's pixel; -1: not known. [N]
    """
    outer = torch.isin(kinds, kinds.new_tensor([int(kind) for kind in OUTER]))
    told = outer & is_visible & (seen_kinds >= 0)
    kinds = torch.where(told, seen_kinds, kinds)
    hidden = (outer & ~told).nonzero()[:, 0]
    voters = told.nonzero()[:, 0]
    if not len(hidden) or not len(voters):
        return kinds
    places = means[voters]
    both = torch.cat([places, places * places.new_tensor([-1.0, 1.0, 1.0])])
    distances, found = nearest_points(means[hidden], both, NUM_VOTERS)
    votes = torch.nn.functional.one_hot(kinds[voters][found % len(voters)], len(PointKind))
    strength = (votes / (distances + 2e-3)[..., None]).sum(1)
    kinds = kinds.clone()
    kinds[hidden] = strength.argmax(-1)
    return kinds
