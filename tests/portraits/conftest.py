# SPDX-License-Identifier: Apache-2.0
"""The tracker as it is published, and a photograph."""

from pathlib import Path

import pytest

from pointillist_hf.portraits.portrait_tracker import PortraitTracker

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def tracker_folder():
    return ROOT / "model_cards/pointillist-tiny/portrait_tracker"


@pytest.fixture(scope="session")
def tracker(tracker_folder):
    return PortraitTracker.from_pretrained(tracker_folder)


@pytest.fixture(scope="session")
def astronaut():
    """A picture of 512 x 512 pixels with one face, upright and from the front."""
    return ROOT / "examples/images/astronaut.jpg"
