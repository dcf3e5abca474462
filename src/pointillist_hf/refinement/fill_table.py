# SPDX-License-Identifier: Apache-2.0
"""Which visible points lend their colours to those that a photograph does not show."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..geometry.structures import TensorRecord
from .face_kinds import PointKind
from .neighbors import nearest_points

NUM_SOURCES, NUM_LENDERS, NUM_PAIRS = 7, 8, 4
TOO_FEW = 10  # visible points of a kind that can stand for all of it
FAR, THINNING = 8e-3, 8  # metres; beyond, one source in so many is asked
# Metres that a source on the other side of the face counts as farther: it stands in another light.
DETOUR = 0.012
PAIRED = 4e-3  # metres between a source and the mirror image of another that show the same
ALIKE = 0.15  # of an offset around the axis of an eye, over one away from it
MAIN_SHARE = 0.85  # of the one that a point of hair resembles
HEAD_RADIUS, STRAND_WIDTH = 0.1, 3e-3  # metres
LOW = 0.15  # of the hair that is seen hangs lower than any that lends
WANDER = 0.017  # standard deviation of how far aside a strand looks for its colours, metres
SOFTNESS = 2e-3  # metres added to distances, so that the nearest does not take all
SMOOTH = (PointKind.SKIN, PointKind.CLOTH)  # lend means: a mole would be smeared, as would a strand
# Whose points stand in where a kind is hardly seen. Nothing but itself can stand for cloth.
STAND_INS = {
    PointKind.SKIN: (PointKind.SKIN, PointKind.HAIR),
    PointKind.HAIR: (PointKind.HAIR, PointKind.SKIN),
    PointKind.CLOTH: (PointKind.CLOTH, PointKind.SKIN),
    PointKind.EYE: (PointKind.EYE, PointKind.SKIN),
    PointKind.TEETH: (PointKind.TEETH, PointKind.SKIN),
    PointKind.MOUTH: (PointKind.MOUTH, PointKind.SKIN),
}


@dataclass(frozen=True)
class FillTable(TensorRecord):
    """What N points show, as sums of samples of a picture; linear in the picture."""

    ids: Tensor  # [N, K] the first is the point itself
    weights: Tensor  # [N, K] sum to one; those that change the light are negative
    lender_ids: Tensor  # [N, L] of whose samples a point lends the mean

    def fill(self, samples: Tensor) -> Tensor:
        """From samples at the points. [N, C] -> [N, C]"""
        lent = samples[self.lender_ids].mean(1)
        own, others = self.weights[:, :1], self.weights[:, 1:]
        return own * samples + torch.einsum("nk,nkc->nc", others, lent[self.ids[:, 1:]])


def build_fill_table(
    means: Tensor, kinds: Tensor, own_shares: Tensor, is_source: Tensor
) -> FillTable:
    """Sources of each point: itself as far as it is seen, else the nearest ones, mirrored or not.

    What comes from the other side of the face is as much lighter or darker as that side is near by.

    Args:
        means: At rest, x to the subject's left, metres. [N, 3]
        kinds: `PointKind`. [N]
        own_shares: How much each point is worth as its own source, in [0, 1]. [N]
        is_source: Which points may lend to others. [N]

    Returns:
        The table. A point that finds no source keeps its own sample.
    """
    columns = NUM_SOURCES + 2 * NUM_PAIRS
    ids = torch.arange(len(means))[:, None].repeat(1, 1 + columns)
    weights = means.new_zeros(len(means), 1 + columns)
    weights[:, 0] = 1
    lender_ids = torch.arange(len(means))[:, None].repeat(1, NUM_LENDERS)
    for kind, allowed in STAND_INS.items():
        lacking = ((kinds == kind) & (own_shares < 1)).nonzero()[:, 0]
        sources = _find_sources(kinds, is_source, allowed)
        if not len(lacking) or not len(sources):
            continue
        share = own_shares[lacking, None]
        places = means
        if kind == PointKind.EYE and kinds[sources[0]] == PointKind.EYE:
            places = _unroll_eyes(means, kinds == PointKind.EYE)
        if kind in SMOOTH:
            _, around = nearest_points(means[sources], means[sources], NUM_LENDERS)
            lender_ids[sources] = sources[around[:, torch.arange(NUM_LENDERS) % around.shape[1]]]
        weigh = _pick_strands if kind == PointKind.HAIR else _weigh_nearest
        found, strength = weigh(places[lacking], places[sources])
        ids[lacking, 1:] = sources[pad(found, (0, columns - found.shape[1]))]
        strength = pad(strength, (0, columns - strength.shape[1]))
        weights[lacking] = torch.cat([share, (1 - share) * strength], dim=1)
    return FillTable(ids, weights, lender_ids)


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
    """Sources of each place, and their weights, which sum to one. [N, 7 + 2 * 4] each"""
    found, distances, mirrored = _find_nearest(places, sources)
    # Far from all sources the nearest ones are all alike, and single colours would be smeared.
    far = (distances - DETOUR * mirrored).amin(1) > FAR
    few = torch.arange(0, len(sources), THINNING)
    if far.any() and len(few) >= TOO_FEW:
        coarse, distances[far], mirrored[far] = _find_nearest(places[far], sources[few])
        found[far] = few[coarse]
    weights = 1 / (distances + SOFTNESS).square()
    weights = weights / weights.sum(1, keepdim=True)
    lights, changes = _find_light(places, sources)
    share = (weights * mirrored).sum(1, keepdim=True)
    return torch.cat([found, lights], dim=1), torch.cat([weights, share * changes], dim=1)


def _find_light(places: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of sources near each place that tell how much lighter its side of the face is.

    Returns:
        Sources, and their weights, which sum to zero: those of the own side, then those of the
        other. [N, 2 * 4] each
    """
    gaps, twins = nearest_points(sources, _flip(sources), 1)
    paired = (gaps[:, 0] < PAIRED).nonzero()[::THINNING, 0]
    if len(paired) < TOO_FEW:
        nothing = torch.zeros(len(places), 2 * NUM_PAIRS)
        return nothing.long(), nothing.to(places)
    distances, found = nearest_points(places, sources[paired], NUM_PAIRS)
    own = paired[found]
    weights = 1 / (distances + FAR).square()
    weights = weights / weights.sum(1, keepdim=True)
    return torch.cat([own, twins[own, 0]], dim=1), torch.cat([weights, -weights], dim=1)


def _pick_strands(places: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
    """Sources of hair and their weights: mostly one, so that it keeps its texture. [N, 7] each

    All points of one strand, from the crown down, look equally far aside for theirs.
    """
    # Around the head, hair of one height is alike.
    stretch = places.new_tensor([0.5, 1.5, 0.35])
    both = torch.cat([sources, _flip(sources)]) * stretch
    # The lowest hair that is seen is mixed with the skin below it.
    lowest = sources[:, 1].quantile(LOW)
    around = torch.atan2(places[:, 0], places[:, 2])  # in (-pi, pi]
    strands = ((around + math.pi) * HEAD_RADIUS / STRAND_WIDTH).long()
    generator = torch.Generator().manual_seed(0)
    count = 1 + int(2 * math.pi * HEAD_RADIUS / STRAND_WIDTH)
    wander = torch.randn(count, 3, generator=generator).to(places)
    wander = wander * places.new_tensor([WANDER, WANDER / 2, WANDER])
    asked = torch.stack([places[:, 0], places[:, 1].clamp_min(lowest), places[:, 2]], dim=1)
    _, main = nearest_points(asked * stretch + wander[strands], both, 1)
    _, nearby = nearest_points(asked * stretch, both, 4 * (NUM_SOURCES - 1))
    nearby = nearby[:, torch.arange(0, 4 * (NUM_SOURCES - 1), 4).clamp(max=nearby.shape[1] - 1)]
    found = torch.cat([main, nearby], dim=1) % len(sources)
    weights = torch.full(found.shape, (1 - MAIN_SHARE) / (NUM_SOURCES - 1)).to(places)
    weights[:, 0] = MAIN_SHARE
    return found, weights


def _find_nearest(places: Tensor, sources: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest sources, mirrored or not: which, how far, and whether mirrored. [N, 7] each"""
    straight = nearest_points(places, sources, NUM_SOURCES)
    crossed = nearest_points(places, _flip(sources), NUM_SOURCES)
    distances = torch.cat([straight[0], crossed[0] + DETOUR], dim=1)
    found = torch.cat([straight[1], crossed[1]], dim=1)
    distances, chosen = distances.topk(min(NUM_SOURCES, distances.shape[1]), largest=False)
    repeated = torch.arange(NUM_SOURCES).clamp(max=chosen.shape[1] - 1)
    chosen, distances = chosen[:, repeated], distances[:, repeated]
    mirrored = chosen >= straight[0].shape[1]
    return found.gather(1, chosen), distances, mirrored


def _flip(places: Tensor) -> Tensor:
    """Places on the other side of the face. [N, 3]"""
    return places * places.new_tensor([-1.0, 1.0, 1.0])
