# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch

from pointillist_hf.refinement.face_kinds import PointKind
from pointillist_hf.refinement.fill_table import build_fill_table

BACK = torch.tensor([-1.0, 1, 1])


def kinds_of(means, kind=PointKind.SKIN):
    return torch.full((len(means),), int(kind))


@pytest.fixture
def face():
    """A sheet of points on both sides of the middle. [N, 3] metres"""
    x, y = torch.meshgrid(torch.arange(1, 40), torch.arange(40), indexing="ij")
    half = torch.stack([x, y, 0 * x], dim=-1).reshape(-1, 3) * 2e-3
    return torch.cat([half, half * BACK])


def test_a_hidden_cheek_is_filled_from_the_other_one():
    means = torch.zeros(40, 3)
    means[:20, 0] = torch.linspace(0.04, 0.06, 20)
    means[20:] = means[:20] * BACK
    seen = torch.arange(40) < 20
    table = build_fill_table(means, kinds_of(means), seen.float(), seen)
    best = table.ids[20:, 1:].gather(1, table.weights[20:, 1:].argmax(1)[:, None])[:, 0]
    assert torch.equal(best, torch.arange(20))
    assert torch.equal(table.weights[:20, 0], torch.ones(20))


def test_what_is_seen_shows_itself_and_all_weights_sum_to_one(face):
    seen = face[:, 1] < 0.05
    table = build_fill_table(face, kinds_of(face), seen.float(), seen)
    samples = torch.rand(len(face), 3)
    assert torch.equal(table.fill(samples)[seen], samples[seen])
    assert torch.allclose(table.weights.sum(1), torch.ones(len(face)), atol=1e-5)


def test_the_edge_of_what_is_seen_does_not_show_where_the_other_side_is_darker(face):
    """Light falls from one side; the lit cheek is hidden beyond 4 cm, the other one is not."""
    is_lit = face[:, 0] > 0
    seen = ~is_lit | (face[:, 0] < 0.04)
    mole = ((face * BACK - torch.tensor([0.06, 0.04, 0])).norm(dim=-1) < 0.007) & ~is_lit
    samples = torch.where(is_lit, 0.8, 0.4) - 0.2 * mole
    table = build_fill_table(face, kinds_of(face), seen.float(), seen)
    shown = table.fill(samples[:, None])[:, 0]
    plain = ~seen & ((face - torch.tensor([0.06, 0.04, 0])).norm(dim=-1) > 0.02)
    assert (shown[plain] - 0.8).abs().max() < 0.03
    # What the other cheek has, this one gets too, in its own light.
    middle = (face - torch.tensor([0.06, 0.04, 0])).norm(dim=-1).argmin()
    assert 0.58 < float(shown[middle]) < 0.7


def test_near_the_edge_the_own_side_counts(face):
    seen = (face[:, 0] < 0) | (face[:, 0] < 0.04)
    table = build_fill_table(face, kinds_of(face), seen.float(), seen)
    samples = (face[:, 0] > 0).float()[:, None]  # how much comes from the own side
    # Pairs in both sides tell of the light alone: they add what they take away.
    straight = (table.weights[:, 1:8] * samples[table.ids[:, 1:8], 0]).sum(1)
    edge = (face[:, 0] - 0.042).abs() < 1e-3
    far = face[:, 0] > 0.075
    assert straight[edge].min() > 0.9
    assert straight[far].max() < 0.2


def test_one_odd_pixel_is_not_smeared_over_what_is_hidden(face):
    seen = face[:, 0].abs() < 0.03
    table = build_fill_table(face, kinds_of(face), seen.float(), seen)
    edge = (seen & (face[:, 0] > 0)).nonzero()[:, 0]
    odd = edge[(face[edge] - torch.tensor([0.029, 0.04, 0])).norm(dim=-1).argmin()]
    samples = torch.zeros(len(face), 1)
    samples[odd] = 1
    assert table.fill(samples)[~seen].max() < 0.2


def test_hair_keeps_its_strands(face):
    seen = face[:, 1] < 0.05
    table = build_fill_table(face, kinds_of(face, PointKind.HAIR), seen.float(), seen)
    samples = (torch.rand(len(face), 1, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    assert table.fill(samples)[~seen].std() > 0.25


def test_hidden_hair_falls_in_strands_from_the_crown():
    """The front of a cylinder has upright stripes; so has what is invented for its back."""
    columns, rows = torch.meshgrid(torch.arange(200), torch.arange(60), indexing="ij")
    angle = columns.flatten() / 200 * 2 * math.pi
    height = rows.flatten() * 2.5e-3
    means = torch.stack([0.1 * angle.sin(), height, 0.1 * angle.cos()], dim=-1)
    seen = angle.cos() > 0
    table = build_fill_table(means, kinds_of(means, PointKind.HAIR), seen.float(), seen)
    stripes = torch.rand(200, generator=torch.Generator().manual_seed(0))
    shown = table.fill(stripes[columns.flatten(), None]).reshape(200, 60)
    back = shown[~seen.reshape(200, 60).any(1)]
    along, across = back.diff(dim=1).abs().mean(), back.diff(dim=0).abs().mean()
    assert across > 0.05
    assert along < 0.5 * across, (along, across)


def test_hidden_hair_does_not_lend_from_the_lowest_that_is_seen():
    """There the skin below shines through."""
    angle, rows = (
        part.flatten()
        for part in torch.meshgrid(torch.linspace(0, 6.2, 200), torch.arange(60.0), indexing="ij")
    )
    means = torch.stack([0.1 * angle.sin(), 2.5e-3 * rows, 0.1 * angle.cos()], dim=-1)
    seen = angle.cos() > 0
    table = build_fill_table(means, kinds_of(means, PointKind.HAIR), seen.float(), seen)
    shown = table.fill((rows < 3).float()[:, None])[:, 0]
    assert shown[~seen & (rows < 3)].mean() < 0.05
