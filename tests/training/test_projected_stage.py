# SPDX-License-Identifier: Apache-2.0
"""The decoder that looks at the photograph learns from people in one light."""

import pytest
import torch

from pointillist_hf import GaussianDecoder
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.losses import LossWeights
from pointillist_hf.training.recipes import build_projected_decoder_config
from pointillist_hf.training.train_projected_decoder import Lessons, ProjectedDecoderTraining


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
