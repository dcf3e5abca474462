# SPDX-License-Identifier: Apache-2.0
"""The threads of one generation by the compiled kernels: how many, and that none is left waiting.

Plain Python threads carry the kernels, as in `rendering.cpu.backend` and for the same reasons. They
belong to one generation, so nothing is left over that a fork could break, and two generations at a
time cannot wait for each other's threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from numpy import ndarray

# Calls between trials of other numbers of threads, and how much faster one must be.
FIRST_PAUSE, LONGEST_PAUSE, CLEARLY = 2, 64, 0.9


class ThreadCount:
    """How many threads to call the kernels with: as many as help.

    Threads that wait for each other many times per token lose by it where others use the cores too:
    each waits until all have had their turn. Results have the same bits for any number, so it may
    change from call to call. Now and then a call tries half or twice as many.

    Args:
        most: Threads that there are.
    """

    def __init__(self, most: int) -> None:
        self.most, self.count = most, most
        self.pause, self.calls, self.tries_fewer = FIRST_PAUSE, 0, True
        self.pace = float("inf")

    def choose(self) -> tuple[int, bool]:
        """Threads of the next call, and whether it is a trial, which should be short."""
        self.calls += 1
        if self.most == 1 or self.calls <= self.pause:
            return self.count, False
        self.calls = 0
        fewer, more = max(self.count // 2, 1), min(2 * self.count, self.most)
        trial = fewer if (self.tries_fewer or more == self.count) and fewer < self.count else more
        self.tries_fewer = not self.tries_fewer
        return trial, True

    def learn(self, count: int, seconds: float) -> None:
        """Takes notice of the seconds that a step took."""
        if count == self.count:
            self.pace = seconds
        elif seconds < CLEARLY * self.pace:
            self.count, self.pace, self.pause = count, seconds, FIRST_PAUSE
        else:
            self.pause = min(2 * self.pause, LONGEST_PAUSE)


def run_together(pool: ThreadPoolExecutor, tasks: list[Callable[[], int]], barrier: ndarray) -> int:
    """Runs the first task here and the others beside it; what the first returns."""
    others = [pool.submit(task) for task in tasks[1:]]
    try:
        return tasks[0]()
    except BaseException:
        barrier[1] = 1  # the others would wait for this one without end
        raise
    finally:
        for other in others:
            other.result()
