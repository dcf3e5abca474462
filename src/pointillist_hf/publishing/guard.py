# SPDX-License-Identifier: Apache-2.0
"""Whether something may be published: the one place where this is decided.

A private repository is no way round: what lies there was passed on to its host, and becomes public
with a click.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .manifest import NO_LICENCES, PartLicence
from .restrictions import Restriction, name_words

SHOWN = 4  # reasons in a message


@dataclass(frozen=True)
class Terms:
    """What the publisher says.

    Args:
        licence: That the whole is published under, as the Hub names it; by default that of its
            parts, if they have the same.
        rights: Why they may publish what is bound to others, in a sentence; it is published too.
    """

    licence: str | None = None
    rights: str | None = None


def settle_licence(
    parts: Mapping[str, PartLicence], restrictions: Sequence[Restriction], terms: Terms
) -> str:
    """The licence of the whole.

    Args:
        parts: Those whose licence is known.
        restrictions: What they are bound to, and parts of which nothing is known.
        terms: What the publisher says.

    Raises:
        ValueError: It may not be published, or not without a word of the publisher.
    """
    reasons = [f"{one.part} {one.reason}" for one in restrictions]
    for name, part in parts.items():
        reasons += [f"{name} comes from {reason}" for reason in name_words(part.source)]
        if part.licence in NO_LICENCES:
            reasons.append(f"{name} ({part.source}) stands under no licence that allows it")
    given = (terms.licence or "").strip()
    licences = sorted({part.licence for part in parts.values()} - {*NO_LICENCES})
    if given:
        others = [name for name in licences if name != given and not is_permissive(name)]
        reasons += [f"a part stands under {name}, and not under {given}" for name in others]
    if reasons and not (terms.rights or "").strip():
        raise ValueError(_refuse(reasons))
    if given and given not in NO_LICENCES:
        return given
    if len(licences) == 1 and not reasons:
        return licences[0]
    raise ValueError(
        "`licence` must be given, as the Hub names it (apache-2.0, cc-by-4.0 ...): the parts "
        f"{'have ' + ', '.join(licences) if licences else 'have none that is known'}."
    )


def is_permissive(licence: str) -> bool:
    """Whether works under this licence may become part of one under another."""
    return licence in ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0")


def _refuse(reasons: list[str]) -> str:
    more = f" (and {len(reasons) - SHOWN} more)" if len(reasons) > SHOWN else ""
    return (
        f"This must not be published: {'; '.join(reasons[:SHOWN])}{more}. A private repository "
        "changes nothing. If you hold the rights, say in `rights` what they are, and give "
        "`licence`; both are published with it."
    )
