# SPDX-License-Identifier: Apache-2.0
"""Many jobs over few processes, here or on a cluster.

Each has one thread, so that results do not depend on how many there are, nor on where.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from typing import TypeVar

import torch
from tqdm.auto import tqdm

from ..geometry.number_checks import check_integer
from .cluster import run_jobs_on_cluster

MAX_PROCESSES = 1024

Job, Result = TypeVar("Job"), TypeVar("Result")


def run_jobs(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    num_proc: int = 1,
    cluster: str | None = None,
    unit: str = "job",
    show_progress: bool = True,
) -> Iterator[tuple[Job, Result]]:
    """Jobs with their results as they end, under a bar.

    An error in a job ends the run; jobs that may fail return what went wrong.

    Args:
        work: A function that other processes can import, or a `partial` of one.
        jobs: Its arguments.
        num_proc: 1 works in this process, with its threads as they are.
        cluster: Address of a dask scheduler, whose workers do the jobs instead.
        unit: What the bar counts.
        show_progress: Whether to draw it.
    """
    check_integer("num_proc", num_proc, 1, MAX_PROCESSES)
    if cluster is not None and num_proc > 1:
        raise ValueError(
            f"`num_proc` must be 1 with `cluster`, whose workers are counted there; got {num_proc}."
        )
    if cluster is not None and jobs:
        results = run_jobs_on_cluster(work, jobs, cluster)
    elif num_proc > 1:
        results = _run_in_pool(work, jobs, num_proc)
    else:
        results = ((job, work(job)) for job in jobs)
    with tqdm(total=len(jobs), unit=unit, disable=not show_progress) as bar, closing(results):
        for result in results:
            yield result
            bar.update()


def _run_in_pool(
    work: Callable[[Job], Result], jobs: Sequence[Job], num_proc: int
) -> Iterator[tuple[Job, Result]]:
    # Forked children would inherit torch's thread pool in an unusable state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_proc, context, _use_one_thread) as pool:
        waiting = {pool.submit(work, job): job for job in jobs}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BaseException:
            # Leaving the pool would wait for all that are still to come.
            pool.shutdown(cancel_futures=True)
            raise


def _use_one_thread() -> None:
    torch.set_num_threads(1)
