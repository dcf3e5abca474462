# SPDX-License-Identifier: Apache-2.0
"""The process that makes avatars: what a job does to it, the next one does not feel."""

import os
import time

import pytest
from app_jobs import Chat, Count, Die, Refuse, Sleep, Stumble

from pointillist_hf.app.worker import DEATH, FAULT, JobError, StoppedError, Worker

pytestmark = pytest.mark.slow  # each process loads torch


@pytest.fixture(scope="module")
def worker(tiny_pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline.save_pretrained(folder)
    worker = Worker(str(folder))
    worker.start()
    yield worker
    worker.close()


def test_a_job_tells_and_answers(worker):
    told = []
    answer = worker.run(Count(), lambda *news: told.append(news))
    assert [*dict.fromkeys(told)] == [("count", 0), ("count", 1), ("count", 2)]
    assert answer.process not in (None, os.getpid())
    assert answer.num_points == 6


@pytest.mark.parametrize(
    ("job", "sentence"), [(Refuse(), "`image` must be a picture, got a song."), (Stumble(), FAULT)]
)
def test_an_error_becomes_a_sentence_and_the_process_stays(job, sentence, worker):
    before = worker.run(Count()).process
    with pytest.raises(JobError) as caught:
        worker.run(job)
    assert str(caught.value) == sentence
    assert worker.run(Count()).process == before


def test_a_process_that_dies_is_replaced(worker):
    before = worker.run(Count()).process
    with pytest.raises(JobError, match=DEATH):
        worker.run(Die())
    assert worker.run(Count()).process != before


def test_a_process_that_died_between_jobs_is_replaced(worker):
    before = worker.run(Count()).process
    os.kill(before, 9)
    worker._process.join()
    assert worker.run(Count()).process != before


def test_what_takes_too_long_is_ended(worker, monkeypatch):
    before = worker.run(Count()).process
    monkeypatch.setattr(worker, "time_limit", 0.5)
    with pytest.raises(JobError, match=r"longer than 0\.5 seconds"):
        worker.run(Sleep())
    monkeypatch.undo()
    assert worker.run(Count()).process != before


def test_what_nobody_wants_is_stopped(worker):
    before = worker.run(Count()).process
    start = time.monotonic()
    with pytest.raises(StoppedError):
        worker.run(Chat(), is_wanted=lambda: time.monotonic() < start + 0.3)
    assert worker.run(Count()).process == before


def test_a_stop_that_comes_too_late_stops_nothing_else(worker):
    answers = iter([True, False])  # wanted when the job begins, and never again
    before = worker.run(Count(0), is_wanted=lambda: next(answers, False)).process
    assert worker.run(Count(50)).process == before


def test_an_error_of_the_listener_leaves_no_news_behind(worker):
    def hang_up(step, done):
        raise ConnectionError("the visitor has left")

    with pytest.raises(ConnectionError):
        worker.run(Count(5), hang_up)
    assert worker.run(Count()).num_points == 6


def test_a_model_that_cannot_be_loaded_is_named(tmp_path):
    worker = Worker(str(tmp_path))
    with pytest.raises(JobError, match="pretrained_model_name_or_path"):
        worker.wait()
    assert worker._process is None
