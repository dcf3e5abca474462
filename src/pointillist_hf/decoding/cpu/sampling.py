# SPDX-License-Identifier: Apache-2.0
"""Grammar and sampling inside the decoding kernels: `PointGrammar` and `SeededSampling` again.

The noise is that of torch's CPU generator, number for number, but only the numbers that can decide
a draw are made. numba's cache of `points` notices no edits in this file: delete `__pycache__`
after one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy import ndarray

from ...kernels.compilation import compile_part
from ...kernels.exp2 import exp2
from .arithmetic import F32, LOG2_E, ONE, START, ZERO, U, larger
from .records import SLOTS

NUM_SLOTS = np.int64(SLOTS)  # not a literal, for which parts would be compiled anew
WORDS = 624  # of the Mersenne twister's state
u32 = np.uint32
LEAST = F32(-3e38)
# A draw is looked at when it might win; the margin covers the rounding of that estimate.
MARGIN = F32(1.001)
FEW = 16  # tokens that are looked at before there is a best score to speak of


class Rules(NamedTuple):
    """Grammar, guidance and sampling, of all clouds."""

    firsts: ndarray  # [4] first id of each slot
    counts: ndarray  # [4] ids of each slot
    ranks: ndarray  # [4] place of each slot in the sort key
    num_sorted: int  # axes of the sort key, from the first one on, in whose order points come
    has_every_face: bool  # the binding comes first, and never skips a face
    num_plain_slots: int  # the first ones of a point, drawn without temperature and `min_p`
    min_points: int
    max_points: int
    max_points_per_face: int  # where faces come in their order
    end: int  # id
    vocabulary: int
    temperature: float
    log_min_p: float  # zero or less; -inf cuts nothing
    guidance_scale: float  # of the first of two streams against the second, see `guidance`
    num_streams: int  # rows of a cloud, side by side: 1, or 2 with guidance


class Draws(NamedTuple):
    """Of each of C clouds: last and current point, random numbers, and room for a draw."""

    marks: ndarray  # [C WORDS / 2] who may win, of the tokens whose words there are
    points: ndarray  # [C, 2, 4] in the order of the sort key; what is not known yet is the largest
    twister: ndarray  # [C WORDS]
    words: ndarray  # [C, 2] words that earlier tokens had, and words made so far
    on_face: ndarray  # [C] points of the last face so far, where faces come first


@compile_part()
def _twist(twister: ndarray, at: int) -> None:
    """The next WORDS words of a Mersenne twister, not yet tempered."""
    # Three loops, so that each has a fixed distance between what it reads and what it writes, on a
    # part of the array that starts at zero: otherwise they stay scalar.
    state = twister[at : at + WORDS]
    high, low, matrix, one = u32(0x80000000), u32(0x7FFFFFFF), u32(0x9908B0DF), u32(1)
    for k in range(U(227)):
        y = (state[k] & high) | (state[k + U(1)] & low)
        state[k] = state[k + U(397)] ^ (y >> one) ^ ((y & one) * matrix)
    for k in range(U(227), U(623)):
        y = (state[k] & high) | (state[k + U(1)] & low)
        state[k] = state[k - U(227)] ^ (y >> one) ^ ((y & one) * matrix)
    y = (state[U(623)] & high) | (state[U(0)] & low)
    state[U(623)] = state[U(396)] ^ (y >> one) ^ ((y & one) * matrix)


@compile_part()
def _temper(word: int) -> int:
    word ^= word >> u32(11)
    word ^= (word << u32(7)) & u32(0x9D2C5680)
    word ^= (word << u32(15)) & u32(0xEFC60000)
    return word ^ (word >> u32(18))


@compile_part()
def uniform(twister: ndarray, at: int) -> float:
    """What `torch.rand(vocabulary, dtype=float64)` has for a token, from where its words are."""
    first, second = _temper(twister[at]), _temper(twister[at + 1])
    bits = (np.uint64(first) << np.uint64(32)) | np.uint64(second)
    return np.float64(bits & np.uint64((1 << 53) - 1)) * 2.0**-53


@compile_part()
def find_words(draws: Draws, b: int, token: int) -> tuple[int, int]:
    """Where the words of a token are, which are made now, and of how many tokens from it on.

    Ask in ascending order.
    """
    word = draws.words[b, 0] + 2 * token
    while draws.words[b, 1] <= word:
        _twist(draws.twister, b * WORDS)
        draws.words[b, 1] += WORDS
    left = draws.words[b, 1] - word
    return (b + 1) * WORDS - left, left // 2


@compile_part()
def _compare(points: ndarray, b: int, first: int, last: int) -> int:
    """Current point against the last one on a part of the sort key: 1, 0 or -1."""
    for rank in range(first, last):
        difference = points[b, 1, rank] - points[b, 0, rank]
        if difference != 0:
            return 1 if difference > 0 else -1
    return 0


@compile_part()
def _lowest(rules: Rules, points: ndarray, b: int, slot: int) -> int:
    """Smallest value of the slot that keeps the order, see `PointGrammar`."""
    rank = rules.ranks[slot]
    if _compare(points, b, START, rank) > 0:
        return 0
    repeats = _compare(points, b, rank + 1, rules.num_sorted) >= 0
    return points[b, 0, rank] + (0 if repeats else 1)


@compile_part()
def _find_best(logits: ndarray, start: int, first: int, stop: int) -> int:
    """Index of the likeliest token, the first of them if there are several."""
    top, winner = LEAST, first
    for i in range(first, stop):
        if logits[start + i] > top:
            top, winner = logits[start + i], i
    return winner


@compile_part()
def _scale(logits: ndarray, first: int, stop: int, temperature: float) -> float:
    """Divides logits by the temperature; the largest quotient."""
    top = LEAST
    for i in range(U(first), U(stop)):
        logits[i] /= temperature
        top = larger(top, logits[i])
    return top


@compile_part()
def _find_rivals(
    logits: ndarray, twister: ndarray, marks: ndarray, part: tuple, best: float, threshold: float
) -> int:
    """Notes the tokens of a part that might do better than the best score; their number."""
    logit_at, word_at, size = part
    for k in range(U(size)):
        # At most 2^-21 less than the number that the second word completes.
        word = _temper(twister[U(word_at) + U(2) * k])
        value = F32(np.int32(word & u32((1 << 21) - 1))) * F32(2.0**-21)
        # -log(-log1p(-u)) is at most -log(u): most draws lose without a logarithm.
        logit = logits[U(logit_at) + k]
        chance = exp2(-larger(best - logit, ZERO) * LOG2_E) * MARGIN
        marks[k] = (value < chance) & (logit >= threshold)
    count = 0
    for k in range(size):  # without a branch that nobody could foretell
        is_rival = marks[k]
        marks[count] = k
        count += is_rival
    return count


@compile_part()
def _find_logits(rules: Rules, b: int) -> int:
    """Where those of a cloud's first row start."""
    return b * rules.num_streams * rules.vocabulary


@compile_part()
def _guide(logits: ndarray, first: int, stop: int, rules: Rules) -> None:
    """Puts the logits of both streams into the first row, see `decoding.guidance`.

    Only those that may be drawn: others may be left from earlier draws, and would grow each time.
    """
    scale, distance = F32(rules.guidance_scale), U(rules.vocabulary)
    for i in range(U(first), U(stop)):
        blind = logits[i + distance]
        logits[i] = blind + scale * (logits[i] - blind)


@compile_part()
def _draw(rules: Rules, draws: Draws, b: int, place: tuple, logits: ndarray) -> int:
    """Index of the token that wins among [low, count), and the end if it may come.

    Args:
        rules: Of all clouds.
        draws: Of each cloud.
        b: Cloud.
        place: Slot, low, count, and the count again or one more if the end may come.
        logits: [B vocabulary]
    """
    slot, low, count, stop = place
    start, first = _find_logits(rules, b), min(low, count)
    if rules.num_streams == 2:
        _guide(logits, start + first, start + stop, rules)
    if rules.temperature == 0:
        return _find_best(logits, start, first, stop)
    is_plain = slot < rules.num_plain_slots
    temperature = ONE if is_plain else F32(rules.temperature)
    top = _scale(logits, start + first, start + stop, temperature)
    threshold, winner, best = top + F32(rules.log_min_p), first, LEAST
    if is_plain:
        threshold = LEAST
    i, most, marks = first, FEW, draws.marks[b * WORDS // 2 : (b + 1) * WORDS // 2]
    while i < stop:
        token = rules.firsts[slot] + i if i < count else rules.end
        at, left = find_words(draws, b, token)
        size = min(most, left, (count if i < count else stop) - i)
        part = start + i, at, size
        for n in range(_find_rivals(logits, draws.twister, marks, part, best, threshold)):
            k = marks[n]
            exponential = F32(-np.log1p(-uniform(draws.twister, at + 2 * k)))
            score = logits[start + i + k] - np.log(exponential)
            if score > best:
                best, winner = score, i + k
        i, most = i + size, min(2 * most, WORDS)
    return winner


@compile_part()
def _bound_face(rules: Rules, points: ndarray, b: int, num_points: int) -> tuple[int, int]:
    """First face, and one past the last, with which no face is left out, see `PointGrammar`."""
    count, previous = rules.counts[0], points[b, 0, 0] if num_points else -1
    last = min(previous + 1, count - 1)
    first = max(previous, 0, count - (rules.max_points - num_points))
    return min(first, last), last + 1


@compile_part()
def choose(b: int, position: int, rules: Rules, draws: Draws, logits: ndarray) -> int:
    """A cloud's token at a position, from the logits of what its slot may hold and of the end."""
    slot, num_points = position % 4, position // 4 - 1
    count, points = rules.counts[slot], draws.points
    if slot == 0:
        for s in range(4):
            rank = rules.ranks[s]
            points[b, 0, rank], points[b, 1, rank] = points[b, 1, rank], rules.counts[s] - 1
    is_kept = rules.ranks[slot] < rules.num_sorted and num_points > 0
    low = _lowest(rules, points, b, slot) if is_kept else 0
    may_end = slot == 0 and num_points >= rules.min_points
    if slot == 0 and rules.has_every_face:
        low, high = _bound_face(rules, points, b, num_points)
        may_end = may_end and num_points > 0 and points[b, 0, 0] == count - 1
        # What would come after the last face is the end.
        at = _find_logits(rules, b)
        for _ in range(rules.num_streams):
            logits[at + high] = logits[at + count]
            at += rules.vocabulary
        count = high
    if slot == 0 and draws.on_face[b] >= rules.max_points_per_face:
        low = max(low, points[b, 0, 0] + 1)
    if slot == 0 and num_points == rules.max_points:
        low = count
    may_end = may_end or (slot == 0 and low >= count)
    place = slot, low, count, count + 1 if may_end else count
    chosen = _draw(rules, draws, b, place, logits)
    draws.words[b, 0] += 2 * rules.vocabulary
    if chosen == count:
        return rules.end
    points[b, 1, rules.ranks[slot]] = chosen
    if slot == 0:
        draws.on_face[b] = draws.on_face[b] + 1 if chosen == points[b, 0, 0] else 1
    return rules.firsts[slot] + chosen
