# SPDX-License-Identifier: Apache-2.0
"""Floor 6. Several clouds are drawn of a portrait, and what fits it best of them is kept.

What a conditioner foresees of a cloud, its layout, is nearer to the truth than what a small
generator draws: sampling strays. Beyond the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .decoding.generation import PointGenerationOutput
from .decoding.options import list_seeds
from .geometry.number_checks import MAX_SEED, check_integer
from .geometry.structures import CanonicalPoints, RigParams
from .models.decoded_layout import find_decoded_cells
from .models.tokenization_points import TOKENS_PER_POINT, PointTokenizer
from .rigs.cloud_layout import compare_layouts, count_cells
from .rigs.head_rig import HeadRig

MAX_CANDIDATES = 64  # of an avatar
# Between the seeds of candidates: avatars of neighbouring seeds share none.
SEED_STRIDE = 1_000_003_000_001
NUM_STRETCHES = 16  # of the faces
MAX_ROUNDS = 4  # over the stretches


def check_candidates(
    num_candidates: object, rig_params: RigParams | None, layouts: Tensor | None
) -> int:
    """How many clouds are drawn. Refuses candidates that nothing tells apart.

    Raises:
        ValueError: The number is none, or there are several and no layouts or heads.
    """
    count = check_integer("num_candidates", num_candidates, 1, MAX_CANDIDATES)
    if count > 1 and (rig_params is None or layouts is None):
        raise ValueError(
            f"`num_candidates` must be 1 without `layouts` and `rig_params`, got {count}. Take "
            "those of `encode_image`, of a conditioner with a `layout_size`."
        )
    return count


def candidate_seeds(seeds: Sequence[int] | None, num_clouds: int, num_candidates: int) -> list[int]:
    """The seeds of the candidates of each cloud, the first one having the cloud's own."""
    return [
        (seed + SEED_STRIDE * i) % (MAX_SEED + 1)
        for seed in list_seeds(seeds, num_clouds)
        for i in range(num_candidates)
    ]


def choose_candidates(
    output: PointGenerationOutput,
    clouds: Sequence[CanonicalPoints],
    layouts: Tensor,
    betas: Tensor,
    *,
    tokenizer: PointTokenizer,
    rig: HeadRig,
    max_points: int,
) -> PointGenerationOutput:
    """Of the candidates of each cloud, what is nearest to what was foreseen.

    Candidates that go from face to face are cut into stretches of faces, each of which is taken
    from another one if that is nearer. A generator looks back a few dozen points, so that a stretch
    hardly knows the one before it; and a beard does not depend on the hair that came with it.

    Args:
        output: The candidates of each cloud, one after the other. As many times B rows
        clouds: The same as points, where the pipeline lays them.
        layouts: Foreseen. [B, L, L^2]
        betas: Of the heads. [B, S]
        tokenizer: Of the tokens.
        rig: Of the bindings.
        max_points: Most points of a cloud.

    Returns:
        B rows.
    """
    num_candidates = len(clouds) // len(layouts)
    kept = []
    for row, (wanted, head) in enumerate(zip(layouts, betas, strict=True)):
        own = range(row * num_candidates, (row + 1) * num_candidates)
        # Those that were stopped lack what others have.
        rows = [i for i in own if output.is_finished[i]] or list(own)
        stretches = _cut(clouds, rows, rig.num_faces)
        groups = [stretches[clouds[i].bindings] for i in rows]
        cells = [
            find_decoded_cells(clouds[i].to(head.device), tokenizer, rig, head, len(wanted))
            for i in rows
        ]
        chosen = _fit_stretches(cells, groups, wanted.to(head), max_points).to(stretches.device)
        kept.append(
            [((chosen[group] == k).nonzero()[:, 0], rows[k]) for k, group in enumerate(groups)]
        )
    return _join(output, kept, clouds, tokenizer)


def _cut(clouds: Sequence[CanonicalPoints], rows: Sequence[int], num_faces: int) -> Tensor:
    """The stretch of each face; all faces are of one where a cloud does not go by faces. [F]"""
    goes_by_faces = all(bool((clouds[i].bindings.diff() >= 0).all()) for i in rows)
    faces = torch.arange(num_faces, device=clouds[0].bindings.device)
    return faces * NUM_STRETCHES // num_faces if goes_by_faces else 0 * faces


def _fit_stretches(
    cells: Sequence[Tensor], groups: Sequence[Tensor], wanted: Tensor, max_points: int
) -> Tensor:
    """The candidate that each stretch is taken from.

    Args:
        cells: In which the points of each candidate stand off the skin. [N] each
        groups: Stretches of these points. [N] each
        wanted: Foreseen. [L, L^2]
        max_points: Of all stretches together.

    Returns:
        [stretches]
    """
    groups = [group.to(wanted.device) for group in groups]
    pairs = zip(cells, groups, strict=True)
    layouts = [count_cells(own, len(wanted), group, NUM_STRETCHES) for own, group in pairs]
    counts = torch.stack(layouts, dim=1)  # [stretches, candidates, L, L^2]
    lengths = torch.stack([group.bincount(minlength=NUM_STRETCHES) for group in groups], dim=1)
    best = int(compare_layouts(counts.sum(0), wanted).argmin())
    chosen = torch.full((len(counts),), best, device=counts.device)
    every = torch.arange(len(counts), device=counts.device)
    for _ in range(MAX_ROUNDS):
        before = chosen.clone()
        for stretch in range(len(counts)):
            others = counts[every, chosen].sum(0) - counts[stretch, chosen[stretch]]
            distances = compare_layouts(others + counts[stretch], wanted)
            added = lengths[stretch] - lengths[stretch, chosen[stretch]]
            fits = lengths[every, chosen].sum() + added <= max_points
            distances[~fits] = torch.inf
            # As it is, unless another one is nearer.
            if distances.min() < distances[chosen[stretch]]:
                chosen[stretch] = distances.argmin()
        if torch.equal(before, chosen):
            break
    return chosen


def _join(
    output: PointGenerationOutput,
    kept: Sequence[Sequence[tuple[Tensor, int]]],
    clouds: Sequence[CanonicalPoints],
    tokenizer: PointTokenizer,
) -> PointGenerationOutput:
    """Clouds of points of several rows; those of each row are given by their numbers."""
    layout, rows = tokenizer.layout, []
    for parts in kept:
        bindings = torch.cat([clouds[i].bindings[points] for points, i in parts])
        ids, states = (
            torch.cat([values[i][points.to(values.device)] for points, i in parts])
            for values in (
                output.input_ids[:, TOKENS_PER_POINT:].unflatten(1, (-1, TOKENS_PER_POINT)),
                output.token_hidden_states,
            )
        )
        is_one = sum(len(points) > 0 for points, _ in parts) == 1
        order = torch.arange(len(bindings)) if is_one else bindings.cpu().sort(stable=True).indices
        rows.append((ids[order.to(ids.device)], states[order.to(states.device)]))
    most = max(len(ids) for ids, _ in rows)
    size = (len(rows), most, TOKENS_PER_POINT)
    states = output.token_hidden_states.new_zeros(*size, output.token_hidden_states.shape[-1])
    sequences = output.input_ids.new_full((len(rows), most + 2, size[-1]), layout.pad_token_id)
    sequences[:, 0] = layout.bos_token_id
    for row, (ids, own) in enumerate(rows):
        states[row, : len(ids)] = own
        sequences[row, 1 : len(ids) + 1] = ids
        sequences[row, len(ids) + 1] = layout.eos_token_id
    return PointGenerationOutput(
        sequences.flatten(1),
        states,
        output.num_points.new_tensor([len(ids) for ids, _ in rows]),
        output.is_finished.new_tensor([all(output.is_finished[i] for _, i in p) for p in kept]),
    )
