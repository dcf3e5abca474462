# SPDX-License-Identifier: Apache-2.0
import time
from functools import partial

import pytest

from pointillist_hf.data.work_pool import run_jobs


def note_job(job, folder):
    if job == 0:
        raise ValueError("the first job fails")
    time.sleep(0.1)
    (folder / str(job)).write_text("")
    return -job


@pytest.mark.parametrize("num_proc", [1, 2])
def test_results_come_with_their_jobs(num_proc, tmp_path):
    work = partial(note_job, folder=tmp_path)
    results = run_jobs(work, [1, 2, 3], num_proc=num_proc, show_progress=False)
    assert sorted(results) == [(1, -1), (2, -2), (3, -3)]


@pytest.mark.parametrize("num_proc", [1, 2])
def test_an_error_ends_the_run(num_proc, tmp_path):
    work = partial(note_job, folder=tmp_path)
    with pytest.raises(ValueError, match="the first job fails"):
        list(run_jobs(work, list(range(40)), num_proc=num_proc, show_progress=False))
    assert len([*tmp_path.iterdir()]) < 20


def test_no_process_is_refused():
    with pytest.raises(ValueError, match="`num_proc` must be a whole number, 1 to"):
        list(run_jobs(note_job, [1], num_proc=0))
