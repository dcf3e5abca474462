# SPDX-License-Identifier: Apache-2.0
"""Windows of points that are rare."""

import pytest
import torch

from pointillist_hf.training.loop_config import LoopConfig
from pointillist_hf.training.windows import focused_start

LENGTH, WINDOW, POINT = 4 * 102, 80, 60


def draw(share, is_there=None, count=400):
    stream = torch.Generator().manual_seed(0)
    if is_there is None:
        is_there = torch.arange(100) == POINT
    return [focused_start(is_there, LENGTH, WINDOW, stream, share) for _ in range(count)]


def test_all_windows_have_the_point_anywhere_in_them():
    starts = draw(1.0)
    # The start tokens are the point before the first.
    places = {POINT + 1 - start // 4 for start in starts}
    assert places == set(range(WINDOW // 4))
    assert all(start % 4 == 0 for start in starts)


def test_a_share_of_the_windows_has_it():
    def count(starts):
        return sum(0 <= POINT + 1 - start // 4 < WINDOW // 4 for start in starts)

    chance = count(draw(0.0))
    assert count(draw(0.5)) == pytest.approx(200 + chance / 2, abs=30)


def test_points_at_the_ends_are_reached_by_windows_inside():
    for point in (0, 99):
        starts = draw(1.0, torch.arange(100) == point)
        assert min(starts) >= 0 and max(starts) <= LENGTH - WINDOW
    assert draw(1.0, torch.zeros(100, dtype=torch.bool)) != draw(1.0)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_between_nothing_and_all(share, tmp_path):
    with pytest.raises(ValueError, match="`focus_share` must"):
        LoopConfig(str(tmp_path), focus_share=share)
