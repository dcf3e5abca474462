# SPDX-License-Identifier: Apache-2.0
"""Refinement: closer to the photograph, true to what it does not show, the same every time."""

from dataclasses import fields, replace

import pytest
import torch

from pointillist_hf.geometry.structures import Gaussians
from pointillist_hf.refinement import optimization
from pointillist_hf.refinement.coloring import find_color_range
from pointillist_hf.refinement.face_kinds import PointKind, find_face_kinds
from pointillist_hf.refinement.optimization import SLACK, UPRIGHT, RefinementSettings, refine
from pointillist_hf.refinement.pixel_kinds import classify_pixels
from pointillist_hf.refinement.placement import place_points
from pointillist_hf.refinement.refinement_losses import build_target, photograph_loss
from pointillist_hf.rendering import rasterize

STEPS = 8


@pytest.fixture(scope="module")
def refined(colored, cloud, view, tiny_rig):
    return run(colored, cloud, [view], tiny_rig)


def run(gaussians, cloud, views, rig, **options):
    options = {"num_steps": STEPS, "show_progress": False, **options}
    return refine(gaussians, cloud.bindings, cloud.kinds, views, rig, **options)


def loss_of(gaussians, cloud, view, rig):
    target = build_target(view, classify_pixels(view, rig, find_face_kinds(rig)))
    posed = place_points(cloud.points, rig, view.rig_params).pose_gaussians(gaussians)
    return float(photograph_loss(posed, target, torch.full((3,), 0.5)))


def is_same(first, second):
    return all(
        torch.equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(Gaussians)
    )


def test_the_loss_falls(refined, colored, cloud, view, tiny_rig):
    before = loss_of(colored, cloud, view, tiny_rig)
    assert loss_of(refined, cloud, view, tiny_rig) < 0.9 * before


def test_what_is_not_seen_keeps_its_bits(refined, colored, cloud, projected, view, tiny_rig):
    colors = colored.colors.clone().requires_grad_()
    posed = place_points(cloud.points, tiny_rig, view.rig_params).pose_gaussians(
        replace(colored, colors=colors)
    )
    rasterize(posed, view.cameras)[0].sum().backward()
    undrawn = (colors.grad < 1e-3).all(1)
    assert undrawn.sum() > 500
    assert is_same(refined[undrawn], colored[undrawn])
    # Skin that is turned away, and what lies behind the lips.
    skin = cloud.kinds == PointKind.SKIN
    unseen = skin & (projected.depth_gaps > 0.03) & (projected.facing < 0)
    unseen |= cloud.kinds == PointKind.MOUTH
    assert unseen.sum() > 50
    assert is_same(refined[unseen], colored[unseen])
    assert not is_same(refined, colored)


def test_values_stay_in_their_bounds(refined, colored, cloud):
    settings = RefinementSettings()
    moved = (refined.means - colored.means).abs().amax(1)
    hair = cloud.kinds == PointKind.HAIR
    assert (moved[hair] <= settings.max_hair_offset + 1e-6).all()
    assert (moved[~hair] <= settings.max_skin_offset + 1e-6).all()
    growth = (refined.scales / colored.scales).log().abs()
    assert (growth <= settings.max_log_scale + 1e-4).all()
    for values in (refined.colors, refined.opacities):
        assert ((values >= 0) & (values <= 1)).all()


def test_points_seen_at_a_slant_keep_to_the_colours_around_them(
    colored, cloud, projected, view, tiny_rig, monkeypatch
):
    low, high = find_color_range(view, projected.pixels)
    low, high = torch.minimum(low, colored.colors), torch.maximum(high, colored.colors)

    def excess():
        eager = RefinementSettings(color_rate=0.5)
        colors = run(colored, cloud, [view], tiny_rig, settings=eager).colors
        return torch.maximum(low - colors, colors - high).clamp_min(0).amax(1)

    posed = place_points(cloud.points, tiny_rig, view.rig_params).pose_gaussians(colored)
    slanted = optimization._find_facing(posed, view.cameras) < UPRIGHT
    bounded = excess()
    assert bounded[slanted].max() < 1e-5
    assert 0.1 < bounded.max() < SLACK + 0.01
    monkeypatch.setattr(optimization, "UPRIGHT", -2.0)
    assert excess()[slanted].max() > 0.05


def test_seeds(refined, colored, cloud, view, tiny_rig):
    assert is_same(refined, run(colored, cloud, [view], tiny_rig))
    assert not is_same(refined, run(colored, cloud, [view], tiny_rig, seed=1))


def test_no_steps_change_nothing(colored, cloud, view, tiny_rig):
    assert is_same(run(colored, cloud, [view], tiny_rig, num_steps=0), colored)


def test_an_interrupt_keeps_the_steps_so_far(colored, cloud, view, tiny_rig, monkeypatch, caplog):
    three = run(colored, cloud, [view], tiny_rig, num_steps=3)
    take_step = optimization._take_step

    def stop_at_three(change, scenes, step, *rest):
        if step == 3:
            raise KeyboardInterrupt
        return take_step(change, scenes, step, *rest)

    monkeypatch.setattr(optimization, "_take_step", stop_at_three)
    interrupted = run(colored, cloud, [view], tiny_rig)
    assert is_same(interrupted, three)
    assert "was interrupted" in caplog.text


def test_two_photographs(colored, cloud, view, tiny_rig):
    mirrored = replace(view, foreground=1 - view.foreground)
    both = run(colored, cloud, [view, mirrored], tiny_rig)
    alone = run(colored, cloud, [view], tiny_rig)
    # What the second one says is heard.
    assert loss_of(both, cloud, mirrored, tiny_rig) < loss_of(alone, cloud, mirrored, tiny_rig)


def test_refusals(colored, cloud, view, tiny_rig):
    with pytest.raises(ValueError, match="`views` must hold at least one photograph"):
        run(colored, cloud, [], tiny_rig)
    with pytest.raises(ValueError, match="`num_steps` be 0 or more"):
        run(colored, cloud, [view], tiny_rig, num_steps=-1)
