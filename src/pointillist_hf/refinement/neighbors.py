# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours of points among points, exact, block by block."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK = 32  # points that are searched together, at most
FIRST = 8  # blocks of sources that a block of queries looks at to learn how far it must look
FEW = 1024  # sources that are searched without blocks
AT_ONCE = 2_000_000  # distances that are held in memory
BEYOND = 1e6  # where the places that fill a block up lie


def nearest_points(queries: Tensor, sources: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The sources nearest to each query, the nearest first.

    Args:
        queries: [Q, D]
        sources: At least one. [S, D]
        count: K; no more than there are sources are found.

    Returns:
        Distances [Q, K'], indices of sources [Q, K'], with K' = min(K, S).
    """
    count = min(count, len(sources))
    if not len(queries):
        return queries.new_zeros(0, count), torch.zeros(0, count, dtype=torch.int64)
    if len(sources) <= max(FEW, FIRST * BLOCK, BLOCK * count):
        return _search_all(queries, sources, count)
    query_ids, asked = _split_blocks(queries)
    source_ids, blocks = _split_blocks(sources)
    gaps, order = _box_gaps(*_find_boxes(query_ids, asked), *_find_boxes(source_ids, blocks)).sort(
        dim=1
    )
    # A first look says how far away the worst of the finds is; what is farther holds no better.
    first = torch.full((len(query_ids),), FIRST)
    distances, _ = _search_blocks(asked, order, first, source_ids, blocks, count)
    worst = torch.where(query_ids[..., None] >= 0, distances, 0).amax((1, 2))
    wanted = (gaps <= worst[:, None]).sum(1).clamp_min(FIRST)
    distances, indices = _search_blocks(asked, order, wanted, source_ids, blocks, count)
    back = query_ids.flatten()
    real = back >= 0
    ordered = back[real].argsort()
    return distances.flatten(0, 1)[real][ordered], indices.flatten(0, 1)[real][ordered]


def _search_all(queries: Tensor, sources: Tensor, count: int) -> tuple[Tensor, Tensor]:
    found = [
        _measure(part, sources).topk(count, dim=1, largest=False)
        for part in queries.split(max(1, AT_ONCE // len(sources)))
    ]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def _measure(a: Tensor, b: Tensor) -> Tensor:
    # The product form of the distance loses the small ones to rounding.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _search_blocks(
    asked: Tensor, order: Tensor, wanted: Tensor, source_ids: Tensor, blocks: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """The nearest in the first `wanted` blocks of each block's order. [A, S, K] each"""
    distances = asked.new_empty(*asked.shape[:2], count)
    indices = torch.empty(*asked.shape[:2], count, dtype=torch.int64)
    by_need = wanted.argsort(stable=True)
    start = 0
    while start < len(by_need):
        # Blocks of a like need are searched as one, padded to the greatest need of them.
        need = int(wanted[by_need[start]] * 1.3) + 1
        limit = max(1, AT_ONCE // (BLOCK * BLOCK * need))
        group = by_need[start : start + limit]
        group = group[wanted[group] <= need]
        near = order[group, : int(wanted[group].max())]
        candidates = blocks[near].flatten(1, 2)
        found = _measure(asked[group], candidates).topk(count, dim=2, largest=False)
        distances[group] = found.values
        ids = source_ids[near].flatten(1)
        indices[group] = ids[:, None].expand(-1, asked.shape[1], -1).gather(2, found.indices)
        start += len(group)
    return distances, indices


def _split_blocks(points: Tensor) -> tuple[Tensor, Tensor]:
    """The points in compact blocks, halved along their longest side until they are small.

    Returns:
        Indices, -1 where a block is not full [B, S]; places, far away there [B, S, D].
    """
    depth = max(0, math.ceil(math.log2(len(points) / BLOCK)))
    size = math.ceil(len(points) / 2**depth)
    ids = torch.arange(size * 2**depth)[None]
    ids = torch.where(ids < len(points), ids, -1)
    for _ in range(depth):
        real, own = ids[..., None] >= 0, points[ids.clamp_min(0)]
        low = torch.where(real, own, torch.inf).amin(1)
        high = torch.where(real, own, -torch.inf).amax(1)
        axis = (high - low).argmax(1)[:, None, None].expand(*ids.shape, 1)
        along = torch.where(real, own.gather(2, axis), torch.inf)[..., 0]
        ids = ids.gather(1, along.argsort(dim=1, stable=True)).reshape(2 * len(ids), -1)
    return ids, torch.where(ids[..., None] >= 0, points[ids.clamp_min(0)], BEYOND)


def _find_boxes(ids: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest coordinates in each block. [B, D] each"""
    real = ids[..., None] >= 0
    low = torch.where(real, blocks, torch.inf).amin(1)
    return low, torch.where(real, blocks, -torch.inf).amax(1)


def _box_gaps(low_a: Tensor, high_a: Tensor, low_b: Tensor, high_b: Tensor) -> Tensor:
    """Distances between axis-aligned boxes. [A, B]"""
    apart = torch.maximum(low_b[None] - high_a[:, None], low_a[:, None] - high_b[None])
    return apart.clamp_min(0).norm(dim=-1)
