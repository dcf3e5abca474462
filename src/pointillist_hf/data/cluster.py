# SPDX-License-Identifier: Apache-2.0
"""Jobs over the machines of a dask cluster; nothing else in the package imports dask.

All machines see the same folders under the same paths, and have the same version of the package.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 15

Job, Result = TypeVar("Job"), TypeVar("Result")

# The compiled kernels share one pool of threads in a process, and crash if two jobs use it.
_ONE_AT_A_TIME = threading.Lock()


def run_jobs_on_cluster(
    work: Callable[[Job], Result], jobs: Sequence[Job], address: str
) -> Iterator[tuple[Job, Result]]:
    """Jobs with their results as they end; those of a worker that died are done by the others.

    Raises:
        ImportError: dask.distributed is not installed.
        ConnectionError: No scheduler answers at the address.
        ValueError: A worker has several threads.
    """
    client = connect(address)
    try:
        from distributed import as_completed

        _check_workers(client)
        # A job has effects, so equal ones are not to be done once.
        futures = client.map(partial(_work_alone, work), jobs, pure=False)
        waiting = dict(zip(futures, jobs, strict=True))
        try:
            for done in as_completed(futures, loop=client.loop):
                yield waiting[done], done.result()
                # The scheduler keeps results as long as somebody asks for them.
                done.release()
        except BaseException:
            client.cancel(futures, force=True)
            raise
    finally:
        client.close()


def connect(address: str) -> Client:
    """A client of the scheduler at an address, such as tcp://10.0.0.1:8786.

    Raises:
        ImportError: dask.distributed is not installed.
        ConnectionError: No scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError(
            '`cluster` needs dask.distributed: pip install "pointillist-hf[cluster]", on all '
            "machines."
        ) from error
    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ConnectionError(
            "`cluster` must be the address of a dask scheduler that answers, such as "
            f"tcp://10.0.0.1:8786, got {address!r}. `dask scheduler` starts one and says its "
            f"address. {error}"
        ) from error


def seen_from(cluster: str | None, path: str | Path | None) -> Path | None:
    """A path as who does the work finds it: on a cluster, others work in other folders."""
    if path is None:
        return None
    return Path(path) if cluster is None else Path(path).absolute()


def _check_workers(client: Client) -> None:
    threads = client.nthreads()
    many = sorted(worker for worker, number in threads.items() if number > 1)
    if many:
        raise ValueError(
            "`cluster` must have workers of one thread, or they compute one job and hold back "
            f"others; {many[0]} has {threads[many[0]]}. Start them by `dask worker ADDRESS "
            "--nworkers N --nthreads 1`."
        )


def _work_alone(work: Callable[[Job], Result], job: Job) -> Result:
    """Runs on a worker, as a process of this machine's pool would."""
    with _ONE_AT_A_TIME:
        torch.set_num_threads(1)
        return work(job)
