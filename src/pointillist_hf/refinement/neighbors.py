# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours of points among points, exact."""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels.nearest import find_nearest


@torch.no_grad()
def nearest_points(queries: Tensor, sources: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The sources nearest to each query, the nearest first; of equally near ones, the first.

    Found on the CPU, in double precision, wherever the points are.

    Args:
        queries: [Q, D]
        sources: At least one. [S, D]
        count: K; no more than there are sources are found.

    Returns:
        Distances [Q, K'], indices of sources [Q, K'], with K' = min(K, S).
    """
    asked, among = (points.double().cpu().contiguous().numpy() for points in (queries, sources))
    distances, indices = find_nearest(asked, among, min(count, len(among)))
    return torch.from_numpy(distances).to(queries), torch.from_numpy(indices).to(queries.device)
