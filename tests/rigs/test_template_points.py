# SPDX-License-Identifier: Apache-2.0
"""The head's own vertices as a cloud."""

import torch

from pointillist_hf.rigs.binding import bind_points
from pointillist_hf.rigs.template_points import build_template_points


def test_template_points_are_the_vertices_of_a_person(tiny_rig):
    betas = torch.randn(tiny_rig.num_betas, generator=torch.Generator().manual_seed(0))
    points = build_template_points(tiny_rig, betas)
    vertices = tiny_rig.canonical_vertices(betas[None])[0]
    used = tiny_rig.faces.unique()
    assert torch.equal(points.means, vertices[used])
    # Each lies on its face, at a corner, and inherits what that vertex has.
    is_corner = tiny_rig.faces[points.bindings] == used[:, None]
    assert (is_corner.sum(1) == 1).all()
    first = [int((tiny_rig.faces == vertex).any(1).nonzero()[0]) for vertex in used[:50]]
    assert points.bindings[:50].tolist() == first
    bound = bind_points(points, tiny_rig, vertices)
    torch.testing.assert_close(bound.lbs_weights, tiny_rig.lbs_weights[used], atol=1e-3, rtol=0)


def test_template_points_follow_the_betas_alone(tiny_rig):
    heads = [build_template_points(tiny_rig, torch.full((tiny_rig.num_betas,), b)) for b in (0, 1)]
    assert torch.equal(heads[0].bindings, heads[1].bindings)
    assert not torch.allclose(heads[0].means, heads[1].means)
    assert torch.equal(heads[0].means, tiny_rig.v_template[tiny_rig.faces.unique()])
