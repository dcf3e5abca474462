# SPDX-License-Identifier: Apache-2.0
"""What stands in the viewer's place: the avatar's own page, or a picture until there is one."""

from __future__ import annotations

import html
import math

# Its scripts run, but cannot reach the page around it.
# Recordings are read by the app, which knows more dialects than the page does.
EMBEDDED = "<style>.take, aside strong, aside br { display: none; }</style></head>"
FRAME = '<iframe title="The avatar" sandbox="allow-scripts" srcdoc="{page}"></iframe>'
EMPTY = """<div class="empty"><svg viewBox="0 0 100 100" aria-hidden="true">{dots}</svg>
<strong>The head will be here</strong>
<span>Choose a photograph, then press the button. It takes about ten seconds.</span></div>"""
NUM_DOTS, GOLDEN_ANGLE = 260, math.pi * (3 - math.sqrt(5))
CLOUD = '<div class="empty cloud"><svg viewBox="-0.2 -0.17 0.4 0.36">{dots}</svg></div>'
WRITING_SECONDS = 4.0  # in which the points appear, one after the other
FIRST_HUE, LAST_HUE = 255, 400  # from blue over magenta to yellow


def show_page(page: str) -> str:
    """A page inside the page."""
    return FRAME.format(page=html.escape(page.replace("</head>", EMBEDDED, 1)))


def show_nothing() -> str:
    """The picture: points in the outline of a head."""
    return EMPTY.format(dots="".join(_dot(i) for i in range(NUM_DOTS)))


def show_cloud(cloud: list[list[float]]) -> str:
    """Points from the front, x, y, z in metres, that appear in the order in which they came."""
    share = 1 / max(len(cloud), 1)
    dots = [(z, _point(x, y, z, i * share)) for i, (x, y, z) in enumerate(cloud)]
    return CLOUD.format(dots="".join(dot for _, dot in sorted(dots)))  # what is behind comes first


def _point(x: float, y: float, z: float, share: float) -> str:
    """A point of a cloud. share: Of the points before it."""
    nearness = min(max((z + 0.13) / 0.2, 0.0), 1.0)
    hue = FIRST_HUE + share * (LAST_HUE - FIRST_HUE)
    fill = f"hsl({hue % 360:.0f} 80% {78 - 22 * nearness:.0f}%)"
    place = f'cx="{x:.4f}" cy="{-y:.4f}" r="{0.0016 + 0.0018 * nearness:.4f}"'
    return f'<circle {place} fill="{fill}" style="animation-delay:{share * WRITING_SECONDS:.2f}s"/>'


def _dot(index: int) -> str:
    """A point of a sunflower, narrower towards the chin."""
    radius = math.sqrt((index + 0.5) / NUM_DOTS)
    x, y = radius * math.cos(index * GOLDEN_ANGLE), radius * math.sin(index * GOLDEN_ANGLE)
    width = 31 - 9 * max(y, 0) ** 2
    hue = 235 + 75 * (y + 1) / 2
    place = f'cx="{50 + width * x:.1f}" cy="{50 + 43 * y:.1f}"'
    return f'<circle {place} r="{1.5 - 0.5 * radius:.2f}" fill="hsl({hue:.0f} 75% 66%)"/>'
