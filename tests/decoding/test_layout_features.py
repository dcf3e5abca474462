# SPDX-License-Identifier: Apache-2.0
"""What faces are told of a layout, and generators that listen."""

import pytest
import torch
from engine_agreement import count_ties, each_engine
from huggingface_hub.errors import StrictDataclassError
from tiny_generators import build_anchored, build_config, random_heads

from pointillist_hf import PointGeneratorForCausalLM
from pointillist_hf.decoding.generation import generate_points
from pointillist_hf.models.layout_features import UNKNOWN, append_layouts, hide_layouts

HEIGHTS = [0.0, 0.1]
SIZE = 4


@pytest.fixture(scope="module")
def model():
    return build_anchored(layout_heights=HEIGHTS)


@pytest.fixture
def layouts():
    return torch.poisson(torch.full((3, SIZE, SIZE**2), 4.0))


@pytest.fixture
def told(model, layouts):
    return append_layouts(random_heads(3), layouts, model.config)


def between_cells(layout, place, config):
    """The logarithms of the eight cells about a place, each by how near it is; a loop."""
    logs = layout.log1p().reshape(SIZE, SIZE, SIZE).double()  # y, z, x
    at = [
        ((p - c) / config.cube_half_extent + 1) / 2 * SIZE - 0.5
        for p, c in zip(place, config.cube_center, strict=True)
    ]
    x, y, z = (min(max(value, 0.0), SIZE - 1) for value in at)
    total = 0.0
    for j in range(SIZE):
        for k in range(SIZE):
            for i in range(SIZE):
                weight = max(0, 1 - abs(y - j)) * max(0, 1 - abs(z - k)) * max(0, 1 - abs(x - i))
                total += weight * float(logs[j, k, i])
    return total


def test_a_loop_finds_the_same_between_cells(model, layouts, told):
    for row in range(3):
        for face in (0, 7, 19):
            center, normal = told[row, face, :3], told[row, face, 3:6]
            for column, height in enumerate(HEIGHTS):
                place = (center + height * normal).tolist()
                expected = between_cells(layouts[row], place, model.config)
                assert abs(float(told[row, face, 6 + column]) - expected) < 1e-5


def test_who_knows_nothing_says_so(model, told):
    heads = told[..., :6]
    nothing = append_layouts(heads, None, model.config)
    assert torch.equal(nothing[..., 6:], torch.full((3, 20, 2), UNKNOWN))
    assert torch.equal(hide_layouts(told), nothing)
    assert torch.equal(append_layouts(heads, None, build_config()), heads)
    assert torch.equal(hide_layouts(heads), heads)


@pytest.mark.parametrize("scale", [1.0, 1.5])
@pytest.mark.parametrize("grammar", ["types", "every_face"])
def test_engines_draw_the_same_tokens(model, context, told, grammar, scale):
    options = {"max_points": 30, "grammar": grammar, "face_anchors": told}
    if scale != 1:
        options |= {"guidance_scale": scale, "unconditional_states": torch.randn_like(context)}
    assert count_ties(model, context, [1, 2, 3], **options) == 0


@each_engine
def test_layouts_matter(model, context, told, engine):
    options = {"min_points": 5, "max_points": 5, "temperature": 0.0, "engine": engine}
    states = [
        generate_points(model, context, face_anchors=heads, **options).token_hidden_states
        for heads in (told, hide_layouts(told))
    ]
    assert not torch.allclose(*states, atol=1e-3)


def test_a_scale_of_zero_is_the_head_alone(model, context, told):
    options = {"max_points": 9, "grammar": "every_face"}
    hidden = torch.randn_like(context)
    blind = {"guidance_scale": 0.0, "unconditional_states": hidden}
    found = generate_points(model, context, face_anchors=told, **options, **blind)
    alone = generate_points(model, hidden, face_anchors=hide_layouts(told), **options)
    assert torch.equal(found.input_ids, alone.input_ids)


def test_saved_and_loaded_it_listens_as_before(model, context, told, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = PointGeneratorForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.config.layout_heights == HEIGHTS
    options = {"max_points": 9, "face_anchors": told}
    assert torch.equal(
        generate_points(loaded, context, **options).input_ids,
        generate_points(model, context, **options).input_ids,
    )


def test_heads_without_layouts_are_refused(model, context, told):
    heads = told[..., :6]
    with pytest.raises(ValueError, match=r"`face_anchors` must have shape \(3, 20, 8\)"):
        generate_points(model, context, max_points=3, face_anchors=heads)
    ids = torch.full((3, 4), model.config.bos_token_id)
    with pytest.raises(ValueError, match=r"\(B, 20, 8\).*got \(3, 20, 6\).*`append_layouts`"):
        model(ids, context, face_anchors=heads)


@pytest.mark.parametrize("heights", [[], [float("nan")], [9.0], [0.0] * 65])
def test_heights_that_cannot_be_are_refused(heights):
    with pytest.raises(StrictDataclassError, match="`layout_heights` must be"):
        build_anchored(layout_heights=heights)


def test_free_bindings_are_told_nothing():
    with pytest.raises(
        StrictDataclassError, match="`layout_heights` must be None with `binding_head"
    ):
        build_config(layout_heights=HEIGHTS)
