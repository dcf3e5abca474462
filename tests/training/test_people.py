# SPDX-License-Identifier: Apache-2.0
"""People in memory: clouds in any order of tokens, pictures as their files."""

import typing

import pytest
import torch

from pointillist_hf.data.tokens.dataset import load_token_dataset
from pointillist_hf.data.tokens.rows import picture_tensor
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.models.tokenization_points import TokenOrder
from pointillist_hf.training.dataset import check_views, load_people

CONFIG = SyntheticDatasetConfig(
    num_train=2, num_test=0, num_bins=512, num_skin_points=300, hair_budget=200,
    num_portraits=3, num_views=0, image_size=32, use_snapshots=True, num_rig_points=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_synthetic_dataset(
        tmp_path_factory.mktemp("people") / "data", CONFIG, show_progress=False
    )


@pytest.mark.parametrize("order", typing.get_args(TokenOrder))
def test_a_data_set_is_read_in_any_order_of_tokens(folder, order):
    stored, people = load_people(folder, "train"), load_people(folder, "train", token_order=order)
    assert people.tokenizer.token_order == order
    for before, after in zip(stored.persons, people.persons, strict=True):
        old = stored.tokenizer.decode_points(before.input_ids)
        new = people.tokenizer.decode_points(after.input_ids)
        assert sorted(zip(old.means.tolist(), old.bindings.tolist(), strict=True)) == sorted(
            zip(new.means.tolist(), new.bindings.tolist(), strict=True)
        )
        # What is written anew comes out the same.
        assert torch.equal(people.tokenizer.encode_points(new), after.input_ids)
        again = stored.tokenizer.encode_points(new)
        assert torch.equal(again, before.input_ids)


def test_an_order_that_is_none_is_refused(folder):
    with pytest.raises(ValueError, match="`token_order` must be"):
        load_people(folder, "train", token_order="zyxb")


def test_pictures_are_those_of_the_rows(folder):
    rows, people = load_token_dataset(folder, "train"), load_people(folder, "train")
    for row, person in zip(rows, people.persons, strict=True):
        images = [(255 * picture_tensor(image)).round().byte() for image in row["portraits"]]
        wanted, portraits = torch.stack(images), person.portraits
        assert len(portraits) == 3 and len(person.views) == 0
        assert torch.equal(portraits[:], wanted)
        assert torch.equal(portraits[1], wanted[1])
        assert torch.equal(portraits[-1], wanted[-1])
        assert torch.equal(portraits[torch.tensor([2, 0])], wanted[[2, 0]])
        assert portraits[3:].shape == (0, 32, 32, 4)
        assert torch.equal(person.betas, torch.tensor(row["betas"]))
        with pytest.raises(IndexError):
            portraits[3]


def test_people_take_little_memory(folder):
    for person in load_people(folder, "train").persons:
        assert person.stored_ids.dtype == torch.int16
        assert person.input_ids.dtype == torch.int64
        assert sum(map(len, person.portraits.files)) < person.portraits[:].numel()


def test_stages_that_draw_want_views(folder):
    with pytest.raises(ValueError, match="`data` must hold views for this stage"):
        check_views(load_people(folder, "train"))
