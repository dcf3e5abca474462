# SPDX-License-Identifier: Apache-2.0
"""What time it is, of the wall or of this thread, and when tokens came."""

from __future__ import annotations

import statistics
import time

import numpy as np
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from pointillist_hf.models.tokenization_points import TOKENS_PER_POINT

_read = time.perf_counter


def count_cpu_time() -> None:
    """Only the seconds that this thread is given count from here on."""
    global _read
    _read = time.thread_time


def now() -> float:
    """Seconds since some moment."""
    return _read()


class Clock(BaseStreamer):
    """The times at which tokens came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        """Takes the time."""
        self.times.append(now())

    def end(self) -> None:
        """Nothing more will come."""

    def seconds(self) -> float:
        """Per token, a median over whole points, tokens of a point not being equally dear.

        The first two tokens pay for the setting up.
        """
        times = np.array(self.times[2:])
        spans = times[TOKENS_PER_POINT:] - times[:-TOKENS_PER_POINT]
        return float(statistics.median(spans)) / TOKENS_PER_POINT
