# SPDX-License-Identifier: Apache-2.0
"""A process of its own that holds the pipeline and does one job after the other.

What a job does to memory, threads or the process ends with it: a worker that dies, or takes too
long, is replaced, and the server goes on answering. Only plain records go through the pipe.
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol

from ..cli_errors import explain
from ..first_use import warm_up_in_background
from ..pipeline_avatar import AvatarPipeline
from .jobs import JobCallback

logger = logging.getLogger(__name__)

TICK = 0.3  # seconds between looks at whether a job is still wanted
START_SECONDS = 600  # for a model that is still to be downloaded
FAULT = "Something went wrong, and it was not your doing. Please try again, or another photograph."
STOPPED = "Stopped; press the button to begin again."
DEATH = "The process that made it has ended, perhaps for want of memory. Please try again."


class Job(Protocol):
    """A record that the worker can run."""

    def run(self, pipe: AvatarPipeline, tell: JobCallback) -> object:
        """Does it; the answer is a record too."""


class JobError(ValueError):
    """A job that did not come to its end, in a sentence for the visitor."""


class StoppedError(JobError):
    """A job that its visitor has stopped."""


@dataclass(frozen=True)
class _Progress:
    step: str
    done: object


@dataclass(frozen=True)
class _Failure:
    sentence: str
    was_stopped: bool = False


@dataclass(frozen=True)
class _Ready:
    pass


@dataclass(frozen=True)
class _Stop:
    pass


class Worker:
    """Runs jobs, one at a time, for whoever asks first.

    Args:
        model: Of `AvatarPipeline.from_pretrained`.
        time_limit: Seconds of a job; what takes longer is ended with its process.
    """

    def __init__(self, model: str | None = None, time_limit: float = 180.0) -> None:
        self.model, self.time_limit = model, time_limit
        self._context = multiprocessing.get_context("spawn")  # threads do not survive a fork
        self._turn = threading.Lock()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self._is_ready = False

    def start(self) -> None:
        """Begins to load the pipeline, if no process has."""
        if self._process is not None:
            return
        self._connection, other = self._context.Pipe()
        arguments = (self.model, other)
        self._process = self._context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        other.close()  # so that the pipe breaks when the process ends
        self._is_ready = False

    def wait(self) -> None:
        """Waits until the pipeline is loaded.

        Raises:
            JobError: It cannot be loaded, in one sentence.
        """
        with self._turn:
            self._wait()

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.join()
            self._connection.close()

    def run(
        self,
        job: Job,
        on_progress: JobCallback | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> object:
        """What the job answers.

        Args:
            job: Waits until those before it are done.
            on_progress: Is told how far the job is, and told again while nothing changes.
            is_wanted: A job that is no longer wanted is stopped at its next word.

        Raises:
            JobError: It failed or took too long; the next job finds a worker as if new.
            StoppedError: It was not wanted any more.
        """
        with self._turn:
            self._wait()
            try:
                self._connection.send(job)
                answer = self._listen(self.time_limit, on_progress, is_wanted)
            except BaseException:
                self._replace("nobody is left to hear what it says.")
                raise
        if isinstance(answer, _Failure):
            raise (StoppedError if answer.was_stopped else JobError)(answer.sentence)
        return answer

    def _wait(self) -> None:
        if self._process is not None and not self._process.is_alive():
            self.close()
        self.start()
        if self._is_ready:
            return
        answer = self._listen(START_SECONDS, None, lambda: True)
        if isinstance(answer, _Failure):
            self.close()
            raise JobError(answer.sentence)
        self._is_ready = True

    def _listen(
        self, seconds: float, on_progress: JobCallback | None, is_wanted: Callable[[], bool]
    ) -> object:
        """The answer to a job; a failure if the process is too slow, or ends."""
        end, is_stopped, told = time.monotonic() + seconds, False, None
        while (left := end - time.monotonic()) > 0:
            if not is_stopped and not is_wanted():
                is_stopped = True
                self._connection.send(_Stop())
            try:
                news = self._connection.recv() if self._connection.poll(min(left, TICK)) else told
            except (EOFError, ConnectionError):
                return self._replace(DEATH)
            if not isinstance(news, _Progress | None):
                return news
            told = news
            if on_progress is not None and told is not None:
                on_progress(told.step, told.done)
        return self._replace(f"It took longer than {seconds:g} seconds, and was ended.")

    def _replace(self, sentence: str) -> _Failure:
        logger.warning("A worker is replaced: %s", sentence)
        self.close()
        self.start()
        return _Failure(sentence)


def _work(model: str | None, connection: Connection) -> None:
    """The life of the process."""
    try:
        pipe = AvatarPipeline.from_pretrained(model)
    except Exception as error:
        connection.send(_fail(error))
        return
    pipe.set_progress_bar_config(disable=True)
    warm_up_in_background(pipe)
    connection.send(_Ready())

    def tell(step: str, done: object) -> None:
        if connection.poll():  # nothing but a stop comes while a job is done
            connection.recv()
            raise StoppedError(STOPPED)
        connection.send(_Progress(step, done))

    while True:
        try:
            job = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return  # the server has ended
        if not isinstance(job, _Stop):  # which came too late for its job
            connection.send(_do(job, pipe, tell))


def _do(job: Job, pipe: AvatarPipeline, tell: JobCallback) -> object:
    try:
        return job.run(pipe, tell)
    except StoppedError as error:
        return _Failure(str(error), was_stopped=True)
    except Exception as error:
        return _fail(error)


def _fail(error: Exception) -> _Failure:
    sentence = explain(error)
    if sentence is None:
        logger.error("A job failed", exc_info=error)
    return _Failure(sentence or FAULT)
