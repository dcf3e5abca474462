# SPDX-License-Identifier: Apache-2.0
"""Several clouds of a portrait, of which the pipeline keeps what fits."""

import pytest
import torch

from pointillist_hf import AvatarPipeline
from pointillist_hf.decoding.streamers import PointStreamer
from pointillist_hf.models.decoded_layout import count_decoded_layout
from pointillist_hf.pipeline_candidates import (
    MAX_CANDIDATES,
    NUM_STRETCHES,
    candidate_seeds,
)
from pointillist_hf.rigs.cloud_layout import compare_layouts

PLAIN = {"detect_face": False, "remove_background": False}
NUM_CANDIDATES = 5


@pytest.fixture(scope="module")
def pipe(anchored_parts):
    return AvatarPipeline(**anchored_parts, max_points=9)


def test_of_candidates_the_nearest_is_kept(pipe, portrait):
    images = [portrait, portrait.rotate(90)]
    with torch.no_grad():
        rig_params, context, layouts = pipe.encode_image(images, **PLAIN)
    layouts = torch.poisson(torch.full_like(layouts, 0.2))
    options = {"seeds": [3, 8], "num_candidates": NUM_CANDIDATES}
    found = pipe.generate_tokens(context, rig_params, layouts, **options)
    assert len(found.input_ids) == len(found.token_hidden_states) == 2
    assert found.input_ids.shape[1] == 4 * (int(found.num_points.max()) + 2)
    for row, seeds in enumerate(torch.tensor(candidate_seeds([3, 8], 2, NUM_CANDIDATES)).chunk(2)):
        distances, clouds = [], []
        for seed in seeds.tolist():
            own = (context[[row]], rig_params[row : row + 1], layouts[[row]])
            cloud = pipe.generate_tokens(*own, seeds=[seed])
            betas, size = rig_params.betas[row], len(layouts[row])
            points = pipe.tokenizer.decode_points(cloud.input_ids[0])
            counts = count_decoded_layout(points, pipe.tokenizer, pipe.rig, betas, size)
            distances.append(float(compare_layouts(counts[None], layouts[row])))
            clouds.append(cloud)
        assert len({round(d, 4) for d in distances}) > 1
        best = clouds[distances.index(min(distances))]
        count = int(best.num_points)
        assert found.num_points[row] == count
        whole = slice(4 * count + 8)
        assert torch.equal(found.input_ids[row, whole], best.input_ids[0])
        torch.testing.assert_close(
            found.token_hidden_states[row, :count],
            best.token_hidden_states[0],
            atol=1e-4,
            rtol=1e-4,
        )


def test_the_number_is_saved_and_one_is_as_ever(anchored_parts, pipe, portrait, tmp_path):
    several = AvatarPipeline(**anchored_parts, max_points=9, num_candidates=NUM_CANDIDATES)
    several.save_pretrained(tmp_path)
    loaded = AvatarPipeline.from_pretrained(tmp_path)
    assert loaded.config.num_candidates == NUM_CANDIDATES
    found = loaded(portrait, seed=2, **PLAIN)
    expected = pipe(portrait, seed=2, num_candidates=NUM_CANDIDATES, **PLAIN)
    assert torch.equal(found.input_ids, expected.input_ids)
    alone = several(portrait, seed=2, num_candidates=1, **PLAIN)
    assert torch.equal(alone.input_ids, pipe(portrait, seed=2, **PLAIN).input_ids)
    assert len(several(portrait, seed=2, num_return_sequences=3, **PLAIN).avatars) == 3


def test_counts_are_of_the_first_candidate_and_streamers_get_the_chosen_one(pipe, portrait):
    points, counts = {0: [], 1: []}, []
    streamer = PointStreamer(pipe.tokenizer, lambda row, point: points[row].append(point.means))
    options = {"seed": [4, 9], "num_candidates": 3, **PLAIN}
    chosen = pipe(
        [portrait] * 2, streamer=streamer, **options,
        on_progress=lambda step, done: counts.append(done) if step == "generate_tokens" else None,
    )  # fmt: skip
    first = pipe([portrait] * 2, seed=[4, 9], **PLAIN)
    assert not torch.equal(chosen.input_ids, first.input_ids)
    assert max(counts) == sum(len(cloud) for cloud in first.clouds)
    for row, cloud in enumerate(chosen.clouds):
        assert torch.equal(torch.cat(points[row]), cloud.means)


def test_clouds_are_laid_onto_the_head_before_they_are_measured(anchored_parts, portrait):
    """Else skin beside the head would count as hair, and the shape of the head would choose."""
    pipe = AvatarPipeline(**anchored_parts, max_points=60, align_points=True)
    with torch.no_grad():
        rig_params, context, layouts = pipe.encode_image([portrait], **PLAIN)
    head = pipe.rig.neutral(betas=rig_params.betas + 3)
    layouts = torch.poisson(torch.full_like(layouts, 1.0))
    rows = (context[[0] * 8], head[[0] * 8], layouts[[0] * 8])
    for seed in range(20):
        drawn = pipe.generate_tokens(*rows, seeds=candidate_seeds([seed], 1, 8), num_candidates=1)
        laid = pipe.decode_points(drawn.input_ids, rows[1])
        raw = [pipe.tokenizer.decode_points(ids) for ids in drawn.input_ids]
        best, other = (
            min(
                range(8), key=lambda i, c=clouds: distance_of(pipe, c[i], head.betas[0], layouts[0])
            )
            for clouds in (laid, raw)
        )
        if best != other:
            break
    assert best != other
    found = pipe.generate_tokens(context, head, layouts, seeds=[seed], num_candidates=8)
    assert torch.equal(pipe.tokenizer.decode_points(found.input_ids[0]).means, raw[best].means)


def test_seeds_of_candidates_are_their_own():
    seeds = candidate_seeds([0, 1, 2**64 - 1], 3, 64)
    assert len(set(seeds)) == 3 * 64
    assert seeds[0] == 0
    assert seeds[64] == 1
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert candidate_seeds(None, 3, 1) == [0, 1, 2]
    assert candidate_seeds(torch.arange(2).numpy(), 2, 1) == [0, 1]


def test_what_cannot_be_told_apart_is_refused(pipe, tiny_pipeline, anchored_parts, portrait):
    with pytest.raises(ValueError, match="`num_candidates` must be 1 without `layouts`"):
        tiny_pipeline(portrait, num_candidates=2, **PLAIN)
    for number in (0, MAX_CANDIDATES + 1, 1.5, True):
        with pytest.raises(ValueError, match="`num_candidates` must be"):
            pipe(portrait, num_candidates=number, **PLAIN)
    with pytest.raises(ValueError, match="`num_candidates` must be"):
        AvatarPipeline(**tiny_pipeline.components, num_candidates=2)
    with pytest.raises(ValueError, match="`conditioner` must foresee layouts for a `point_gen"):
        AvatarPipeline(**{**anchored_parts, "conditioner": tiny_pipeline.conditioner})
    with torch.no_grad():
        rig_params, context, _ = pipe.encode_image([portrait], **PLAIN)
    with pytest.raises(ValueError, match="`layouts` must be given: this generator is told"):
        pipe.generate_tokens(context, rig_params, seeds=[0])


def test_inputs_of_others_are_refused(pipe, portrait):
    with torch.no_grad():
        rig_params, context, layouts = pipe.encode_image([portrait], **PLAIN)
    context, heads, layouts = context[[0, 0]], rig_params[[0, 0]], layouts[[0, 0]]
    for change, expected in (
        ({"layouts": layouts[:1]}, r"`layouts` must have shape \(2, 4, 16\), got \(1, 4, 16\)"),
        ({"layouts": layouts[..., 1:]}, r"`layouts` must have shape \(2, 4, 16\)"),
        ({"layouts": layouts[0]}, "`layouts` must have shape"),
        ({"layouts": float("nan") * layouts}, "`layouts` must be finite"),
        ({"layouts": -layouts}, "`layouts` must be numbers of points, 0 or more"),
        ({"rig_params": heads[:1]}, "`rig_params` must hold one frame per row .* 1 for 2"),
        ({"seeds": [1]}, "`seeds` must hold one seed per cloud, got 1 for 2"),
        ({"seeds": [1, -1]}, "`seeds` must be a whole number"),
        ({"num_return_sequences": 2}, "`num_return_sequences` must be left out"),
    ):
        options = {"rig_params": heads, "layouts": layouts, "seeds": [1, 2], "num_candidates": 2}
        with pytest.raises(ValueError, match=expected):
            pipe.generate_tokens(context, **{**options, **change})


def test_stretches_of_faces_come_from_whoever_fits(pipe, portrait):
    images, count = [portrait, portrait.rotate(90)], pipe.rig.num_faces
    options = {"grammar": "every_face", "max_points": 3 * count}
    with torch.no_grad():
        rig_params, context, layouts = pipe.encode_image(images, **PLAIN)
    layouts = torch.poisson(torch.full_like(layouts, 20.0))
    inputs = (context, rig_params, layouts)
    found = pipe.generate_tokens(*inputs, seeds=[0, 1], num_candidates=4, **options)
    stretches = torch.arange(count) * NUM_STRETCHES // count
    for row in range(2):
        own = (context[[row] * 4], rig_params[[row] * 4], layouts[[row] * 4])
        drawn = pipe.generate_tokens(*own, seeds=candidate_seeds([row], 1, 4), **options)
        candidates = [
            split(pipe.tokenizer, stretches, drawn, i) for i in range(4) if drawn.is_finished[i]
        ]
        pieces = split(pipe.tokenizer, stretches, found, row)
        taken = set()
        for stretch, (ids, states) in enumerate(pieces):
            same = [i for i, other in enumerate(candidates) if torch.equal(other[stretch][0], ids)]
            assert same
            torch.testing.assert_close(states, candidates[same[0]][stretch][1], atol=1e-4, rtol=0)
            taken |= set(same[:1])
        assert len(taken) > 1
        cloud = pipe.tokenizer.decode_points(found.input_ids[row])
        assert torch.equal(cloud.bindings.unique_consecutive(), torch.arange(count))
        distances = [
            distance_of(
                pipe, pipe.tokenizer.decode_points(ids), rig_params.betas[row], layouts[row]
            )
            for ids in (found.input_ids[row], *drawn.input_ids[drawn.is_finished])
        ]
        assert distances[0] < min(distances[1:])


def split(tokenizer, stretches, output, row):
    """Ids and states of each stretch."""
    count = int(output.num_points[row])
    ids = output.input_ids[row, 4 : 4 * count + 4].reshape(count, 4)
    own = stretches[tokenizer.decode_points(output.input_ids[row]).bindings]
    states = output.token_hidden_states[row, :count]
    return [(ids[own == k], states[own == k]) for k in range(NUM_STRETCHES)]


def distance_of(pipe, points, betas, layout):
    counts = count_decoded_layout(points, pipe.tokenizer, pipe.rig, betas, len(layout))
    return float(compare_layouts(counts[None], layout))


def test_no_more_points_than_are_allowed_are_put_together(pipe, portrait):
    """Where more are wanted everywhere, the longest stretches are longer than any candidate."""
    with torch.no_grad():
        rig_params, context, layouts = pipe.encode_image([portrait], **PLAIN)
    inputs, options = (context, rig_params, 1e3 + layouts), {"grammar": "every_face"}
    options |= {"seeds": [0], "num_candidates": 6}
    free = pipe.generate_tokens(*inputs, max_points=20000, **options)
    most = int(free.num_points) - 1
    bound = pipe.generate_tokens(*inputs, max_points=most, **options)
    assert bound.is_finished
    assert int(bound.num_points) <= most
