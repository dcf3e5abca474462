# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours of points among points, exact, block by block."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 64  # points that are searched together
FIRST = 6  # blocks of sources that a block of queries looks at to learn how far it must look
FEW = 1024  # sources that are searched without blocks


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
    if len(sources) <= max(FEW, BLOCK * count):
        return _search_all(queries, sources, count)
    query_ids, source_ids = _split_blocks(queries), _split_blocks(sources)
    blocks = sources[source_ids]  # [B, BLOCK, D]
    low, high = blocks.amin(1), blocks.amax(1)
    asked = queries[query_ids]
    gaps = _box_gaps(asked.amin(1), asked.amax(1), low, high)
    gaps, order = gaps.sort(dim=1)
    distances = queries.new_empty(len(queries), count)
    indices = torch.empty(len(queries), count, dtype=torch.int64)
    for block, ids in enumerate(query_ids):
        near = source_ids[order[block, :FIRST]].flatten().unique()
        found, place = _search_all(asked[block], sources[near], count)
        # Blocks farther away than the worst find hold nothing better.
        wanted = int((gaps[block] <= found[:, -1].max()).sum())
        if wanted > FIRST or len(near) < count:
            wanted = max(wanted, FIRST + count)
            near = source_ids[order[block, :wanted]].flatten().unique()
            found, place = _search_all(asked[block], sources[near], count)
        distances[ids], indices[ids] = found, near[place]
    return distances, indices


def _search_all(queries: Tensor, sources: Tensor, count: int) -> tuple[Tensor, Tensor]:
    distances, indices = [], []
    for part in queries.split(max(1, 2_000_000 // len(sources))):
        # The product form of the distance loses the small ones to rounding.
        every = torch.cdist(part, sources, compute_mode="donot_use_mm_for_euclid_dist")
        found, place = every.topk(count, dim=1, largest=False)
        distances.append(found)
        indices.append(place)
    return torch.cat(distances), torch.cat(indices)


def _split_blocks(points: Tensor) -> Tensor:
    """Indices of the points in compact blocks; the last points are repeated to fill them. [B, 64]"""
    ids = [torch.arange(len(points))]
    while len(ids[0]) > BLOCK:
        halves = []
        for part in ids:
            own = points[part]
            axis = (own.amax(0) - own.amin(0)).argmax()
            order = own[:, axis].argsort(stable=True)
            # An odd one out is in both halves, so that all blocks stay of one size.
            middle = (len(part) + 1) // 2
            halves += [part[order[:middle]], part[order[-middle:]]]
        ids = halves
    return torch.stack([part[torch.arange(BLOCK).clamp(max=len(part) - 1)] for part in ids])


def _box_gaps(low_a: Tensor, high_a: Tensor, low_b: Tensor, high_b: Tensor) -> Tensor:
    """Distances between axis-aligned boxes. [A, B]"""
    apart = torch.maximum(low_b[None] - high_a[:, None], low_a[:, None] - high_b[None])
    return apart.clamp_min(0).norm(dim=-1)
