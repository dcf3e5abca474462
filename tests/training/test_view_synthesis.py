# SPDX-License-Identifier: Apache-2.0
"""The pretext task of the image encoder."""

import pytest
import torch

from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.view_synthesis import (
    VIEW_SIZE,
    ViewSynthesis,
    draw_views,
    views_at_rest,
)


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    config = SyntheticDatasetConfig(
        num_train=1, num_test=0, num_skin_points=40, hair_budget=20, num_views=6, image_size=112
    )
    build_synthetic_dataset(folder, config, show_progress=False)
    return load_people(folder, "train").persons[0]


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def test_views_at_rest_are_those_without_motion(person):
    assert views_at_rest(person).tolist() == [0, 2, 4]  # take_views moves every other one
    moving = person.view_params[torch.tensor([1, 3, 5])]
    assert (moving.poses.abs().sum((1, 2)) + moving.expression.abs().sum(1) > 0).all()


def test_drawn_views_are_premultiplied_and_belong_to_their_cameras(person):
    views, viewmats = draw_views(person, 3, stream())
    assert views.shape == (1, 3, 4, VIEW_SIZE, VIEW_SIZE)
    assert (views[:, :, :3] <= views[:, :, 3:] + 1e-6).all()
    for view, viewmat in zip(views[0], viewmats[0], strict=True):
        same = (person.view_cameras.viewmats == viewmat).flatten(1).all(1)
        original = person.views[same][0].float() / 255
        # 112 to 56 pixels: the mean of two by two.
        alpha = original[..., 3].unflatten(0, (-1, 2)).unflatten(2, (-1, 2)).mean((1, 3))
        assert torch.allclose(view[3], alpha, atol=1e-6)


def test_too_few_views_repeat(person):
    views, _ = draw_views(person, 5, stream())
    assert torch.equal(views[0, 0], views[0, 3])
    assert not torch.equal(views[0, 0], views[0, 1])


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


def test_it_learns_to_tell_cameras_apart(person):
    torch.manual_seed(0)
    network, tokens = ViewSynthesis(64, 4), torch.nn.Parameter(torch.randn(1, 4, 64))
    views, viewmats = draw_views(person, 3, stream())
    optimizer = torch.optim.Adam([*network.parameters(), tokens], lr=3e-3)
    for _ in range(350):
        loss = (network(tokens, viewmats) - views).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    blind = (views - views.median(1, keepdim=True).values).abs().mean()
    assert loss < 0.8 * blind
