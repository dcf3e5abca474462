# SPDX-License-Identifier: Apache-2.0
"""The numba kernel that finds the nearest points, exact, in a tree of boxes.

Each level of the tree halves the points of the boxes above along the longest side. Only their order
makes the tree: the box `i` of `2**level` holds the places `i * S >> level` up to the next one's.

Legend of the short names:
    S, Q, D        sources, queries, coordinates of each
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from .compilation import compile_kernel, compile_part

LEAF = 16  # points in a box that is not halved, at most: as many as are measured at once


def find_nearest(queries: ndarray, sources: ndarray, count: int) -> tuple[ndarray, ndarray]:
    """The sources nearest to each query, the nearest first; of equally near ones, the first.

    Args:
        queries: Contiguous, float64, finite. [Q, D]
        sources: The same. [S, D]
        count: K, not more than there are sources.

    Returns:
        Distances, float64 [Q, K]; indices of sources, int64 [Q, K].
    """
    (S, D), depth = sources.shape, 0
    while ((S - 1) >> depth) + 1 > LEAF:
        depth += 1
    leaves = np.full((1 << depth, D, LEAF), np.inf)
    tree = np.arange(S, dtype=np.int64), np.empty((2 << depth, 2, D)), leaves
    squares = np.full((len(queries), count), np.inf)
    indices = np.zeros((len(queries), count), np.int64)
    scratch = np.empty(depth + 1, np.int64), np.empty(depth + 1), np.empty(LEAF), np.empty(S)
    if squares.size:
        _find_nearest(queries, sources, depth, tree, squares, indices, scratch)
    return np.sqrt(squares), indices


@compile_kernel(counts_references=False)
def _find_nearest(
    queries: ndarray,
    sources: ndarray,
    depth: int,
    tree: tuple[ndarray, ...],
    squares: ndarray,
    indices: ndarray,
    scratch: tuple[ndarray, ...],
) -> None:
    order, boxes, leaves = tree
    _sort_sources(sources, depth, order, scratch[3])
    _find_boxes(sources, depth, order, boxes, leaves)
    for q in range(len(queries)):
        _search(queries[q], depth, tree, squares[q], indices[q], scratch)


@compile_part()
def _sort_sources(sources: ndarray, depth: int, order: ndarray, along: ndarray) -> None:
    """Puts the sources in the order of the leaves."""
    S, D = sources.shape
    for level in range(depth):
        for box in range(1 << level):
            start, stop = box * S >> level, (box + 1) * S >> level
            longest, axis = -1.0, 0
            for d in range(D):
                low, high = np.inf, -np.inf
                for place in range(start, stop):
                    value = sources[order[place], d]
                    low, high = min(low, value), max(high, value)
                if high - low > longest:
                    longest, axis = high - low, d
            for place in range(start, stop):
                along[place] = sources[order[place], axis]
            _halve(along, order, start, (2 * box + 1) * S >> (level + 1), stop - 1)


@compile_part()
def _halve(along: ndarray, order: ndarray, first: int, middle: int, last: int) -> None:
    """Sorts places so far that what lies before the middle is no larger than what follows."""
    while first < last:
        pivot = along[(first + last) >> 1]
        i, j = first, last
        while i <= j:
            while along[i] < pivot:
                i += 1
            while along[j] > pivot:
                j -= 1
            if i <= j:
                along[i], along[j] = along[j], along[i]
                order[i], order[j] = order[j], order[i]
                i, j = i + 1, j - 1
        if middle <= j:
            last = j
        elif middle >= i:
            first = i
        else:
            return


@compile_part()
def _find_boxes(
    sources: ndarray, depth: int, order: ndarray, boxes: ndarray, leaves: ndarray
) -> None:
    """Lowest and highest coordinates of boxes, the two halves of box i being 2 i and 2 i + 1.

    Coordinates of the leaves stay infinite where a leaf is not full.
    """
    S, D = sources.shape
    first = 1 << depth
    for leaf in range(first):
        start, stop = leaf * S >> depth, (leaf + 1) * S >> depth
        for d in range(D):
            low, high = np.inf, -np.inf
            for place in range(start, stop):
                value = sources[order[place], d]
                leaves[leaf, d, place - start] = value
                low, high = min(low, value), max(high, value)
            boxes[first + leaf, 0, d], boxes[first + leaf, 1, d] = low, high
    for box in range(first - 1, 0, -1):
        for d in range(D):
            boxes[box, 0, d] = min(boxes[2 * box, 0, d], boxes[2 * box + 1, 0, d])
            boxes[box, 1, d] = max(boxes[2 * box, 1, d], boxes[2 * box + 1, 1, d])


@compile_part()
def _measure_box(query: ndarray, boxes: ndarray, box: int) -> float:
    """Squared distance; rounded as those of points are, it is never above theirs."""
    total = 0.0
    for d in range(len(query)):
        apart = max(boxes[box, 0, d] - query[d], query[d] - boxes[box, 1, d], 0.0)
        total += apart * apart
    return total


@compile_part()
def _search(
    query: ndarray,
    depth: int,
    tree: tuple[ndarray, ...],
    squares: ndarray,
    indices: ndarray,
    scratch: tuple[ndarray, ...],
) -> None:
    """Fills in the nearest of one query and their squared distances. [K] each"""
    order, boxes, leaves = tree
    waiting, gaps, found, _ = scratch  # boxes still to look into, and their squared distances
    first, last = 1 << depth, len(squares) - 1
    box, gap, size = 1, 0.0, 0
    while True:
        while box < first:
            box, other = 2 * box, 2 * box + 1
            gap, behind = _measure_box(query, boxes, box), _measure_box(query, boxes, other)
            if behind < gap:
                box, gap, other, behind = other, behind, box, gap
            waiting[size], gaps[size] = other, behind
            size += 1
        leaf = box - first
        found[:] = 0.0
        for d in range(len(query)):
            for i in range(LEAF):
                apart = leaves[leaf, d, i] - query[d]
                found[i] += apart * apart
        start, stop = leaf * len(order) >> depth, (leaf + 1) * len(order) >> depth
        for i in range(stop - start):
            if found[i] <= squares[last]:
                _insert(found[i], order[start + i], squares, indices)
        # Of equally near points the first one counts: a box as far away may hold it.
        size -= 1
        while size >= 0 and gaps[size] > squares[last]:
            size -= 1
        if size < 0:
            return
        box = waiting[size]


@compile_part()
def _insert(square: float, index: int, squares: ndarray, indices: ndarray) -> None:
    """Puts a find where it belongs, by distance and then by index; the last one falls out."""
    place = len(squares) - 1
    if square == squares[place] and index > indices[place]:
        return
    while place > 0 and (
        square < squares[place - 1] or (square == squares[place - 1] and index < indices[place - 1])
    ):
        squares[place], indices[place] = squares[place - 1], indices[place - 1]
        place -= 1
    squares[place], indices[place] = square, index
