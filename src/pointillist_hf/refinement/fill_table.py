# SPDX-License-Identifier: Apache-2.0
"""Which visible points lend their colours to those that a photograph does not show."""

from __future__ import annotations

import torch
from torch import Tensor

from .face_kinds import PointKind
from .neighbors import nearest_points

NUM_SOURCES = 8
TOO_FEW = 10  # visible points of a kind that can stand for all of it
FAR, THINNING = 8e-3, 8  # metres; beyond, one source in so many is asked
ALIKE = 0.15  # of an offset around the axis of an eye, over one away from it
MAIN_SHARE = 0.6  # of the one that a point of hair resembles
SOFTNESS = 2e-3  # metres added to distances, so that the nearest does not take all
# Whose points stand in where a kind is hardly seen. Nothing but itself can stand for cloth.
STAND_INS = {
    PointKind.SKIN: (PointKind.SKIN, PointKind.HAIR),
    PointKind.HAIR: (PointKind.HAIR, PointKind.SKIN),
    PointKind.CLOTH: (PointKind.CLOTH, PointKind.SKIN),
    PointKind.EYE: (PointKind.EYE, PointKind.SKIN),
    PointKind.TEETH: (PointKind.TEETH, PointKind.SKIN),
    PointKind.MOUTH: (PointKind.MOUTH, PointKind.SKIN),
}


def build_fill_table(
    means: Tensor, kinds: Tensor, own_shares: Tensor, is_source: Tensor
) -> tuple[Tensor, Tensor]:
    """Sources of each point: itself as far as it is seen, else the nearest ones, mirrored or not.

    Args:
        means: At rest, x to the subject's left, metres. [N, 3]
        kinds: `PointKind`. [N]
        own_shares: How much each point is worth as its own source, in [0, 1]. [N]
        is_source: Which points may lend to others. [N]

    Returns:
        Indices [N, 8], the first that of the point itself; weights that sum to one [N, 8]. A
        point that finds no source keeps its own sample.
    """
    ids = torch.arange(len(means))[:, None].repeat(1, NUM_SOURCES)
    weights = means.new_zeros(len(means), NUM_SOURCES)
    weights[:, 0] = 1
    for kind, allowed in STAND_INS.items():
        lacking = ((kinds == kind) & (own_shares < 1)).nonzero()[:, 0]
        sources = _find_sources(kinds, is_source, allowed)
        if not len(lacking) or not len(sources):
            continue
        share = own_shares[lacking, None]
        weigh = _pick_nearby if kind == PointKind.HAIR else _weigh_nearest
        places = means
        if kind == PointKind.EYE and len(sources) and kinds[sources[0]] == PointKind.EYE:
            places = _unroll_eyes(means, kinds == PointKind.EYE)
        found, strength = weigh(places[lacking], places[sources])
        ids[lacking, 1:] = sources[found]
        weights[lacking] = torch.cat([share, (1 - share) * strength], dim=1)
    return ids, weights


def _unroll_eyes(means: Tensor, is_eye: Tensor) -> Tensor:
    """Places of the eyes by the distance from their axes: an iris is alike all around. [N, 3]"""
    places = means.clone()
    for side in (means[:, 0] > 0, means[:, 0] <= 0):
        ball = is_eye & side
        if not ball.any():
            continue
        own = means[ball]
        middle = (own.amax(0) + own.amin(0)) / 2
        offset = own - middle
        angle = torch.atan2(offset[:, :2].norm(dim=-1), offset[:, 2])
        radius = offset.norm(dim=-1).median()
        place = torch.stack([radius * angle, *(ALIKE * offset[:, :2]).unbind(-1)], dim=-1)
        places[ball] = place
    return places


def _find_sources(kinds: Tensor, is_source: Tensor, allowed: tuple[PointKind, ...]) -> Tensor:
    for kind in allowed:
        sources = (is_source & (kinds == kind)).nonzero()[:, 0]
        if len(sources) >= TOO_FEW:
            return sources
    return is_source.nonzero()[:, 0]


def _weigh_nearest(places: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
    """Seven sources of each place, and their weights. [N, 7] each"""
    found, distances = _find_nearest(places, sources)
    # Far from all sources the nearest ones are all alike, and single colours would be smeared.
    far = distances[:, 0] > FAR
    few = torch.arange(0, len(sources), THINNING)
    if far.any() and len(few) >= TOO_FEW:
        coarse, distances[far] = _find_nearest(places[far], sources[few])
        found[far] = few[coarse]
    weights = 1 / (distances + SOFTNESS).square()
    return found, weights / weights.sum(1, keepdim=True)


def _pick_nearby(places: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
    """Sources of hair: mostly one of those near, by chance, so that it keeps its texture."""
    # Around the head, hair of one height is alike.
    stretch = places.new_tensor([0.5, 1.5, 0.35])
    found, _ = _find_nearest(places * stretch, sources * stretch, 4 * NUM_SOURCES)
    generator = torch.Generator().manual_seed(0)
    chance = torch.rand(found.shape, generator=generator)
    found = found.gather(1, chance.argsort(dim=1)[:, : NUM_SOURCES - 1])
    rest = (1 - MAIN_SHARE) / (NUM_SOURCES - 2)
    weights = torch.full(found.shape, rest).to(places)
    weights[:, 0] = MAIN_SHARE
    return found, weights


def _find_nearest(
    places: Tensor, sources: Tensor, count: int = NUM_SOURCES - 1
) -> tuple[Tensor, Tensor]:
    both = torch.cat([sources, sources * sources.new_tensor([-1.0, 1.0, 1.0])])
    distances, found = nearest_points(places, both, count)
    repeated = torch.arange(count).clamp(max=found.shape[1] - 1)
    return (found % len(sources))[:, repeated], distances[:, repeated]
