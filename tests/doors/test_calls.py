# SPDX-License-Identifier: Apache-2.0
"""What the calls of the library do with arguments that cannot be: one row each."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_generators import CONTEXT, HEADS, build_generator

from pointillist_hf.data.captures.synthetic import SyntheticCaptureConfig
from pointillist_hf.data.fitting.canonicalization import PointFilter
from pointillist_hf.data.fitting.config import FitConfig
from pointillist_hf.data.tokens.fit_row import TokenizeConfig
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig
from pointillist_hf.decoding.generation import generate_points
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.structures import Cameras, CanonicalPoints
from pointillist_hf.models.tokenization_points import PointTokenizer
from pointillist_hf.rendering import rasterize
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig
from pointillist_hf.training.loop import LoopConfig

NAN, INF, HUGE = float("nan"), float("inf"), 10**30
PLAIN = {"detect_face": False, "remove_background": False}

# settings -----------------------------------------------------------------------------------------

SETTINGS = [
    (LoopConfig, {"max_steps": 0}, "`max_steps` must be a whole number"),
    (LoopConfig, {"max_steps": 1.5}, "`max_steps` must be a whole number"),
    (LoopConfig, {"max_steps": HUGE}, "got a number of about 10"),
    (LoopConfig, {"batch_size": -1}, "`batch_size` must be a whole number"),
    (LoopConfig, {"batch_size": 2**40}, "`batch_size` must be a whole number"),
    (LoopConfig, {"save_steps": True}, "`save_steps` must be a whole number"),
    (LoopConfig, {"learning_rate": NAN}, "`learning_rate` must be a finite number"),
    (LoopConfig, {"learning_rate": INF}, "`learning_rate` must be a finite number"),
    (LoopConfig, {"learning_rate": 0.0}, "`learning_rate` must be a finite number, more than 0"),
    (LoopConfig, {"learning_rate": -1e-4}, "`learning_rate` must be a finite number"),
    (LoopConfig, {"learning_rate": "1e-4"}, "`learning_rate` must be a finite number"),
    (LoopConfig, {"weight_decay": NAN}, "`weight_decay` must be a finite number"),
    (LoopConfig, {"adam_beta2": 1.0}, "`adam_beta2` must lie in"),
    (LoopConfig, {"ema_decay": 1.0}, "`ema_decay` must lie in"),
    (LoopConfig, {"ema_decay": NAN}, "`ema_decay` must be a finite number"),
    (LoopConfig, {"max_grad_norm": 0}, "`max_grad_norm` must be a finite number, more than 0"),
    (LoopConfig, {"final_learning_rate": 2}, "`final_learning_rate`"),
    (LoopConfig, {"warmup_steps": -1}, "`warmup_steps` must be a whole number"),
    (LoopConfig, {"schedule": "linear"}, "`schedule` must be one of 'cosine', 'constant'"),
    (LoopConfig, {"mixed_precision": "fp8"}, "`mixed_precision` must be one of"),
    (LoopConfig, {"seed": -1}, "`seed` must be a whole number"),
    (LoopConfig, {"seed": 2**64}, "`seed` must be a whole number"),
    (LoopConfig, {"num_workers": -1}, "`num_workers` must be a whole number"),
    (FitConfig, {"num_steps": 0}, "`num_steps` must be a whole number"),
    (FitConfig, {"means_lr": NAN}, "`means_lr` must be a finite number"),
    (FitConfig, {"grad_threshold": INF}, "`grad_threshold` must be a finite number"),
    (FitConfig, {"max_points": HUGE}, "`max_points` must be a whole number"),
    (FitConfig, {"seed": 2**64}, "`seed` must be a whole number"),
    (FitConfig, {"min_extent": NAN}, "`min_extent` must be a finite number"),
    (TokenizeConfig, {"num_bins": 10**9}, "`num_bins` must be a whole number, 2 to 65536"),
    (TokenizeConfig, {"num_bins": 1}, "`num_bins` must be a whole number"),
    (TokenizeConfig, {"num_bins": "64"}, "`num_bins` must be a whole number"),
    (TokenizeConfig, {"image_size": 200_000}, "`image_size` must be a whole number"),
    (TokenizeConfig, {"token_order": "bxyz"}, "`token_order` must be"),
    (TokenizeConfig, {"min_opacity": NAN}, "`min_opacity` must be a finite number"),
    (TokenizeConfig, {"max_outside": 2}, "`max_outside` must be a finite number"),
    (TokenizeConfig, {"cube_half_extent": INF}, "`cube_half_extent` must be a finite number"),
    (TokenizeConfig, {"cube_half_extent": 0.0}, "`cube_half_extent` must be a finite number"),
    (TokenizeConfig, {"licence": ""}, "`licence` must be a name"),
    (TokenizeConfig, {"licence": "mit\ntags: [x]"}, "`licence` must be a name"),
    (TokenizeConfig, {"licence": " other"}, "`licence` must be a name"),
    (TokenizeConfig, {"licence": None}, "`licence` must be a name"),
    (TokenizeConfig, {"num_test": -1}, "`num_test` must be a whole number"),
    (PointFilter, {"min_opacity": -0.1}, "`min_opacity` must be a finite number"),
    (SyntheticDatasetConfig, {"num_train": 10**12}, "`num_train` must be a whole number"),
    (SyntheticDatasetConfig, {"resolution": "high"}, "`resolution` must be 'full' or 'low'"),
    (SyntheticDatasetConfig, {"num_bins": 0}, "`num_bins` must be a whole number"),
    (SyntheticDatasetConfig, {"seed": -1}, "`seed` must be a whole number"),
    (SyntheticDatasetConfig, {"image_size": 8}, "`image_size` must be a whole number"),
    (SyntheticCaptureConfig, {"resolution": "medium"}, "`resolution` must be 'full' or 'low'"),
    (SyntheticCaptureConfig, {"num_cameras": 21}, "`num_cameras` must be a whole number"),
    (SyntheticCaptureConfig, {"num_timesteps": 0}, "`num_timesteps` must be a whole number"),
    (SyntheticCaptureConfig, {"image_size": 10**6}, "`image_size` must be a whole number"),
    (SyntheticCaptureConfig, {"hair_density": NAN}, "`hair_density` must be a finite number"),
    (ProceduralHeadRig, {"resolution": ""}, "`resolution` must be 'full' or 'low'"),
    (PointTokenizer, {"num_bins": 10**9}, "`num_bins` must be a whole number"),
    (PointTokenizer, {"num_faces": 0}, "`num_faces` must be a whole number"),
    (PointTokenizer, {"cube_center": [0, NAN, 0]}, "`cube_center` must be a finite number"),
    (PointTokenizer, {"cube_center": [0, 0]}, "`cube_center` must be three numbers"),
    (PointTokenizer, {"cube_half_extent": INF}, "`cube_half_extent` must be a finite number"),
    (orbit_cameras, {"azimuths": [0.0], "width": 200_000}, "`width` must be a whole number"),
    (orbit_cameras, {"azimuths": [0.0], "width": 60_000, "height": 60_000}, "268435456 pixels"),
    (orbit_cameras, {"azimuths": [0.0], "height": 0}, "`height` must be a whole number"),
    (orbit_cameras, {"azimuths": [0.0], "height": 64.5}, "`height` must be a whole number"),
    (orbit_cameras, {"azimuths": [NAN]}, "`azimuths` must be a finite number"),
    (orbit_cameras, {"azimuths": [0.0], "fov": 180.0}, "`fov` must be a finite number"),
    (orbit_cameras, {"azimuths": [0.0], "fov": 0.0}, "`fov` must be a finite number"),
    (orbit_cameras, {"azimuths": [0.0], "distance": NAN}, "`distance` must be a finite number"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "values", "message"), SETTINGS)
def test_settings_that_cannot_be_are_refused(make, values, message):
    values = {"output_dir": "run", **values} if make is LoopConfig else values
    with pytest.raises(ValueError, match=message):
        make(**values)


# generation ---------------------------------------------------------------------------------------

OPTIONS = [
    ({"top_k": 1}, "`top_k` is no option .* `min_p`"),
    ({"top_p": 0.001}, "`top_p` is no option .* `min_p`"),
    ({"typical_p": 0.1}, "`typical_p` is no option"),
    ({"eta_cutoff": 0.9}, "`eta_cutoff` is no option"),
    ({"epsilon_cutoff": 0.9}, "`epsilon_cutoff` is no option"),
    ({"do_sample": False}, "`do_sample` is no option .* `temperature=0`"),
    ({"max_new_tokens": 40}, "`max_new_tokens` is no option .* `max_points`"),
    ({"max_length": 40}, "`max_length` is no option .* `max_points`"),
    ({"num_beams": 2}, "`num_beams` is no option .* `num_return_sequences`"),
    ({"repetition_penalty": 1.2}, "`repetition_penalty` is no option"),
    ({"logits_processor": []}, "`logits_processor` is no option"),
    ({"attention_mask": torch.ones(1, 4)}, "`attention_mask` is no option"),
    ({"pint": 3}, "`pint` is no option of the generation of points: further options are"),
    ({"temperature": NAN}, "`temperature` must be a finite number"),
    ({"temperature": -1}, "`temperature` must be a finite number"),
    ({"temperature": "hot"}, "`temperature` must be a finite number"),
    ({"min_p": NAN}, "`min_p` must be a finite number"),
    ({"min_p": 1.1}, "`min_p` must be a finite number"),
    ({"guidance_scale": NAN}, "`guidance_scale` must be a finite number"),
    ({"guidance_scale": -0.5}, "`guidance_scale` must be a finite number"),
    ({"guidance_scale": "much"}, "`guidance_scale` must be a finite number"),
    ({"num_candidates": 0}, "`num_candidates` must be a whole number"),
    ({"num_candidates": 1.5}, "`num_candidates` must be a whole number"),
    ({"num_candidates": 2}, "`num_candidates` must be 1 without `layouts`"),
    ({"max_points": 0}, "`max_points` must be a whole number"),
    ({"max_points": 10**30}, "`max_points` must be a whole number"),
    ({"max_points": 2.5}, "`max_points` must be a whole number"),
    ({"min_points": 9, "max_points": 6}, "`max_points` must be .* at least `min_points`"),
    ({"grammar": "none"}, "`grammar` must be"),
    ({"engine": "fast"}, "`engine` must be one of"),
]
SEEDS = [
    (-1, "`seed` must be a whole number"),
    (2**64, "`seed` must be a whole number"),
    (1.5, "`seed` must be a whole number"),
    ("1", "`seed` must be a"),
    (True, "`seed` must be a whole number"),
    (None, "`seed` must be a whole number"),
    ([1, 2], "got 2 for 1"),
    ([], "got 0 for 1"),
    ([-3], "`seed` must be a whole number"),
    (np.float32(2), "`seed` must be a whole number"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_options_of_the_call(tiny_pipeline, portrait, options, message):
    with pytest.raises(ValueError, match=message):
        tiny_pipeline(portrait, **PLAIN, **options)


@pytest.mark.parametrize(("seed", "message"), SEEDS)
def test_seeds_that_are_none(tiny_pipeline, portrait, seed, message):
    with pytest.raises(ValueError, match=message):
        tiny_pipeline(portrait, seed=seed, **PLAIN)


@pytest.mark.parametrize(
    "seed", [np.int64(7), np.uint8(7), torch.tensor(7), [7], (7,), np.array([7]), torch.tensor([7])]
)
def test_seeds_of_numpy_and_torch(tiny_pipeline, portrait, seed):
    expected = tiny_pipeline(portrait, seed=7, **PLAIN).input_ids
    assert torch.equal(tiny_pipeline(portrait, seed=seed, **PLAIN).input_ids, expected)


def test_the_largest_seed(tiny_pipeline, portrait):
    assert len(tiny_pipeline(portrait, seed=2**64 - 1, **PLAIN).avatar)


@pytest.mark.parametrize("count", [0, -1, 1.5, 10**12, True])
def test_numbers_of_clouds(tiny_pipeline, portrait, count):
    with pytest.raises(ValueError, match="`num_return_sequences` must be a whole number"):
        tiny_pipeline(portrait, num_return_sequences=count, **PLAIN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c * NAN, "`encoder_hidden_states` must be finite"),
        (lambda c: c[..., :-1], "`encoder_hidden_states` must have shape"),
        (lambda c: c[0], "`encoder_hidden_states` must have shape"),
        (lambda c: c[:, :0], "`encoder_hidden_states` must hold tokens"),
        (lambda c: c[:0], "`encoder_hidden_states` must hold tokens"),
    ],
)
def test_conditioning_that_cannot_be(tiny_generator, change, message):
    context = torch.randn(1, 5, tiny_generator.config.cross_attention_size)
    with pytest.raises(ValueError, match=message):
        generate_points(tiny_generator, change(context), max_points=3)


@pytest.mark.parametrize("head", ["flat", "depth"])
def test_without_a_cache_the_same_tokens_and_states(head):
    model, context = build_generator(**HEADS[head]), torch.randn(2, 5, CONTEXT)
    options = {"engine": "reference", "seeds": [3, 4], "max_points": 5, "min_points": 4}
    cached, whole = (
        generate_points(model, context, **options, **more) for more in ({}, {"use_cache": False})
    )
    assert torch.equal(cached.input_ids, whole.input_ids)
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(cached.token_hidden_states, whole.token_hidden_states, **close)


# records and rigs ---------------------------------------------------------------------------------


def _points(means, bindings=(0,)):
    return CanonicalPoints(means, torch.tensor(bindings))


TOKENS = [
    (lambda t: t.encode_points(_points(torch.tensor([[0, 0, 0]]))), "`means` must be metres"),
    (lambda t: t.encode_points(_points(torch.full((1, 3), NAN))), "`means` must be finite"),
    (lambda t: t.encode_points(_points(torch.zeros(1, 3), (-1,))), "`bindings` must be faces"),
    (lambda t: t.encode_points(_points(torch.zeros(1, 3), (0.0,))), "`bindings` must be whole"),
    (lambda t: t.encode_points(_points(torch.zeros(1, 2))), "`means` must have shape"),
    (lambda t: t.decode_points(torch.zeros(2, 8).long()), "`input_ids` must be one sequence"),
    (lambda t: t.decode_points(torch.zeros(8)), "`input_ids` must be whole numbers"),
    (lambda t: t.decode_points(torch.tensor([0, 0, 0, 0])), "`input_ids` must hold b tokens"),
    (lambda t: t.decode_points(torch.tensor([-1, 0, 0, 70])), "`input_ids` must be ids 0 to"),
]


@pytest.mark.parametrize(("call", "message"), TOKENS)
def test_points_and_tokens(tiny_tokenizer, call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny_tokenizer)


def _camera(**changes):
    return replace(orbit_cameras([0.0], width=16, height=16), **changes)


PICTURES = [
    (lambda a: a.render(_camera(viewmats=torch.full((1, 4, 4), NAN))), "cameras.viewmats"),
    (lambda a: a.render(_camera(Ks=torch.full((1, 3, 3), INF))), "cameras.Ks"),
    (lambda a: a.render(_camera(), background=torch.full((3,), NAN)), "`background` must be"),
    (lambda a: a.render(_camera(), background=torch.ones(4)), "`background` must have shape"),
    (lambda a: rasterize(a.gaussians, _camera(), backend="opengl"), "`backend` must be"),
    (lambda a: a.animate(replace(a.rig_params(), transl=torch.full((1, 3), NAN))), "`transl`"),
    (lambda a: a.animate(replace(a.rig_params(), jaw_pose=torch.full((1, 3), INF))), "`jaw_pose`"),
    (lambda a: a.animate(a.rig_params(), mode="fly"), "`mode` must be"),
    (lambda a: a.rig_params({"wings": 1.0}), "`wings` is no expression"),
    (lambda a: a.rig_params(tail=[0, 0, 0]), "`tail` is no joint"),
    (lambda a: a.rig(replace(a.rig_params(), betas=a.betas[None] * NAN)), "`betas` is not in"),
    (lambda a: type(a)(a.gaussians, a.bindings, a.rig, a.betas * NAN), "`betas` must be finite"),
    (lambda a: type(a)(a.gaussians, a.bindings + 10**6, a.rig, a.betas), "`bindings`"),
    (lambda a: Cameras(torch.eye(4)[None], torch.eye(3)[None], 10**6, 4), "`width` must be"),
    (lambda a: Cameras(torch.eye(4)[None], torch.eye(3)[None], "4", 4), "`width` must be"),
]


@pytest.mark.parametrize(("call", "message"), PICTURES)
def test_pictures_and_motion(tiny_avatar, call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny_avatar)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"betas": NAN}, "`betas` is not in frame 0"),
        ({"transl": INF}, "`transl` is not in frame 0"),
        ({"expression": NAN}, "`expression` is not in frame 0"),
    ],
)
def test_parameters_that_are_not_finite(tiny_pipeline, portrait, changes, message):
    neutral = tiny_pipeline.rig.neutral()
    changed = {name: getattr(neutral, name) + value for name, value in changes.items()}
    with pytest.raises(ValueError, match=message):
        tiny_pipeline(portrait, rig_params=replace(neutral, **changed), **PLAIN)
