# SPDX-License-Identifier: Apache-2.0
"""Splats after the decoder: solid skin, lids out of sight, cheeks that do not tear."""

from dataclasses import replace

import torch

from pointillist_hf import GaussianDecoder
from pointillist_hf.refinement import coloring
from pointillist_hf.refinement.coloring import (
    CORRECTION,
    SHADES,
    bound_shades,
    correct_colors,
    find_color_range,
)
from pointillist_hf.refinement.distance_maps import grow_mask
from pointillist_hf.refinement.dressing import (
    LEAST_SOLID,
    decode_points,
    dress_points,
    make_solid,
    project_cloud,
)
from pointillist_hf.refinement.face_kinds import PointKind, find_face_kinds
from pointillist_hf.refinement.gaps import AWAY, MOST_SOLID, TIGHT, measure_spacings
from pointillist_hf.refinement.lids import LID, is_folded, measure_blink
from pointillist_hf.refinement.optimization import RefinementSettings, refine
from pointillist_hf.refinement.placement import place_points
from pointillist_hf.refinement.point_sights import see_points
from pointillist_hf.refinement.portrait_view import sample_picture
from pointillist_hf.refinement.rig_points import STRETCHED, find_stretch
from pointillist_hf.rendering import rasterize
from pointillist_hf.training.recipes import build_projected_decoder_config


def test_skin_is_solid_and_hair_is_left_alone(colored, cloud):
    thin = replace(colored, opacities=torch.full_like(colored.opacities, 0.3))
    opacities = make_solid(thin, cloud.kinds).opacities
    may_be_thin = (cloud.kinds == PointKind.HAIR) | (cloud.kinds == PointKind.MOUTH)
    assert 0 < may_be_thin.sum() < len(cloud)
    assert torch.equal(opacities[may_be_thin], thin.opacities[may_be_thin])
    assert (opacities[~may_be_thin] == LEAST_SOLID).all()
    assert torch.equal(make_solid(colored, cloud.kinds).opacities, colored.opacities)


def test_hair_behind_is_closed_and_cloth_fitted(cloud, projected, view, tiny_rig, tiny_tokenizer):
    torch.manual_seed(0)
    decoder = GaussianDecoder(build_projected_decoder_config(tiny_tokenizer)).eval()
    sights = see_points(cloud, projected, view, tiny_rig)
    plain = decode_points(decoder, cloud, sights)
    dressed = dress_points(cloud, view, tiny_rig, decoder)
    behind = (cloud.kinds == PointKind.HAIR) & (projected.facing < AWAY)
    assert behind.any() and plain.opacities[behind].min() < MOST_SOLID
    # Some of it is seen at the rim, and follows the matte.
    assert dressed.opacities[behind].median() > MOST_SOLID - 1e-4
    assert plain.opacities[behind].median() < MOST_SOLID - 0.01
    cloth = (cloud.kinds == PointKind.CLOTH) & (projected.matte_distances > 20)
    assert cloth.any()
    reach = TIGHT * measure_spacings(plain.means, cloud.kinds)[cloth]
    wide = [(one.scales.amax(-1)[cloth] > 1.05 * reach).float().mean() for one in (plain, dressed)]
    assert wide[0] > 0.2 and wide[1] < wide[0] / 2, wide


def test_lids_out_of_sight_get_the_colours_around_them(colored, cloud, projected, view, tiny_rig):
    hidden = projected.is_folded & ~projected.is_visible
    if not hidden.any():  # at this density an open eye may show all of its lids
        folded = projected.is_folded.nonzero()[:4, 0]
        visible = projected.is_visible.clone()
        visible[folded] = False
        projected = replace(projected, is_visible=visible)
        hidden = projected.is_folded & ~visible
    assert hidden.any()
    green = torch.tensor([0.0, 1.0, 0.0]).expand_as(colored.colors)
    corrected = correct_colors(
        replace(colored, colors=green), cloud.bindings, projected, view, tiny_rig
    ).colors
    lent = projected.fill(sample_picture(view.foreground, projected.pixels))
    torch.testing.assert_close(corrected[hidden], lent[hidden], rtol=0, atol=0.01)
    others = ~projected.is_visible & ~hidden
    torch.testing.assert_close(corrected[others], green[others], rtol=0, atol=0.01)


def test_what_is_seen_of_a_folded_lid_is_lighter_by_a_share_of_skin(
    colored, cloud, projected, view, tiny_rig, monkeypatch
):
    def correct():
        return correct_colors(colored, cloud.bindings, projected, view, tiny_rig).colors

    mixed = correct()
    monkeypatch.setattr(coloring, "LID_SHARE", 0.0)
    plain = correct()
    folds = projected.is_folded & projected.is_visible & (cloud.kinds == PointKind.SKIN)
    assert folds.any()
    lent = projected.fill(sample_picture(view.foreground, projected.pixels))
    torch.testing.assert_close(
        mixed[folds], 0.4 * plain[folds] + 0.6 * lent[folds], rtol=0, atol=0.01
    )
    assert torch.equal(mixed[~folds], plain[~folds])


def test_faces_that_stretch_hardly_shrink(colored, cloud, view, tiny_rig):
    settings = RefinementSettings(scale_rate=0.5, scale_weight=0.0)
    large = replace(colored, scales=2.5 * colored.scales)
    refined = refine(
        large,
        cloud.bindings,
        cloud.kinds,
        [view],
        tiny_rig,
        num_steps=8,
        settings=settings,
        show_progress=False,
    )
    shrinkage = (large.scales / refined.scales).log().amax(-1)
    stretches = (find_stretch(tiny_rig, view.rig_params.betas) > STRETCHED)[cloud.bindings]
    stretches &= cloud.kinds != PointKind.HAIR
    assert stretches.any()
    assert shrinkage[stretches].max() <= settings.max_stretched_shrinkage + 1e-5
    assert shrinkage[~stretches].max() > 3 * settings.max_stretched_shrinkage


def test_where_skin_grazes_the_sight_a_point_takes_a_share_of_the_residual(
    colored, cloud, projected, view, tiny_rig
):
    shares = projected.fill_table.weights[:, 0]
    skin = projected.is_visible & ~projected.is_folded & (cloud.kinds == PointKind.SKIN)
    grey = replace(colored, colors=torch.full_like(colored.colors, 0.5))
    low, high = find_color_range(view, projected.pixels)
    one = correct_colors(grey, cloud.bindings, projected, view, tiny_rig, num_rounds=1).colors
    drawn, alphas = rasterize(
        place_points(cloud.points, tiny_rig, view.rig_params).pose_gaussians(grey), view.cameras
    )
    missing = (view.foreground * alphas[0] - drawn[0]) * (view.matte > 0.5)[..., None]
    whole = CORRECTION * sample_picture(missing, projected.pixels)
    grazing = skin & (shares > 0.1) & (shares < 0.9)
    assert grazing.sum() > 5
    wanted = torch.minimum(torch.maximum(0.5 + shares[:, None] * whole, low), high)
    torch.testing.assert_close(one[grazing], wanted[grazing], rtol=0, atol=1e-3)
    blind = skin & (shares == 0)
    assert (one[blind] == 0.5).all()


def test_corrections_do_not_leave_the_colours_around_a_point(
    colored, cloud, projected, view, tiny_rig
):
    low, high = find_color_range(view, projected.pixels)
    many = correct_colors(colored, cloud.bindings, projected, view, tiny_rig, num_rounds=20).colors
    told = projected.is_visible & (projected.fill_table.weights[:, 0] > 0)
    assert told.sum() > 100
    assert (many[told] >= low[told] - 1e-6).all() and (many[told] <= high[told] + 1e-6).all()


def test_skin_keeps_the_hue_that_it_is_lent():
    filled = torch.tensor([[0.8, 0.6, 0.5]]).expand(4, 3)
    colors = torch.stack([filled[0] * 0.9, torch.full((3,), 0.2), torch.ones(3), torch.zeros(3)])
    kinds = torch.tensor([PointKind.SKIN, PointKind.SKIN, PointKind.SKIN, PointKind.HAIR])
    bounded = bound_shades(colors, filled, kinds)
    torch.testing.assert_close(bounded[0], colors[0])
    torch.testing.assert_close(bounded[1], SHADES[0] * filled[0])
    torch.testing.assert_close(bounded[2], SHADES[1] * filled[0])
    assert torch.equal(bounded[3], colors[3])


def test_skin_out_of_sight_is_dressed_in_the_hue_that_it_is_lent(
    cloud, projected, view, tiny_rig, tiny_tokenizer
):
    torch.manual_seed(0)
    decoder = GaussianDecoder(build_projected_decoder_config(tiny_tokenizer)).eval()
    filled = see_points(cloud, projected, view, tiny_rig).filled
    dressed = dress_points(cloud, view, tiny_rig, decoder).colors
    hidden = (cloud.kinds == PointKind.SKIN) & ~projected.is_visible & ~projected.is_folded
    hidden &= (filled.amin(1) > 0.1) & (filled.amax(1) < 0.8)
    assert hidden.sum() > 100
    shades = dressed[hidden] / filled[hidden]
    torch.testing.assert_close(shades.amax(1), shades.amin(1), rtol=1e-3, atol=0)
    assert shades.min() > SHADES[0] - 1e-3 and shades.max() < SHADES[1] + 1e-3


def test_skin_that_turns_away_is_dressed_solid(cloud, projected, view, tiny_rig, tiny_tokenizer):
    torch.manual_seed(0)
    decoder = GaussianDecoder(build_projected_decoder_config(tiny_tokenizer)).eval()
    opacities = dress_points(cloud, view, tiny_rig, decoder).opacities
    slanted = (cloud.kinds == PointKind.SKIN) & (projected.facing < 0.6)
    assert slanted.sum() > 100
    assert opacities[slanted].min() > LEAST_SOLID - 1e-3


def test_rims_of_lids_follow_the_photograph_and_folds_do_not(colored, cloud, view, tiny_rig):
    blink = measure_blink(cloud.points, tiny_rig, view.rig_params.betas)
    is_rim = find_face_kinds(tiny_rig).is_lid[cloud.bindings]
    refined = refine(
        colored, cloud.bindings, cloud.kinds, [view], tiny_rig, num_steps=3, show_progress=False
    )
    changed = (refined.colors != colored.colors).any(1)
    assert not changed[is_folded(blink, is_rim)].any()
    assert changed[is_rim & (blink > LID)].any()


def test_dressing_looks_at_the_colours_of_the_limb(cloud, view, tiny_rig):
    """What is black there is not of the face; see `project_onto_portrait`."""
    black = replace(view, foreground=torch.zeros_like(view.foreground))
    plain = replace(view, foreground=torch.full_like(view.foreground, 0.6))
    trusting = project_cloud(cloud, plain, tiny_rig)
    limb = (cloud.kinds == PointKind.SKIN) & trusting.is_visible & (cloud.means[:, 1] > 0)
    limb &= (trusting.facing < 0.58) & (trusting.fill_table.weights[:, 0] > 0.5)
    limb &= cloud.means[:, 0].abs() > 0.04
    column, row = trusting.pixels[limb].long().unbind(-1)
    marks = torch.zeros_like(view.inside)
    marks[row, column] = True
    dark = torch.where(grow_mask(marks)[..., None], black.foreground, plain.foreground)
    seen = project_cloud(cloud, replace(view, foreground=dark), tiny_rig)
    assert limb.sum() > 3
    assert (seen.fill_table.weights[limb, 0] == 0).all()
