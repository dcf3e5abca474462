# SPDX-License-Identifier: Apache-2.0
"""The decoder that looks at the photograph learns from people in one light."""

from pathlib import Path

import pytest
import torch

from pointillist_hf import GaussianDecoder, PointTokenizer, PortraitTracker
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.refinement.face_kinds import PointKind
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.lessons import Lessons, TrackedLessons
from pointillist_hf.training.losses import LossWeights
from pointillist_hf.training.recipes import build_projected_decoder_config
from pointillist_hf.training.stages import STAGES
from pointillist_hf.training.train_projected_decoder import (
    ProjectedDecoderTraining,
    decode_lesson,
)

TRACKER = Path(__file__).parents[2] / "model_cards/pointillist-tiny/portrait_tracker"


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    points = {"num_skin_points": 60, "hair_budget": 20}
    pictures = {"num_portraits": 1, "num_views": 2, "image_size": 64, "use_one_light": True}
    config = SyntheticDatasetConfig(num_train=1, num_test=0, **points, **pictures)
    folder = tmp_path_factory.mktemp("light") / "people"
    people = load_people(build_synthetic_dataset(folder, config, show_progress=False), "train")
    return people.tokenizer, Lessons(people)(0, 0)


def test_a_lesson_is_learned(lesson):
    tokenizer, lesson = lesson
    torch.manual_seed(0)
    decoder = GaussianDecoder(build_projected_decoder_config(tokenizer))
    training = ProjectedDecoderTraining(decoder, LossWeights())
    optimizer = torch.optim.Adam(decoder.parameters(), lr=3e-3)
    batch = ([lesson.of_views(torch.tensor([0]))], [torch.full((3,), 0.5)], [torch.ones(5)])
    found = []
    for _ in range(6):
        losses = training(*batch)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        found.append(losses["loss"].item())
    assert found[-1] < 0.95 * found[0]
    assert all(p.grad is not None for p in decoder.parameters())


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """One person's lesson with true tracks and with those of the tracker."""
    points = {"num_skin_points": 60, "hair_budget": 20}
    pictures = {"num_portraits": 1, "num_views": 1, "image_size": 160, "use_one_light": True}
    config = SyntheticDatasetConfig(num_train=1, num_test=0, **points, **pictures)
    folder = tmp_path_factory.mktemp("tracked") / "people"
    people = load_people(build_synthetic_dataset(folder, config, show_progress=False), "train")
    tracker = PortraitTracker.from_pretrained(TRACKER)
    return Lessons(people)(0, 0), TrackedLessons(people, tracker)(0, 0)


def test_true_tracks_lie_where_the_person_does(tracked):
    (place,) = tracked[0].placements
    assert float(place.scale) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(place.middle, place.target, rtol=0, atol=1e-6)


def test_tracks_have_errors_and_the_size_of_the_face_is_none(tracked):
    true, found = tracked
    (place,) = found.placements
    assert 1e-4 < abs(float(place.scale) - 1) < 0.3
    assert found.features.shape[1] == true.features.shape[1]
    # The head is found where it is: as a whole, both clouds lie on it in the view.
    decoder = GaussianDecoder(build_projected_decoder_config(PointTokenizer(num_faces=1)))
    middles = []
    for lesson in tracked:
        gaussians, _ = decode_lesson(decoder.eval(), lesson)
        skin = lesson.cloud.kinds == PointKind.SKIN
        middles.append(lesson.placements[0].pose_gaussians(gaussians).means[skin].mean(0))
    assert 1e-4 < (middles[0] - middles[1]).norm() < 0.02


def test_the_tracked_stage_needs_its_parts(tmp_path):
    for name in ("decoder", "tracker"):
        if name == "tracker":
            config = build_projected_decoder_config(PointTokenizer(num_faces=1))
            GaussianDecoder(config).save_pretrained(tmp_path / "gaussian_decoder")
        message = {"decoder": "Train the projected-decoder first", "tracker": "portrait_tracker"}
        with pytest.raises(FileNotFoundError, match=message[name]):
            STAGES["tracked-decoder"](None, None, tmp_path, "nano", None)
