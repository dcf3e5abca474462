# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from pointillist_hf.models.tokenization_points import TokenLayout
from pointillist_hf.training.windows import END_SHARE, IGNORED, cut_window, window_start

LAYOUT = TokenLayout(num_bins=16, num_faces=10)


def sequence(num_points):
    points = torch.tensor([1, 2, 3, LAYOUT.binding_offset]).repeat(num_points)
    ends = torch.full((4,), LAYOUT.eos_token_id)
    return torch.cat([torch.full((4,), LAYOUT.bos_token_id), points, ends])


def test_windows_start_at_points_and_show_both_ends_often():
    length, window = 4 * 102, 4 * 20
    starts = [window_start(length, window, torch.Generator().manual_seed(i)) for i in range(2000)]
    assert all(start % 4 == 0 and 0 <= start <= length - window for start in starts)
    for end in (0, length - window):
        assert starts.count(end) / len(starts) > 0.8 * END_SHARE
    assert len(set(starts)) == (length - window) // 4 + 1


def test_a_short_sequence_is_one_padded_window():
    ids = sequence(3)
    assert window_start(len(ids), 64, torch.Generator().manual_seed(0)) == 0
    window, labels = cut_window(ids, 0, 64, LAYOUT)
    assert torch.equal(window[: len(ids)], ids)
    assert (window[len(ids) :] == LAYOUT.pad_token_id).all()
    assert (labels[len(ids) :] == IGNORED).all()


def test_labels_are_what_the_grammar_leaves_open():
    _, labels = cut_window(sequence(2), 0, 16, LAYOUT)
    assert (labels[:4] == IGNORED).all()
    assert torch.equal(labels[4:12], sequence(2)[4:12])
    assert labels[12] == LAYOUT.eos_token_id
    assert (labels[13:] == IGNORED).all()


@pytest.mark.parametrize("start", [0, 4, 12])
def test_a_window_inside_is_a_plain_slice(start):
    ids = sequence(10)
    window, _ = cut_window(ids, start, 16, LAYOUT)
    assert torch.equal(window, ids[start : start + 16])
