# SPDX-License-Identifier: Apache-2.0
"""From splats on the faces of a fit to canonical points, filtered and counted."""

import dataclasses

import pytest
import torch
from splat_scenes import scatter_on_faces

from pointillist_hf.data.fitting.canonicalization import PointFilter, canonicalize, point_keys
from pointillist_hf.geometry.triangles import triangle_frames


def test_canonical_points_lie_where_the_triangle_puts_them(tiny_rig, tiny_tokenizer):
    splats, vertices = scatter_on_faces(tiny_rig), tiny_rig.v_template
    points, statistics = canonicalize(splats, tiny_rig, vertices, tiny_tokenizer)
    for n in range(0, len(splats), 37):
        corners = vertices[tiny_rig.faces[splats.bindings[n]]]
        rotation, centre, size = triangle_frames(corners)
        expected = size * rotation @ splats.means[n] + centre
        assert torch.allclose(points.means[n], expected, atol=1e-6)
    assert torch.equal(points.bindings, splats.bindings)
    assert statistics.num_points == statistics.num_splats == len(splats)


def test_points_to_tokens_and_back_stay_within_half_a_bin(tiny_rig, tiny_tokenizer):
    points, _ = canonicalize(
        scatter_on_faces(tiny_rig), tiny_rig, tiny_rig.v_template, tiny_tokenizer
    )
    ids = tiny_tokenizer.encode_points(points)
    decoded = tiny_tokenizer.decode_points(ids)
    assert torch.equal(tiny_tokenizer.encode_points(decoded), ids)
    distances = torch.cdist(points.means, decoded.means, p=torch.inf)
    distances[points.bindings[:, None] != decoded.bindings] = torch.inf
    assert float(distances.min(1).values.max()) <= tiny_tokenizer.bin_size / 2 * 1.001


def test_statistics_count_shared_cells(tiny_rig, tiny_tokenizer):
    splats = scatter_on_faces(tiny_rig)
    twice = splats[torch.cat([torch.arange(300), torch.arange(60)])]
    points, statistics = canonicalize(twice, tiny_rig, tiny_rig.v_template, tiny_tokenizer)
    keys = point_keys(
        tiny_tokenizer.normalize_coords(points.means), points.bindings, tiny_tokenizer
    )
    rows = {tuple(row) for row in tiny_tokenizer.encode_points(points)[4:-4].view(-1, 4).tolist()}
    assert len(keys.unique()) == len(rows)
    assert statistics.duplicates == pytest.approx(1 - len(rows) / 360)
    assert statistics.shared_cells >= statistics.duplicates > 60 / 360 - 0.01
    merged, after = canonicalize(
        twice, tiny_rig, tiny_rig.v_template, tiny_tokenizer, PointFilter(merge_duplicates=True)
    )
    assert len(merged) == len(rows)
    assert after.duplicates == 0


def test_faint_splats_can_be_left_out(tiny_rig, tiny_tokenizer):
    splats = scatter_on_faces(tiny_rig)
    args = (splats, tiny_rig, tiny_rig.v_template, tiny_tokenizer)
    opacities = splats.opacity_logits.sigmoid()
    points, _ = canonicalize(*args, PointFilter(min_opacity=0.6))
    assert len(points) == int((opacities >= 0.6).sum())
    points, _ = canonicalize(*args, PointFilter(min_opacity=1.0, keep_every_face=True))
    assert torch.equal(points.bindings.sort().values, splats.bindings.unique())
    with pytest.raises(ValueError, match="No point is left"):
        canonicalize(*args, PointFilter(min_opacity=1.0))


def test_points_far_outside_the_cube_are_an_error(tiny_rig, tiny_tokenizer):
    with pytest.raises(ValueError, match=r"of 300 points lie outside .* `max_outside` = 0.5%"):
        canonicalize(
            scatter_on_faces(tiny_rig, spread=50), tiny_rig, tiny_rig.v_template, tiny_tokenizer
        )
    splats = scatter_on_faces(tiny_rig)
    broken = dataclasses.replace(splats, means=splats.means.log())
    with pytest.raises(ValueError, match="`splats` must have finite places"):
        canonicalize(broken, tiny_rig, tiny_rig.v_template, tiny_tokenizer)
