# SPDX-License-Identifier: Apache-2.0
"""A generator that reads the tracked head, as the pipeline and its folders carry it."""

import pytest
import torch

from pointillist_hf import AvatarPipeline, PointGeneratorForCausalLM
from pointillist_hf.first_use import warm_up
from pointillist_hf.training import recipes

PLAIN = {"detect_face": False, "remove_background": False}


@pytest.fixture(scope="module")
def pipe(anchored_parts):
    return AvatarPipeline(**anchored_parts, max_points=4)


def test_the_pipeline_passes_the_head(pipe, portrait):
    out = pipe(portrait, seed=1, **PLAIN)
    assert len(out.points) <= 4
    with torch.no_grad():
        rig_params, context, layouts = pipe.encode_image([portrait], **PLAIN)
        again = pipe.generate_tokens(context, rig_params, layouts, seeds=[1])
        heads = [pipe.rig.neutral(betas=rig_params.betas + shift) for shift in (0.0, 3.0)]
        states = [
            pipe.generate_tokens(
                context, head, layouts, seeds=[1], temperature=0
            ).token_hidden_states
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


def test_a_generator_of_another_cube_is_refused(anchored_parts):
    config = recipes.build_generator_config("nano-anchored", anchored_parts["tokenizer"])
    config.cube_half_extent = 0.3
    other = PointGeneratorForCausalLM(config)
    with pytest.raises(ValueError, match=r"point_generator.config.cube_half_extent"):
        AvatarPipeline(**{**anchored_parts, "point_generator": other})


def test_the_first_use_needs_no_portrait(pipe):
    assert warm_up(pipe) > 0
