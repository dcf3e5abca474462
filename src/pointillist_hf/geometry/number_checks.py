# SPDX-License-Identifier: Apache-2.0
"""Numbers at the doors: whole or finite, and within bounds, before anything is made of them."""

from __future__ import annotations

import math
import operator

from torch import Tensor

MAX_SEED = 2**64 - 1  # what torch's generators take


def check_integer(name: str, value: object, low: int, high: int | None = None) -> int:
    """A whole number, of Python, numpy or torch, as Python's.

    Raises:
        ValueError: It is no whole number, or lies beyond the bounds.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # ty: ignore
    except TypeError:
        number = None
    if number is None or number < low or (high is not None and number > high):
        rule = f"at least {low}" if high is None else f"{low} to {high}"
        raise ValueError(f"`{name}` must be a whole number, {rule}, got {shorten(value)}.")
    return number


def check_number(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: bool = False,
) -> float:
    """A finite number as Python's.

    Args:
        name: Of the argument.
        value: The number.
        low: Its least value.
        high: Its largest value.
        above: Whether `low` itself is refused.

    Raises:
        ValueError: It is no finite number, or lies beyond the bounds.
    """
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)  # ty: ignore
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if not (math.isfinite(number) and low <= number <= high) or (above and number == low):
        rules = []
        if low > -math.inf:
            rules.append(f"{'more than' if above else 'at least'} {low:g}")
        if high < math.inf:
            rules.append(f"at most {high:g}")
        rule = "".join(f", {text}" for text in rules)
        raise ValueError(f"`{name}` must be a finite number{rule}, got {shorten(value)}.")
    return number


def check_finite(name: str, tensor: Tensor) -> None:
    """Refuses tensors with NaN or infinity.

    Raises:
        ValueError: There is one.
    """
    if not tensor.isfinite().all():
        raise ValueError(f"`{name}` must be finite, got NaN or infinity.")


def check_seed(name: str, value: object) -> int:
    """A seed of torch's generators, see `check_integer`."""
    return check_integer(name, value, 0, MAX_SEED)


def shorten(value: object, limit: int = 60) -> str:
    """A value as it is written, cut where it is long."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**30:
        return f"a number of about 10^{math.floor(abs(value).bit_length() * math.log10(2))}"
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
