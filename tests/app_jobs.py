# SPDX-License-Identifier: Apache-2.0
"""Jobs for the worker of the app that go wrong in every way a job can."""

import os
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    process: int
    num_points: int


@dataclass(frozen=True)
class Count:
    """Tells numbers, and answers with its process."""

    upto: int = 3

    def run(self, pipe, tell):
        for number in range(self.upto):
            tell("count", number)
        return Answer(os.getpid(), pipe.config.max_points)


@dataclass(frozen=True)
class Refuse:
    """What a visitor can mend."""

    def run(self, pipe, tell):
        raise ValueError("`image` must be a picture, got a song.")


@dataclass(frozen=True)
class Stumble:
    """A fault of ours."""

    def run(self, pipe, tell):
        return {}["secret"]


@dataclass(frozen=True)
class Die:
    """As when memory runs out."""

    def run(self, pipe, tell):
        os._exit(9)


@dataclass(frozen=True)
class Sleep:
    """Says nothing for ever."""

    def run(self, pipe, tell):
        time.sleep(3600)


@dataclass(frozen=True)
class Chat:
    """Says something all the time."""

    def run(self, pipe, tell):
        for number in range(3600):
            tell("chat", number)
            time.sleep(0.05)
