# SPDX-License-Identifier: Apache-2.0
"""Rows of data sets, cards and versions of FLAME."""

import math

import pytest
import torch
import yaml
from fake_flame import fake_arrays, write_flame

from pointillist_hf.data.rig_reference import open_rig, open_saved_rig
from pointillist_hf.data.tokens.dataset import (
    DatasetCard,
    load_token_dataset,
    open_tokenizer,
    read_row,
    write_header,
)
from pointillist_hf.data.tokens.row_checks import check_row
from pointillist_hf.pipeline_avatar import AvatarPipeline
from pointillist_hf.rigs.flame.model_file import read_flame
from pointillist_hf.training.dataset import load_people


@pytest.fixture(scope="module")
def parts(whole):
    folder = whole / "data"
    row = read_row(load_token_dataset(folder, "train"), 0)
    return row, open_tokenizer(folder), open_saved_rig(folder / "rig")


def test_rows_as_they_are_written_pass(parts, whole):
    check_row(*parts)
    assert len(load_people(whole / "data", "train")) == 2


def _ids(change):
    return lambda row: {"input_ids": change(list(row["input_ids"]))}


ROWS = [
    ("no tokens", lambda r: {"input_ids": []}, "`input_ids` of '.*' must be 4"),
    ("cut tokens", _ids(lambda i: i[:-4]), "`input_ids` of '.*' must be 4"),
    ("no start", _ids(lambda i: [0, *i[1:]]), "must begin with four"),
    ("no end", _ids(lambda i: [*i[:-1], 0]), "must begin with four .* end with four"),
    ("foreign", _ids(lambda i: [*i[:4], 65535, *i[5:]]), "`input_ids` must be ids 0 to"),
    ("swapped", _ids(lambda i: [*i[:4], i[7], i[5], i[6], i[4], *i[8:]]), "`input_ids` must hold"),
    ("end inside", _ids(lambda i: [*i[:8], *i[-4:], *i[12:]]), "must hold .* points, got 1"),
    ("no points", lambda r: {"num_points": 0, "input_ids": r["input_ids"][:4] * 2}, "at least 1"),
    ("other count", lambda r: {"num_points": r["num_points"] + 1}, "`input_ids` of"),
    ("other rig", lambda r: {"rig_hash": "0" * 16}, "`rig_hash` of .* must be that of the rig"),
    ("few betas", lambda r: {"betas": r["betas"][1:]}, "`betas` of .* must be 53 numbers"),
    ("nan betas", lambda r: {"betas": [math.nan, *r["betas"][1:]]}, "`betas` of .* finite"),
    ("offset", lambda r: {"static_offset": [0.0]}, "`static_offset` of"),
    ("rig points", lambda r: {"rig_points": [1.0] * 7}, r"`rig_points` of .* must be \[P, 6\]"),
    ("no rig points", lambda r: {"rig_points": []}, "`rig_points` of"),
    ("no portraits", lambda r: {"portraits": []}, "`portraits` of .* at least one picture"),
    ("lacks views", lambda r: {"views": None}, "`views` of .* must not be missing"),
    ("poses", lambda r: {"view_poses": r["view_poses"][1:]}, "`view_poses` of"),
    ("cameras", lambda r: {"view_Ks": [math.inf] * len(r["view_Ks"])}, "`view_Ks` of .* finite"),
]


@pytest.mark.parametrize(("change", "message"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_rows_that_are_none(parts, change, message):
    row, tokenizer, rig = parts
    with pytest.raises(ValueError, match=message):
        check_row({**row, **change(row)}, tokenizer, rig)


@pytest.mark.parametrize(
    "licence", ["apache-2.0", "[", "cc-by-4.0: x", "yes", "#none", '"', "other"]
)
def test_licences_stay_one_word_of_the_card(tmp_path, parts, licence):
    _, tokenizer, rig = parts
    card = DatasetCard("People", "Some.", licence, ("train",), {"licence": licence})
    write_header(tmp_path, card, tokenizer, rig)
    header = (tmp_path / "README.md").read_text().split("---")[1]
    found = yaml.safe_load(header)
    assert {*found} == {"license", "tags", "configs"}
    assert found["license"] == licence or (licence == "yes" and found["license"] is True)


def test_the_version_of_a_flame_of_any_name_can_be_given(tmp_path):
    path = tmp_path / "my_flame.pkl"
    write_flame(path)
    with pytest.raises(ValueError, match=r"`version` must be one of .* --flame-version"):
        open_rig(None, source="fit", flame_path=path)
    rig = open_rig(None, source="fit", flame_path=path, flame_version="2023")
    assert rig.config.version == "2023"
    with pytest.raises(ValueError, match="`version` must be one of"):
        open_rig(None, source="fit", flame_path=path, flame_version="2019")


def test_corners_of_flame_are_whole_numbers(tmp_path):
    arrays = fake_arrays()
    write_flame(tmp_path / "flame2023.pkl", {**arrays, "f": arrays["f"] + 0.25})
    with pytest.raises(ValueError, match=r"`f` of .* must hold whole numbers, got fractions"):
        read_flame(tmp_path / "flame2023.pkl")


@pytest.mark.parametrize("word", ["dtype", "torch_dtype"])
@pytest.mark.parametrize(
    "value", [torch.bfloat16, "bfloat16", "torch.bfloat16", {"default": "bfloat16"}]
)
def test_types_of_weights_by_both_names(whole, word, value):
    pipe = AvatarPipeline.from_pretrained(whole / "pipeline", **{word: value})
    assert pipe.conditioner.dtype == torch.bfloat16
    assert pipe.rig.v_template.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"torch_dtype": "auto"}, "`torch_dtype` must be a floating type such as torch.float16"),
        ({"dtype": torch.int8}, "`dtype` must be a floating type"),
        ({"dtype": 16}, "`dtype` must be a floating type"),
        ({"dtype": torch.float16, "torch_dtype": torch.float16}, "two names of one option"),
    ],
)
def test_types_that_are_none(whole, options, message):
    with pytest.raises(ValueError, match=message):
        AvatarPipeline.from_pretrained(whole / "pipeline", **options)
