# SPDX-License-Identifier: Apache-2.0
"""The pretext task of the image encoder."""

import dataclasses

import pytest
import torch

from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.view_synthesis import (
    REST,
    VIEW_SIZE,
    RestViews,
    ViewSynthesis,
)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    config = SyntheticDatasetConfig(
        num_train=1, num_test=0, num_skin_points=40, hair_budget=20, num_views=6, image_size=112
    )
    build_synthetic_dataset(folder, config, show_progress=False)
    return load_people(folder, "train")


@pytest.fixture(scope="module")
def person(people):
    return people.persons[0]


@pytest.fixture(scope="module")
def rest_views(people):
    return RestViews(people.rig)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def test_views_at_rest_are_those_without_motion(person, rest_views):
    assert rest_views.choose(person, 2).tolist() == [0, 2, 4]  # take_views moves every other one
    moving = person.view_params[torch.tensor([1, 3, 5])]
    assert (moving.poses.abs().sum((1, 2)) + moving.expression.abs().sum(1) > 0).all()


def test_drawn_views_are_premultiplied_and_belong_to_their_cameras(person, rest_views):
    views, viewmats = rest_views.draw(person, 3, stream())
    assert views.shape == (1, 3, 4, VIEW_SIZE, VIEW_SIZE)
    assert (views[:, :, :3] <= views[:, :, 3:] + 1e-6).all()
    for view, viewmat in zip(views[0], viewmats[0], strict=True):
        same = (person.view_cameras.viewmats == viewmat).flatten(1).all(1)
        original = person.views[same][0].float() / 255
        # 112 to 56 pixels: the mean of two by two.
        alpha = original[..., 3].unflatten(0, (-1, 2)).unflatten(2, (-1, 2)).mean((1, 3))
        assert torch.allclose(view[3], alpha, atol=1e-6)


def test_too_few_views_repeat(person, rest_views):
    views, _ = rest_views.draw(person, 5, stream())
    assert torch.equal(views[0, 0], views[0, 3])
    assert not torch.equal(views[0, 0], views[0, 1])


def track(person, rig, noise=1e-3):
    """The person as a tracker reports it: never exactly at rest, and the head wanders about."""
    count, params = len(person.views), person.view_params
    g = stream(7)
    poses = {
        name: getattr(params, name) + noise * torch.randn(count, 3, generator=g)
        for name in ("neck_pose", "jaw_pose", "leye_pose", "reye_pose")
    }
    expression = params.expression + noise * torch.randn(params.expression.shape, generator=g)
    roots = {
        "global_orient": 0.4 * torch.randn(count, 3, generator=g),
        "transl": 0.1 * torch.randn(count, 3, generator=g),
    }
    moved = dataclasses.replace(params, expression=expression, **poses, **roots)
    root = rig.joint_motion(moved).transforms[:, 0]
    root = torch.cat([root, torch.tensor([0.0, 0, 0, 1]).expand(count, 1, 4)], dim=1)
    viewmats = person.view_cameras.viewmats @ torch.linalg.inv(root)
    cameras = dataclasses.replace(person.view_cameras, viewmats=viewmats)
    return dataclasses.replace(person, view_params=moved, view_cameras=cameras)


def test_tracked_people_are_drawn_as_those_at_rest(person, people, rest_views):
    """Trackers never say zero, and their cameras are where the room is, not the head."""
    tracked = track(person, people.rig)
    assert not (tracked.view_params.expression == 0).any()
    assert rest_views.choose(tracked, 2).tolist() == [0, 2, 4]
    views, viewmats = rest_views.draw(person, 3, stream())
    found, found_viewmats = rest_views.draw(tracked, 3, stream())
    assert torch.equal(found, views)
    torch.testing.assert_close(found_viewmats, viewmats, atol=1e-5, rtol=0)


def test_where_nobody_rests_the_quietest_views_are_drawn(person, people, rest_views):
    params = people.rig.neutral(len(person.views))
    strengths = torch.tensor([0.8, 0.3, 0.5, 0.2, 0.9, 0.4])
    jaw = strengths[:, None] * torch.tensor([0.1, 0.0, 0.0])
    loud = dataclasses.replace(person, view_params=dataclasses.replace(params, jaw_pose=jaw))
    assert rest_views.movements(loud.view_params).min() > REST
    assert rest_views.choose(loud, 2).tolist() == [1, 3]
    views, _ = rest_views.draw(loud, 8, stream())
    assert views.shape[1] == 8


def test_movements_are_about_those_of_the_vertices(people, rest_views):
    rig, g = people.rig, stream(3)
    neutral = rig.neutral(4)
    params = dataclasses.replace(
        neutral,
        expression=0.5 * torch.randn(neutral.expression.shape, generator=g),
        jaw_pose=torch.tensor([[0.3, 0, 0], [0, 0, 0], [0.1, 0, 0], [0, 0, 0]]),
        neck_pose=torch.tensor([[0, 0, 0], [0, 0.4, 0], [0, 0, 0], [0, 0, 0]]),
        transl=torch.randn(4, 3, generator=g),
    )
    moved = rig(dataclasses.replace(params, transl=neutral.transl)) - rig(neutral)
    expected = 1000 * moved.square().sum(-1).mean(-1).sqrt()
    found = rest_views.movements(params)
    assert ((found / expected - 1).abs() < 0.5).all(), (found, expected)


def test_each_view_follows_its_own_tokens_and_camera():
    network = ViewSynthesis(32, 2)
    tokens = torch.randn(2, 5, 32, generator=stream(1))
    viewmats = torch.randn(2, 3, 4, 4, generator=stream(2))
    whole = network(tokens, viewmats)
    assert whole.shape == (2, 3, 4, VIEW_SIZE, VIEW_SIZE)
    alone = network(tokens[1:], viewmats[1:, 2:])
    torch.testing.assert_close(whole[1:, 2:], alone, atol=1e-5, rtol=0)


def test_patches_lie_where_they_belong():
    """A head that says which patch it draws: the picture shows the patches row by row."""
    network = ViewSynthesis(64, 2)
    for block in (*network.cross_blocks, *network.self_blocks):
        torch.nn.init.zeros_(block.attention.o_proj.weight)
        torch.nn.init.zeros_(block.mlp[2].weight)
        torch.nn.init.zeros_(block.mlp[2].bias)
        torch.nn.init.zeros_(block.attention.o_proj.bias)
    torch.nn.init.zeros_(network.camera_mlp[2].weight)
    torch.nn.init.zeros_(network.camera_mlp[2].bias)
    network.norm = torch.nn.Identity()
    with torch.no_grad():
        network.embed_places.copy_(torch.eye(64))
        network.head.weight.copy_(torch.arange(64.0).expand(len(network.head.weight), -1))
        network.head.bias.zero_()
    image = network(torch.zeros(1, 2, 64), torch.zeros(1, 1, 4, 4))[0, 0, 0]
    expected = torch.arange(64.0).view(8, 8).repeat_interleave(7, 0).repeat_interleave(7, 1)
    assert torch.equal(image, expected)


def test_it_learns_to_tell_cameras_apart(person, rest_views):
    torch.manual_seed(0)
    network, tokens = ViewSynthesis(64, 4), torch.nn.Parameter(torch.randn(1, 4, 64))
    views, viewmats = rest_views.draw(person, 3, stream())
    optimizer = torch.optim.Adam([*network.parameters(), tokens], lr=3e-3)
    for _ in range(350):
        loss = (network(tokens, viewmats) - views).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    blind = (views - views.median(1, keepdim=True).values).abs().mean()
    assert loss < 0.8 * blind
