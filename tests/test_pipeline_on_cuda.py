# SPDX-License-Identifier: Apache-2.0
"""Pipeline, completion, dressing and refinement on a device that is not the CPU."""

import copy

import pytest
import torch
from pretend_cuda import PretendCuda, install_gsplat

from pointillist_hf.avatar import Avatar
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.models.modeling_gaussian_decoder import GaussianDecoder
from pointillist_hf.refinement import dressing
from pointillist_hf.refinement.avatar_refinement import refine_avatar
from pointillist_hf.refinement.completion import complete_points
from pointillist_hf.refinement.dressing import dress_points
from pointillist_hf.rendering import rasterize
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.device_moves import move
from pointillist_hf.training.lessons import view_portrait
from pointillist_hf.training.recipes import build_projected_decoder_config


@pytest.fixture(autouse=True)
def gsplat(monkeypatch):
    install_gsplat(monkeypatch)


@pytest.fixture(scope="module")
def sitter(tmp_path_factory):
    """A person, the view of a portrait, and the rig."""
    config = SyntheticDatasetConfig(
        num_train=1, num_test=0, num_bins=64, num_skin_points=60, hair_budget=20, num_portraits=1,
        num_views=1, image_size=64, num_rig_points=8, use_one_light=True,
    )  # fmt: skip
    place = tmp_path_factory.mktemp("sitter") / "people"
    people = load_people(build_synthetic_dataset(place, config, show_progress=False), "train")
    person = people.persons[0]
    return people, person, view_portrait(person, 0, people.rig)


def make_avatar(sitter, device):
    """Completed, dressed by a decoder that looks at the photograph, and refined."""
    people, person, view = sitter
    rig = copy.deepcopy(people.rig).to(device)
    torch.manual_seed(0)
    decoder = GaussianDecoder(build_projected_decoder_config(people.tokenizer)).to(device)
    points = people.tokenizer.decode_points(person.input_ids.to(device))
    cloud = complete_points(points, view, rig, density=0.1)
    plain = dress_points(cloud, view, rig)
    gaussians = dress_points(cloud, view, rig, decoder)
    avatar = Avatar(gaussians, cloud.bindings, rig, person.betas.to(device))
    refined = refine_avatar(avatar, [view], num_steps=2, show_progress=False)
    picture = refined.animate(person.view_params).render(person.view_cameras)
    return cloud, plain, gaussians, refined.gaussians, picture


@pytest.fixture(scope="module")
def made(sitter):
    return make_avatar(sitter, "cpu")


def test_a_photograph_is_carried_over_on_the_device(sitter, made):
    with PretendCuda():
        found = make_avatar(sitter, "cuda")
        for record in found[:-1]:
            assert record.means.is_cuda
        assert found[-1].is_cuda
        here = [record.to("cpu") for record in found]
    for record, expected in zip(here[:-1], made[:-1], strict=True):
        for name, value in vars(expected).items():
            torch.testing.assert_close(getattr(record, name), value, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(here[-1], made[-1], atol=5e-3, rtol=0)


def test_a_picture_that_comes_back_too_early_is_found(sitter, monkeypatch):
    """A planted fault: sights for a decoder on the device that stay on the CPU."""
    decode = dressing.decode_points
    monkeypatch.setattr(
        dressing, "decode_points", lambda net, cloud, sights: decode(net, cloud, sights.to("cpu"))
    )
    with PretendCuda(), pytest.raises(RuntimeError, match="found at least two devices"):
        make_avatar(sitter, "cuda")


def test_the_pipeline_makes_the_same_avatar_on_the_device(tiny_pipeline, portrait):
    def make(device):
        pipe = copy.deepcopy(tiny_pipeline).to(device)
        pipe.set_progress_bar_config(disable=True)
        out = pipe(portrait, seed=3, engine="reference")
        pictures = out.avatar.animate(out.rig_params[:1]).render(orbit_cameras([0.0], width=48))
        return out.input_ids, out.avatar.gaussians, pictures

    expected = make("cpu")
    with PretendCuda():
        found = make("cuda")
        assert found[1].means.is_cuda
        assert found[2].is_cuda
        ids, gaussians, pictures = move(found, torch.device("cpu"))
    assert torch.equal(ids, expected[0])
    torch.testing.assert_close(gaussians.means, expected[1].means, atol=1e-5, rtol=0)
    torch.testing.assert_close(pictures, expected[2], atol=1e-3, rtol=0)


def test_the_renderer_takes_nothing_of_the_cpu(tiny_gaussians):
    with PretendCuda():
        there, cameras = tiny_gaussians.to("cuda"), orbit_cameras([0.0], width=32, height=32)
        with pytest.raises(ValueError, match=r"`cameras.viewmats` is on cpu and"):
            rasterize(there, cameras)
        colors, _ = rasterize(there, cameras.to("cuda"))
        assert colors.is_cuda
        assert torch.equal(colors.cpu(), rasterize(tiny_gaussians, cameras)[0])
