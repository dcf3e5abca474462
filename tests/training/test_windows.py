# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from pointillist_hf.models.tokenization_points import TokenLayout
from pointillist_hf.training.train_generator import label_kinds
from pointillist_hf.training.windows import (
    END_SHARE,
    IGNORED,
    cut_window,
    scoring_windows,
    window_start,
    window_starts,
)

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


@pytest.mark.parametrize("length", [16, 20, 64, 68, 100, 132])
@pytest.mark.parametrize("window", [8, 16, 20, 64])
def test_scoring_windows_score_each_token_once(length, window):
    scores = [0] * length
    for start, first in scoring_windows(length, window):
        assert start % 4 == 0
        for place in range(first, min(start + window, length)):
            scores[place] += 1
            # Half a window of context, or all there is.
            assert place - start >= min(place, window // 2 // 4 * 4)
            assert start == 0 or place > start
    assert scores == [1] * length


@pytest.mark.parametrize(("window", "step"), [(16, 4), (16, 8), (16, 16), (64, 20)])
def test_sliding_windows_cover_each_label_as_configured(window, step):
    """Counted label by label, against the windows that hold the token."""
    ids = sequence(12)
    length = len(ids)
    starts = window_starts(length, window, step)
    assert starts == list(range(0, starts[-1] + 1, step))
    assert starts[-1] + window >= length > (starts[-2] + window if len(starts) > 1 else 0)
    found = torch.zeros(length, dtype=torch.long)
    for start in starts:
        _, labels = cut_window(ids, start, window, LAYOUT)
        counts = label_kinds(labels, LAYOUT)[""]
        found[start : start + window] += counts[: length - start]
    expected = [0] * length
    for place in range(4, length - 3):  # neither the starts nor the last three ends
        # The first token of a window is given; what it follows is not there.
        expected[place] = sum(s < place < s + window for s in starts)
    assert found.tolist() == expected
    drawn = {
        window_start(length, window, torch.Generator().manual_seed(i), step) for i in range(300)
    }
    assert drawn == set(starts)


@pytest.mark.parametrize("step", [0, 6, 20])
def test_steps_that_are_no_whole_points_or_leave_gaps_are_refused(step):
    with pytest.raises(ValueError, match=f"`window_step` must be a multiple of 4 .*got {step}"):
        window_starts(100, 16, step)


def test_kinds_of_labels_are_those_of_a_loop():
    ids = sequence(3)
    _, labels = cut_window(ids, 0, 24, LAYOUT)
    kinds = label_kinds(torch.stack([labels, labels]), LAYOUT)
    assert list(kinds) == ["", "x", "y", "z", "b", "end"]
    for place in range(24):
        is_point = 4 <= place < 16
        assert kinds[""][1, place] == (4 <= place <= 16)
        assert kinds["end"][1, place] == (place == 16)
        for slot, axis in enumerate("xyzb"):
            assert kinds[axis][1, place] == (is_point and place % 4 == slot)
