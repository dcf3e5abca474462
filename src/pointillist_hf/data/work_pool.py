# SPDX-License-Identifier: Apache-2.0
"""Many jobs over few processes, each of one thread, so that results do not depend on how many."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import torch
from tqdm.auto import tqdm

from ..geometry.number_checks import check_integer

MAX_PROCESSES = 1024

Job, Result = TypeVar("Job"), TypeVar("Result")


def run_jobs(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    num_proc: int = 1,
    unit: str = "job",
    show_progress: bool = True,
) -> Iterator[tuple[Job, Result]]:
    """Jobs with their results as they end, under a bar.

    An error in a job ends the run; jobs that may fail return what went wrong.

    Args:
        work: A function that other processes can import, or a `partial` of one.
        jobs: Its arguments.
        num_proc: 1 works in this process, with its threads as they are.
        unit: What the bar counts.
        show_progress: Whether to draw it.
    """
    check_integer("num_proc", num_proc, 1, MAX_PROCESSES)
    with tqdm(total=len(jobs), unit=unit, disable=not show_progress) as bar:
        if num_proc == 1:
            for job in jobs:
                yield job, work(job)
                bar.update()
            return
        # Forked children would inherit torch's thread pool in an unusable state.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(num_proc, context, _use_one_thread) as pool:
            waiting = {pool.submit(work, job): job for job in jobs}
            try:
                for done in as_completed(waiting):
                    yield waiting[done], done.result()
                    bar.update()
            except BaseException:
                # Leaving the pool would wait for all that are still to come.
                pool.shutdown(cancel_futures=True)
                raise


def _use_one_thread() -> None:
    torch.set_num_threads(1)
