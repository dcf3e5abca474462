# SPDX-License-Identifier: Apache-2.0
"""Several clouds of a portrait, of which the pipeline keeps one."""

import pytest
import torch

from pointillist_hf import AvatarPipeline
from pointillist_hf.decoding.streamers import PointStreamer
from pointillist_hf.models.sequence_layout import count_sequence_layout
from pointillist_hf.pipeline_candidates import MAX_CANDIDATES, candidate_seeds
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
    for row, seeds in enumerate(torch.tensor(candidate_seeds([3, 8], NUM_CANDIDATES)).chunk(2)):
        distances, clouds = [], []
        for seed in seeds.tolist():
            own = (context[[row]], rig_params[row : row + 1], layouts[[row]])
            cloud = pipe.generate_tokens(*own, seeds=[seed])
            betas, size = rig_params.betas[row], len(layouts[row])
            counts = count_sequence_layout(
                cloud.input_ids[0], pipe.tokenizer, pipe.rig, betas, size
            )
            distances.append(float(compare_layouts(counts[None], layouts[row])))
            clouds.append(cloud)
        assert len({round(d, 4) for d in distances}) > 1
        best = clouds[distances.index(min(distances))]
        count = int(best.num_points)
        assert found.num_points[row] == count
        assert torch.equal(found.input_ids[row, : 4 * count], best.input_ids[0, : 4 * count])
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


def test_streamers_and_counts_are_of_the_first_candidate(pipe, portrait):
    rows, counts = [], []
    streamer = PointStreamer(pipe.tokenizer, lambda row, point: rows.append(row))
    pipe(
        [portrait] * 2, seed=[4, 9], num_candidates=3, streamer=streamer, **PLAIN,
        on_progress=lambda step, done: counts.append(done) if step == "generate_tokens" else None,
    )  # fmt: skip
    first_counts = [len(cloud) for cloud in pipe([portrait] * 2, seed=[4, 9], **PLAIN).clouds]
    assert [rows.count(row) for row in (0, 1)] == first_counts
    assert max(counts) == sum(first_counts)


def test_seeds_of_candidates_are_their_own():
    seeds = candidate_seeds([0, 1, 2**64 - 1], 64)
    assert len(set(seeds)) == 3 * 64
    assert seeds[0] == 0
    assert seeds[64] == 1
    assert all(0 <= seed < 2**64 for seed in seeds)


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
