# SPDX-License-Identifier: Apache-2.0
"""A generator that reads the tracked head, as the pipeline and its folders carry it."""

import pytest
import torch

from pointillist_hf import AvatarPipeline, PointGeneratorForCausalLM, PointTokenizer
from pointillist_hf.first_use import warm_up
from pointillist_hf.training import recipes

PLAIN = {"detect_face": False, "remove_background": False}


def build_tokenizer(tokenizer):
    """The same cube and bins, face by face."""
    return PointTokenizer(
        num_bins=tokenizer.num_bins,
        num_faces=tokenizer.num_faces,
        token_order="byzx",
        cube_center=tokenizer.cube_center,
        cube_half_extent=tokenizer.cube_half_extent,
    )


@pytest.fixture(scope="module")
def components(tiny_pipeline):
    torch.manual_seed(0)
    tokenizer = build_tokenizer(tiny_pipeline.tokenizer)
    config = recipes.build_generator_config("nano-anchored", tokenizer)
    generator = PointGeneratorForCausalLM(config).eval()
    return {**tiny_pipeline.components, "tokenizer": tokenizer, "point_generator": generator}


@pytest.fixture(scope="module")
def pipe(components):
    return AvatarPipeline(**components, max_points=4)


def test_the_pipeline_passes_the_head(pipe, portrait):
    out = pipe(portrait, seed=1, **PLAIN)
    assert len(out.points) <= 4
    with torch.no_grad():
        rig_params, context = pipe.encode_image([portrait], **PLAIN)
        again = pipe.generate_tokens(context, rig_params, seeds=[1])
        heads = [pipe.rig.neutral(betas=rig_params.betas + shift) for shift in (0.0, 3.0)]
        states = [
            pipe.generate_tokens(context, head, seeds=[1], temperature=0).token_hidden_states
            for head in heads
        ]
    assert torch.equal(again.input_ids, out.input_ids)
    assert not torch.equal(states[0][:, :1], states[1][:, :1])
    with pytest.raises(ValueError, match="`rig_params` must be given: the bindings"):
        pipe.generate_tokens(context, seeds=[1])


def test_a_saved_pipeline_writes_the_same_cloud(pipe, portrait, tmp_path):
    expected = pipe(portrait, seed=2, **PLAIN)
    pipe.save_pretrained(tmp_path)
    loaded = AvatarPipeline.from_pretrained(tmp_path)
    found = loaded(portrait, seed=2, **PLAIN)
    assert torch.equal(found.input_ids, expected.input_ids)
    assert torch.equal(found.avatar.gaussians.means, expected.avatar.gaussians.means)


def test_a_generator_of_another_cube_is_refused(components):
    config = recipes.build_generator_config("nano-anchored", components["tokenizer"])
    config.cube_half_extent = 0.3
    other = PointGeneratorForCausalLM(config)
    with pytest.raises(ValueError, match=r"point_generator.config.cube_half_extent"):
        AvatarPipeline(**{**components, "point_generator": other})


def test_the_first_use_needs_no_portrait(pipe):
    assert warm_up(pipe) > 0
