# SPDX-License-Identifier: Apache-2.0
"""Points as they are decoded, and how to end a generation early."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Queue

import torch
from torch import Tensor
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from ..geometry.structures import CanonicalPoints
from ..models.tokenization_points import TOKENS_PER_POINT, PointTokenizer

logger = logging.getLogger(__name__)


class PointStreamer(BaseStreamer):
    """Calls back with every point once the token after it is there.

    Until then a point may still be lost: if the generation is stopped, its last token has no state.

    Args:
        tokenizer: Tokens to points.
        callback: Gets the row of the batch and the point, a cloud of one. Clouds that a pipeline
            aligns (`align_points`) come as they are before that; those of several candidates
            (`num_candidates`) come when one has been chosen.

    Example:
        >>> streamer = PointStreamer(pipe.tokenizer, lambda row, point: print(row, point.means))
        >>> pipe(image, streamer=streamer)
    """

    def __init__(
        self, tokenizer: PointTokenizer, callback: Callable[[int, CanonicalPoints], None]
    ) -> None:
        self.tokenizer, self.callback = tokenizer, callback
        self._tokens: list[Tensor] = []

    def put(self, value: Tensor) -> None:
        """Takes the next token of every row [B]; a prompt [B, L] is passed over."""
        if value.ndim == 2:
            self._tokens = []
            return
        self._tokens.append(value)
        if len(self._tokens) <= TOKENS_PER_POINT:
            return
        ids, self._tokens = torch.stack(self._tokens[:-1], dim=1), [value]
        for row, point in enumerate(ids):
            if point[0] < self.tokenizer.layout.bos_token_id:
                self.callback(row, self.tokenizer.decode_points(point))

    def end(self) -> None:
        """Nothing more will come."""


class PointIterator(PointStreamer):
    """Iterates over (row, point) while another thread generates.

    Args:
        tokenizer: Tokens to points.
        timeout: Seconds to wait for a point before `queue.Empty` is raised; None waits for ever.

    Example:
        >>> points = PointIterator(pipe.tokenizer)
        >>> thread = Thread(target=pipe, args=(image,), kwargs={"streamer": points})
        >>> thread.start()
        >>> for row, point in points:
        ...     draw(point.means)
    """

    def __init__(self, tokenizer: PointTokenizer, timeout: float | None = None) -> None:
        self._queue: Queue = Queue()
        self._timeout = timeout
        super().__init__(tokenizer, lambda row, point: self._queue.put((row, point)))

    def end(self) -> None:
        """Ends the iteration."""
        self._queue.put(None)

    def __iter__(self) -> Iterator[tuple[int, CanonicalPoints]]:
        while (item := self._queue.get(timeout=self._timeout)) is not None:
            yield item


class PointCounter(BaseStreamer):
    """Calls back with the number of points that have been completed, over all rows.

    A point counts when the token after it is there, see `PointStreamer`.

    Args:
        callback: Gets the number since the last call.
        end_token_id: First id that is no part of a point.
    """

    def __init__(self, callback: Callable[[int], None], end_token_id: int) -> None:
        self.callback, self.end_token_id = callback, end_token_id
        self._length, self._last = 0, None

    def put(self, value: Tensor) -> None:
        """Takes the next token of every row [B]; a prompt [B, L] is passed over."""
        if value.ndim == 2:
            self._length = 0
            return
        if self._length and self._length % TOKENS_PER_POINT == 0:
            self.callback(int((self._last < self.end_token_id).sum()))
        self._length, self._last = self._length + 1, value

    def end(self) -> None:
        """Nothing more will come."""


class StreamerGroup(BaseStreamer):
    """Several streamers as one."""

    def __init__(self, streamers: Sequence[BaseStreamer]) -> None:
        self.streamers = streamers

    def put(self, value: Tensor) -> None:
        """Passes tokens on."""
        for streamer in self.streamers:
            streamer.put(value)

    def end(self) -> None:
        """Passes the end on."""
        for streamer in self.streamers:
            streamer.end()


class FirstRows(BaseStreamer):
    """Passes on the tokens of the first of every so many rows.

    Args:
        streamer: Gets them.
        num_rows: Rows, of which one is passed on.
    """

    def __init__(self, streamer: BaseStreamer, num_rows: int) -> None:
        self.streamer, self.num_rows = streamer, num_rows

    def put(self, value: Tensor) -> None:
        """Takes tokens [B num_rows] or a prompt [B num_rows, L]."""
        self.streamer.put(value[:: self.num_rows])

    def end(self) -> None:
        """Passes the end on."""
        self.streamer.end()


def replay(input_ids: Tensor, streamer: BaseStreamer) -> None:
    """Gives sequences [B, 4 (N + 2)] to a streamer, as if they were drawn now."""
    streamer.put(input_ids[:, :TOKENS_PER_POINT])
    for column in input_ids[:, TOKENS_PER_POINT:].cpu().unbind(1):
        streamer.put(column)
    streamer.end()


class StopOnEvent(StoppingCriteria):
    """Ends all rows when an event is set."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:
        """[B]"""
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


@contextmanager
def stop_on_interrupt(event: threading.Event) -> Iterator[threading.Event]:
    """While open, the first Ctrl-C sets the event; the second one interrupts as ever.

    Other threads than the main one get no signals, and a handler of the user's own stays.

    Yields:
        An event that only Ctrl-C sets.
    """
    interruption = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interruption
        return

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        logger.warning("Interrupted: the points so far are kept. Once more to stop the program.")
        event.set()
        interruption.set()

    signal.signal(signal.SIGINT, stop)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
