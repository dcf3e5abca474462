# SPDX-License-Identifier: Apache-2.0
"""Points to tokens and back."""

import logging

import pytest
import torch

from pointillist_hf.geometry.structures import CanonicalPoints
from pointillist_hf.models.tokenization_points import (
    PointTokenizer,
    TokenLayout,
    dequantize,
    point_order,
    quantize,
)

ORDERS = ("xyzb", "yzxb", "byzx")
LOGGER = "pointillist_hf.models.tokenization_points"


def build_tokenizer(num_bins=16, num_faces=20, **kwargs):
    return PointTokenizer(num_bins=num_bins, num_faces=num_faces, **kwargs)


def random_points(tokenizer, count=200, seed=0, *, inside=1.0):
    g = torch.Generator().manual_seed(seed)
    cube = (2 * torch.rand(count, 3, generator=g) - 1) * inside * tokenizer.cube_half_extent
    means = cube + torch.tensor(tokenizer.cube_center)
    return CanonicalPoints(means, torch.randint(tokenizer.num_faces, (count,), generator=g))


def sorted_by_loop(points, tokenizer):
    """Order of the points by the sort key of the paper, or face by face, without tensors."""
    bins = quantize(tokenizer.normalize_coords(points.means), tokenizer.num_bins).tolist()
    bindings = points.bindings.tolist()

    def key(i):
        x, y, z = bins[i]
        b = bindings[i]
        return (b, y, z, x) if tokenizer.token_order == "byzx" else (y, z, x, b)

    return sorted(range(len(bins)), key=key)


def rows_of(tokenizer, ids):
    """Points between start and end as dictionaries of slot values."""
    body = ids[4:-4].view(-1, 4).tolist()
    return [dict(zip(tokenizer.token_order, row, strict=True)) for row in body]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("num_bins", [2, 16, 100, 1024])
def test_decoding_stays_within_half_a_bin(num_bins, order):
    tokenizer = build_tokenizer(num_bins, token_order=order)
    points = random_points(tokenizer)
    restored = tokenizer.decode_points(tokenizer.encode_points(points))
    sequence = sorted_by_loop(points, tokenizer)
    error = (restored.means - points.means[sequence]).abs().max()
    assert error <= tokenizer.bin_size / 2 + 1e-6
    assert torch.equal(restored.bindings, points.bindings[sequence])


@pytest.mark.parametrize("order", ORDERS)
def test_decoding_then_encoding_gives_the_same_ids(order):
    tokenizer = build_tokenizer(1024, 10144, token_order=order)
    ids = tokenizer.encode_points(random_points(tokenizer, count=2000))
    assert torch.equal(tokenizer.encode_points(tokenizer.decode_points(ids)), ids)


@pytest.mark.parametrize("num_bins", [2, 3, 64, 1000, 1024])
def test_bin_centres_are_fixed_points(num_bins):
    bins = torch.arange(num_bins)
    centres = dequantize(bins, num_bins)
    assert torch.equal(quantize(centres, num_bins), bins)
    assert centres.abs().max() < 1


def test_edges_of_the_cube_belong_to_the_outer_bins():
    assert quantize(torch.tensor([-1.0, 0.0, 1.0]), 8).tolist() == [0, 4, 7]
    assert quantize(torch.tensor([-1.5, 1.5]), 8).tolist() == [0, 7]


def test_layout_of_the_paper():
    layout = TokenLayout(num_bins=1024, num_faces=10144)
    assert (layout.bos_token_id, layout.eos_token_id, layout.pad_token_id) == (11168, 11169, 11170)
    assert layout.vocab_size == 11171
    assert [layout.slot_range(slot) for slot in range(4)] == [(0, 1024)] * 3 + [(1024, 11168)]


def test_defaults_are_the_papers():
    tokenizer = PointTokenizer()
    assert tokenizer.bos_token_id == 11168
    assert tokenizer.eos_token_id == 11169
    assert tokenizer.pad_token_id == 11170
    assert tokenizer.vocab_size == 11171
    assert tokenizer.token_order == "xyzb"


def test_the_point_of_the_module_docstring():
    tokenizer = PointTokenizer(cube_center=(0, 0, 0), cube_half_extent=1.0)
    means = dequantize(torch.tensor([[512, 40, 600]]), 1024)
    ids = tokenizer.encode_points(CanonicalPoints(means, torch.tensor([7])))
    assert ids.tolist() == [11168] * 4 + [512, 40, 600, 1031] + [11169] * 4


def test_the_point_of_the_class_docstring():
    tokenizer = PointTokenizer(num_bins=64, num_faces=80)
    points = CanonicalPoints(torch.zeros(1, 3), torch.tensor([5]))
    assert tokenizer.encode_points(points).tolist()[4:8] == [32, 35, 36, 69]


@pytest.mark.parametrize("order", ORDERS)
def test_every_slot_holds_its_kind(order):
    tokenizer = build_tokenizer(token_order=order)
    ids = tokenizer.encode_points(random_points(tokenizer, count=50))
    assert len(ids) == 4 * (50 + 2)
    assert (ids[:4] == 36).all()
    assert (ids[-4:] == 37).all()
    for row in rows_of(tokenizer, ids):
        assert all(0 <= row[axis] < 16 for axis in "xyz")
        assert 16 <= row["b"] < 36


def test_orders_hold_the_same_points():
    tokenizers = [build_tokenizer(token_order=order) for order in ORDERS]
    points = random_points(tokenizers[0])
    first, second, third = (rows_of(t, t.encode_points(points)) for t in tokenizers)
    assert first == second

    def by_face(row):
        return row["b"], row["y"], row["z"], row["x"]

    assert third == sorted(first, key=by_face)


def test_points_are_sorted_after_quantisation():
    tokenizer = build_tokenizer(4, cube_center=(0, 0, 0), cube_half_extent=1.0)
    # In one bin of y; by the unquantised y the first point would come first, by z it is the last.
    means = torch.tensor([[0.0, 0.1, 0.9], [0.0, 0.2, -0.9], [-0.9, 0.4, -0.8]])
    ids = tokenizer.encode_points(CanonicalPoints(means, torch.tensor([0, 1, 2])))
    assert [row["b"] - 4 for row in rows_of(tokenizer, ids)] == [2, 1, 0]


@pytest.mark.parametrize("num_bins", [2, 4, 64])
def test_keys_never_fall(num_bins):
    tokenizer = build_tokenizer(num_bins)
    rows = rows_of(tokenizer, tokenizer.encode_points(random_points(tokenizer, count=500)))
    keys = [(row["y"], row["z"], row["x"], row["b"]) for row in rows]
    assert keys == sorted(keys)


def test_ties_keep_the_order_in_which_they_came():
    bins, bindings = torch.zeros(5, 3).long(), torch.tensor([2, 1, 2, 1, 0])
    assert point_order(bins, bindings).tolist() == [4, 1, 3, 0, 2]


@pytest.mark.parametrize("num_bins", [2, 1024])
@pytest.mark.parametrize("order_of_tokens", ORDERS)
def test_equal_clouds_in_any_order_give_equal_ids(num_bins, order_of_tokens):
    tokenizer = build_tokenizer(num_bins, token_order=order_of_tokens)
    points = random_points(tokenizer)
    ids = tokenizer.encode_points(points)
    for _ in range(5):
        order = torch.randperm(len(points))
        shuffled = CanonicalPoints(points.means[order], points.bindings[order])
        assert torch.equal(tokenizer.encode_points(shuffled), ids)


def test_every_truncation_decodes_to_whole_points():
    tokenizer = build_tokenizer()
    ids = tokenizer.encode_points(random_points(tokenizer, count=5))
    whole = tokenizer.decode_points(ids)
    for length in range(len(ids) + 1):
        cut = tokenizer.decode_points(ids[:length])
        assert len(cut) == min(max(length - 4, 0) // 4, 5)
        assert torch.equal(cut.means, whole.means[: len(cut)])
        assert torch.equal(cut.bindings, whole.bindings[: len(cut)])


def test_start_end_and_padding_are_optional():
    tokenizer = build_tokenizer()
    ids = tokenizer.encode_points(random_points(tokenizer, count=5))
    whole = tokenizer.decode_points(ids)
    padded = torch.cat([ids, ids.new_full((9,), tokenizer.pad_token_id)])
    for variant in (ids[4:], ids[4:-4], ids[:-3], padded, ids.to(torch.int32)):
        assert torch.equal(tokenizer.decode_points(variant).means, whole.means)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("slot", range(4))
def test_tokens_in_the_wrong_slot_are_refused(order, slot):
    tokenizer = build_tokenizer(token_order=order)
    ids = tokenizer.encode_points(random_points(tokenizer, count=5))
    wrong = 3 if order[slot] == "b" else 20
    ids[4 + 2 * 4 + slot] = wrong
    message = (
        f"`input_ids` must hold {order[slot]} tokens .* in slot {slot}, got {wrong} in point 2"
    )
    with pytest.raises(ValueError, match=message):
        tokenizer.decode_points(ids)


@pytest.mark.parametrize("wrong", [-1, 36])
def test_negative_ids_and_a_second_start_are_refused(wrong):
    tokenizer = build_tokenizer()
    ids = tokenizer.encode_points(random_points(tokenizer, count=5))
    ids[9] = wrong
    if wrong == 36:
        with pytest.raises(ValueError, match="got 36 in point 1"):
            tokenizer.decode_points(ids)
    else:
        with pytest.raises(ValueError, match=r"`input_ids` must be ids 0 to \d+ .* got -1"):
            tokenizer.decode_points(ids)


def test_batches_are_refused_by_decoding():
    tokenizer = build_tokenizer()
    with pytest.raises(ValueError, match=r"`input_ids` must be one sequence .* got \(2, 8\)"):
        tokenizer.decode_points(torch.zeros(2, 8).long())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("outside", ["clip", "drop"])
def test_coordinates_must_be_finite(value, outside):
    tokenizer = build_tokenizer(outside=outside)
    points = random_points(tokenizer)
    points.means[3, 1] = value
    with pytest.raises(ValueError, match="`means` must be finite, got NaN or infinity"):
        tokenizer.encode_points(points)


@pytest.mark.parametrize("binding", [-1, 20])
def test_bindings_beyond_the_rig_are_refused(binding):
    tokenizer = build_tokenizer()
    points = random_points(tokenizer)
    points.bindings[3] = binding
    with pytest.raises(ValueError, match=r"`bindings` must be faces 0 to 19, got .*(-1|20)"):
        tokenizer.encode_points(points)


def test_points_outside_are_clipped_with_a_warning(caplog):
    tokenizer = build_tokenizer(cube_center=(0, 0, 0), cube_half_extent=1.0)
    points = CanonicalPoints(torch.tensor([[0.0, 0, 0], [2, -3, 0.5]]), torch.tensor([1, 2]))
    with caplog.at_level(logging.WARNING, LOGGER):
        restored = tokenizer.decode_points(tokenizer.encode_points(points))
    assert "1 of 2 points lie outside the cube" in caplog.text
    half = tokenizer.bin_size / 2
    clipped = torch.tensor([1 - half, -1 + half, 0.5 + half])
    torch.testing.assert_close(restored.means[restored.bindings == 2][0], clipped)


def test_points_outside_are_dropped_with_a_warning(caplog):
    tokenizer = build_tokenizer(outside="drop", cube_center=(0, 0, 0), cube_half_extent=1.0)
    points = CanonicalPoints(torch.tensor([[0.0, 0, 0], [2, -3, 0.5]]), torch.tensor([1, 2]))
    with caplog.at_level(logging.WARNING, LOGGER):
        restored = tokenizer.decode_points(tokenizer.encode_points(points))
    assert "1 of 2 points lie outside the cube" in caplog.text
    assert restored.bindings.tolist() == [1]


def test_points_inside_give_no_warning(caplog):
    tokenizer = build_tokenizer()
    tokenizer.encode_points(random_points(tokenizer))
    assert not caplog.records


def test_empty_clouds_are_start_and_end():
    tokenizer = build_tokenizer()
    ids = tokenizer.encode_points(CanonicalPoints(torch.zeros(0, 3), torch.zeros(0).long()))
    assert ids.tolist() == [36] * 4 + [37] * 4
    empty = tokenizer.decode_points(ids)
    assert empty.means.shape == (0, 3)
    assert empty.bindings.shape == (0,)


def test_clouds_that_are_dropped_altogether_are_empty():
    tokenizer = build_tokenizer(outside="drop")
    ids = tokenizer.encode_points(CanonicalPoints(torch.full((3, 3), 9.0), torch.zeros(3).long()))
    assert ids.tolist() == [36] * 4 + [37] * 4


def test_save_and_load(tmp_path):
    tokenizer = build_tokenizer(
        100, 50, token_order="yzxb", cube_center=(0.1, 0.2, 0.3), cube_half_extent=0.7,
        outside="drop",
    )  # fmt: skip
    tokenizer.save_pretrained(tmp_path)
    loaded = PointTokenizer.from_pretrained(tmp_path)
    assert loaded.layout == tokenizer.layout
    assert loaded.cube_center == tokenizer.cube_center
    assert (loaded.cube_half_extent, loaded.outside) == (0.7, "drop")
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (150, 151, 152)
    points = random_points(tokenizer)
    assert torch.equal(loaded.encode_points(points), tokenizer.encode_points(points))


def test_padding_to_the_longest():
    tokenizer = build_tokenizer()
    clouds = [random_points(tokenizer, count=count) for count in (2, 5, 0)]
    rows = [tokenizer.encode_points(cloud) for cloud in clouds]
    batch = tokenizer.pad({"input_ids": [row.tolist() for row in rows]}, return_tensors="pt")
    assert batch["input_ids"].shape == (3, 28)
    assert batch["attention_mask"].sum(1).tolist() == [16, 28, 8]
    for row, ids, cloud in zip(rows, batch["input_ids"], clouds, strict=True):
        assert torch.equal(ids[: len(row)], row)
        assert (ids[len(row) :] == tokenizer.pad_token_id).all()
        assert len(tokenizer.decode_points(ids)) == len(cloud)


def test_vocabulary_names_every_id_once():
    tokenizer = build_tokenizer(4, 3)
    names = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    assert names == ["c0", "c1", "c2", "c3", "f0", "f1", "f2", "<s>", "</s>", "<pad>"]
    assert tokenizer.convert_tokens_to_ids(names) == list(range(10))
    assert tokenizer.convert_ids_to_tokens(list(range(10))) == names


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_bins": 1}, "`num_bins` must be a whole number, 2 to 65536, got 1"),
        ({"num_faces": 0}, "`num_faces` must be a whole number, 1 to"),
        ({"token_order": "zyxb"}, "`token_order` must be one of xyzb, yzxb, byzx, got 'zyxb'"),
        ({"outside": "keep"}, "`outside` must be 'clip' or 'drop', got 'keep'"),
        ({"cube_half_extent": 0.0}, "`cube_half_extent` must be a finite number, more than 0"),
        ({"cube_half_extent": float("nan")}, "`cube_half_extent` must be a finite number"),
    ],
)
def test_impossible_settings_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build_tokenizer(**kwargs)
