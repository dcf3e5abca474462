# SPDX-License-Identifier: Apache-2.0
"""Guidance as the pipeline and its folders carry it."""

import json

import pytest
import torch

from pointillist_hf import AvatarPipeline
from pointillist_hf.decoding.generation import generate_points

PLAIN = {"detect_face": False, "remove_background": False}
SCALE = 2000.0  # without training, portraits hardly matter


@pytest.fixture(scope="module")
def guided(tiny_pipeline):
    return AvatarPipeline(**tiny_pipeline.components, max_points=4, guidance_scale=SCALE)


def test_the_pipeline_hides_the_portrait_from_the_second_stream(tiny_pipeline, portrait):
    with torch.no_grad():
        _, context, _ = tiny_pipeline.encode_image([portrait], **PLAIN)
        hidden = tiny_pipeline.conditioner.hide_portraits(context)
    options = {"max_points": 4, "seeds": [1, 2], "num_return_sequences": 2}
    options |= {"guidance_scale": SCALE, "unconditional_states": hidden}
    expected = generate_points(tiny_pipeline.point_generator, context, **options)
    options = {"seed": 1, "max_points": 4, "num_return_sequences": 2, **PLAIN}
    found = tiny_pipeline(portrait, guidance_scale=SCALE, **options)
    assert torch.equal(found.input_ids, expected.input_ids)
    plain = tiny_pipeline(portrait, **options)
    assert not torch.equal(found.input_ids, plain.input_ids)
    assert torch.equal(
        tiny_pipeline(portrait, guidance_scale=1, **options).input_ids, plain.input_ids
    )


def test_the_scale_is_saved(guided, tiny_pipeline, portrait, tmp_path):
    guided.save_pretrained(tmp_path)
    loaded = AvatarPipeline.from_pretrained(tmp_path)
    assert loaded.config.guidance_scale == SCALE
    expected = tiny_pipeline(portrait, seed=3, max_points=4, guidance_scale=SCALE, **PLAIN)
    assert torch.equal(loaded(portrait, seed=3, **PLAIN).input_ids, expected.input_ids)
    # Folders from before there was guidance.
    index = tmp_path / "model_index.json"
    values = json.loads(index.read_text())
    del values["guidance_scale"]
    index.write_text(json.dumps(values))
    assert AvatarPipeline.from_pretrained(tmp_path).config.guidance_scale == 1


@pytest.mark.parametrize("scale", [-1.0, float("nan"), "2", True])
def test_a_scale_that_cannot_be_is_refused(tiny_pipeline, scale):
    with pytest.raises(ValueError, match="`guidance_scale` must be a finite number"):
        AvatarPipeline(**tiny_pipeline.components, guidance_scale=scale)
