# SPDX-License-Identifier: Apache-2.0
"""One portrait in, one avatar out."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

from pointillist_hf import (
    AvatarConditioner,
    AvatarPipeline,
    GaussianDecoder,
    PointGeneratorConfig,
    PointGeneratorForCausalLM,
    PointTokenizer,
    RigRegressor,
)
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.models.modeling_point_generator import PointGeneratorModel
from pointillist_hf.rigs.alignment import align_to_shape
from pointillist_hf.rigs.template_points import build_template_points
from pointillist_hf.training import recipes

PLAIN = {"detect_face": False, "remove_background": False}
STEPS = [
    "track_portraits",
    "encode_image",
    "generate_tokens",
    "decode_points",
    "decode_gaussians",
    "refine",
]
FIELDS = ("means", "quats", "scales", "opacities", "colors")


def same_avatar(first, second):
    return (
        len(first) == len(second)
        and all(
            torch.equal(getattr(first.gaussians, n), getattr(second.gaussians, n)) for n in FIELDS
        )
        and torch.equal(first.bindings, second.bindings)
        and torch.equal(first.betas, second.betas)
    )


@pytest.fixture(scope="module")
def folder(tiny_pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline.save_pretrained(path)
    return path


def without_regressor(pipeline):
    components = {**pipeline.components, "rig_regressor": None}
    return AvatarPipeline(**components, max_points=6)


def test_a_portrait_becomes_an_avatar(tiny_pipeline, portrait):
    output = tiny_pipeline(portrait, seed=0, **PLAIN)
    avatar, points = output.avatar, output.points
    assert 1 <= len(avatar) == len(points) <= 6
    assert output.input_ids.shape == (1, 4 * (len(points) + 2))
    assert len(output.rig_params) == 1
    assert torch.equal(avatar.betas, output.rig_params.betas[0])
    assert torch.equal(avatar.bindings, points.bindings)
    decoded = tiny_pipeline.tokenizer.decode_points(output.input_ids[0])
    assert torch.equal(decoded.means, points.means)
    limit = tiny_pipeline.gaussian_decoder.config.max_offset + 1e-6
    assert (avatar.gaussians.means - points.means).abs().max() <= limit
    image = avatar.animate(avatar.rig_params(jaw_pose=[0.2, 0, 0])).render(
        orbit_cameras([0.0], width=16, height=16)
    )
    assert torch.isfinite(image).all()


def test_timings_are_those_of_the_steps(tiny_pipeline, portrait):
    timings = tiny_pipeline(portrait, **PLAIN).timings
    assert list(timings) == STEPS
    assert all(seconds > 0 for seconds in timings.values())


def test_the_seed_decides(tiny_pipeline, portrait):
    torch.manual_seed(1)
    first = tiny_pipeline(portrait, seed=3, **PLAIN)
    torch.manual_seed(2)
    second = tiny_pipeline(portrait, seed=3, **PLAIN)
    other = tiny_pipeline(portrait, seed=4, **PLAIN)
    assert torch.equal(first.input_ids, second.input_ids)
    assert same_avatar(first.avatar, second.avatar)
    assert not same_avatar(first.avatar, other.avatar)


def test_the_steps_by_hand_equal_the_call(tiny_pipeline, portrait):
    called = tiny_pipeline(portrait, seed=5, max_points=4, grammar="full", **PLAIN)
    with torch.no_grad():
        seeds = tiny_pipeline.check_inputs([portrait], None, 5)
        rig_params, context, _ = tiny_pipeline.encode_image([portrait], **PLAIN)
        generated = tiny_pipeline.generate_tokens(
            context, seeds=seeds, grammar="full", max_points=4, temperature=1.0, min_p=0.05
        )
        clouds = tiny_pipeline.decode_points(generated.input_ids)
        (gaussians,) = tiny_pipeline.decode_gaussians(
            clouds, generated.token_hidden_states, context
        )
    assert seeds == [5]
    assert torch.equal(generated.input_ids, called.input_ids)
    assert torch.equal(rig_params.betas, called.rig_params.betas)
    assert torch.equal(clouds[0].means, called.points.means)
    for name in FIELDS:
        assert torch.equal(getattr(gaussians, name), getattr(called.avatar.gaussians, name))


def test_clouds_can_be_laid_onto_the_tracked_heads(tiny_pipeline, portrait, tmp_path):
    aligning = AvatarPipeline(**tiny_pipeline.components, max_points=6, align_points=True)
    own = tiny_pipeline.rig.neutral(betas=torch.ones(2, tiny_pipeline.rig.num_betas))
    plain, aligned = (
        p([portrait, portrait], rig_params=own, seed=[1, 2], **PLAIN)
        for p in (tiny_pipeline, aligning)
    )
    assert torch.equal(plain.input_ids, aligned.input_ids)
    for before, after in zip(plain.clouds, aligned.clouds, strict=True):
        expected = align_to_shape(before, tiny_pipeline.rig, own.betas[0])
        assert torch.equal(after.means, expected.means)
        assert not torch.equal(after.means, before.means)
    by_hand = aligning.decode_points(plain.input_ids, own)
    assert torch.equal(by_hand[1].means, aligned.clouds[1].means)
    aligning.save_pretrained(tmp_path)
    assert AvatarPipeline.from_pretrained(tmp_path).config.align_points


def test_lists_make_batches(tiny_pipeline, portrait):
    mirrored = portrait.transpose(0)
    both = tiny_pipeline([portrait, mirrored], seed=[3, 4], **PLAIN)
    assert len(both.avatars) == len(both.clouds) == len(both.input_ids) == 2
    assert len(both.rig_params) == 2
    for row, (image, seed) in enumerate([(portrait, 3), (mirrored, 4)]):
        alone = tiny_pipeline(image, seed=seed, **PLAIN)
        assert torch.equal(both.clouds[row].means, alone.points.means)
        for name in FIELDS:
            found = getattr(both.avatars[row].gaussians, name)
            expected = getattr(alone.avatar.gaussians, name)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_one_seed_serves_all_portraits(tiny_pipeline, portrait):
    both = tiny_pipeline([portrait, portrait], seed=3, **PLAIN)
    assert torch.equal(both.clouds[0].means, both.clouds[1].means)


def test_own_tracking_replaces_the_regressor(tiny_pipeline, portrait):
    betas = torch.randn(1, tiny_pipeline.rig.num_betas)
    own = tiny_pipeline.rig.neutral(betas=betas)
    output = tiny_pipeline(portrait, rig_params=own, **PLAIN)
    assert torch.equal(output.avatar.betas, betas[0])
    pipeline = without_regressor(tiny_pipeline)
    assert same_avatar(pipeline(portrait, rig_params=own, **PLAIN).avatar, output.avatar)
    # Only the shape is looked at: the conditioning head is canonical.
    smiling = replace(own, expression=pipeline.rig.expression({"mouthSmile": 1.0}))
    assert same_avatar(pipeline(portrait, rig_params=smiling, **PLAIN).avatar, output.avatar)


def test_somebody_has_to_track_the_portrait(tiny_pipeline, portrait):
    with pytest.raises(ValueError, match=r"`rig_params` must be given: .* no `rig_regressor`"):
        without_regressor(tiny_pipeline)(portrait, **PLAIN)


def test_wrong_numbers_of_seeds_are_refused(tiny_pipeline, portrait):
    with pytest.raises(
        ValueError, match="`seed` must be one number or one per portrait, got 3 for 2"
    ):
        tiny_pipeline([portrait, portrait], seed=[1, 2, 3], **PLAIN)


def test_wrong_numbers_of_frames_are_refused(tiny_pipeline, portrait):
    with pytest.raises(
        ValueError, match="`rig_params` must hold one frame per portrait, got 2 for 1"
    ):
        tiny_pipeline(portrait, rig_params=tiny_pipeline.rig.neutral(2), **PLAIN)


def test_parameters_of_another_rig_are_refused(tiny_pipeline, portrait):
    params = replace(tiny_pipeline.rig.neutral(), betas=torch.zeros(1, 300))
    with pytest.raises(ValueError, match="`betas` must have 53 coefficients"):
        tiny_pipeline(portrait, rig_params=params, **PLAIN)


def test_empty_lists_are_refused(tiny_pipeline):
    with pytest.raises(ValueError, match="`image` must hold at least one portrait"):
        tiny_pipeline([], **PLAIN)


def test_max_points_bounds_the_cloud(tiny_pipeline, portrait):
    assert len(tiny_pipeline(portrait, max_points=1, **PLAIN).avatar) == 1


def test_save_and_load(tiny_pipeline, folder, portrait):
    loaded = AvatarPipeline.from_pretrained(folder)
    assert dict(loaded.config)["max_points"] == 6
    first, second = (p(portrait, seed=2, **PLAIN) for p in (tiny_pipeline, loaded))
    assert torch.equal(first.input_ids, second.input_ids)
    for name in FIELDS:
        found, expected = (getattr(o.avatar.gaussians, name) for o in (second, first))
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_pipelines_without_regressor_save_and_load(tiny_pipeline, tmp_path, portrait):
    without_regressor(tiny_pipeline).save_pretrained(tmp_path)
    loaded = AvatarPipeline.from_pretrained(tmp_path)
    assert loaded.rig_regressor is None
    own = tiny_pipeline.rig.neutral()
    output = loaded(portrait, rig_params=own, **PLAIN)
    expected = tiny_pipeline(portrait, rig_params=own, **PLAIN)
    assert torch.equal(output.input_ids, expected.input_ids)


def test_parts_can_be_swapped_while_loading(folder, tiny_rig, tiny_decoder):
    loaded = AvatarPipeline.from_pretrained(folder, rig=tiny_rig, gaussian_decoder=tiny_decoder)
    assert loaded.rig is tiny_rig
    assert loaded.gaussian_decoder is tiny_decoder


def test_a_pipeline_of_the_parts_of_another(tiny_pipeline, folder, tiny_decoder):
    loaded = AvatarPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)
    own = deepcopy(tiny_decoder)
    again = AvatarPipeline.from_pipe(loaded, max_points=3, gaussian_decoder=own)
    assert again.rig is loaded.rig
    assert again.point_generator is loaded.point_generator
    assert again.point_generator.dtype == torch.bfloat16
    assert again.gaussian_decoder is own
    assert (again.config.max_points, loaded.config.max_points) == (3, 6)


def test_variants_are_saved_and_loaded(tiny_pipeline, tmp_path, portrait):
    tiny_pipeline.save_pretrained(tmp_path, variant="bf16")
    loaded = AvatarPipeline.from_pretrained(tmp_path, variant="bf16", device_map="cpu")
    first, second = (p(portrait, seed=2, **PLAIN) for p in (tiny_pipeline, loaded))
    assert torch.equal(first.input_ids, second.input_ids)


def test_half_precision_networks_make_float32_avatars(folder, portrait):
    loaded = AvatarPipeline.from_pretrained(folder, dtype=torch.bfloat16)
    assert loaded.point_generator.dtype == torch.bfloat16
    assert loaded.rig.v_template.dtype == torch.float32
    avatar = loaded(portrait, **PLAIN).avatar
    for name in FIELDS:
        assert getattr(avatar.gaussians, name).dtype == torch.float32
        assert torch.isfinite(getattr(avatar.gaussians, name)).all()
    assert avatar.betas.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("conditioner", AvatarConditioner),
        ("gaussian_decoder", GaussianDecoder),
        ("rig_regressor", RigRegressor),
        ("point_generator", PointGeneratorModel),
    ],
)
def test_auto_model_knows_the_parts(tiny_pipeline, folder, name, kind):
    model = AutoModel.from_pretrained(folder / name)
    assert type(model) is kind
    own = getattr(tiny_pipeline, name)
    expected = (own.model if name == "point_generator" else own).state_dict()
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_auto_classes_know_generator_and_tokenizer(tiny_pipeline, folder):
    config = AutoConfig.from_pretrained(folder / "point_generator")
    assert type(config) is PointGeneratorConfig
    assert config.layout == tiny_pipeline.tokenizer.layout
    generator = AutoModelForCausalLM.from_pretrained(folder / "point_generator")
    assert type(generator) is PointGeneratorForCausalLM
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    assert type(tokenizer) is PointTokenizer
    assert tokenizer.layout == tiny_pipeline.tokenizer.layout
    assert tokenizer.cube_center == tiny_pipeline.tokenizer.cube_center


def test_a_decoder_of_the_template_gets_the_vertices_of_the_head(tiny_pipeline, portrait):
    parts = (tiny_pipeline.tokenizer, tiny_pipeline.point_generator.config)
    config = recipes.build_decoder_config("nano", *parts, inputs="template")
    decoder = GaussianDecoder(config).eval()
    pipe = AvatarPipeline.from_pipe(tiny_pipeline, gaussian_decoder=decoder)
    out = pipe(portrait, seed=0)
    points = build_template_points(pipe.rig, out.rig_params.betas[0])
    assert torch.equal(out.points.means, points.means)
    assert torch.equal(out.avatar.bindings, points.bindings)
    assert len(out.avatar.gaussians) == len(points) > 1000
    with pytest.raises(ValueError, match="`rig_params` must be given: the points of this decoder"):
        pipe.decode_points(out.input_ids)
