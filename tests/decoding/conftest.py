# SPDX-License-Identifier: Apache-2.0
"""A generator of each head, conditioning for it, and as many threads as are asked for."""

import pytest
import torch
from tiny_generators import CONTEXT, HEADS, build_generator

from pointillist_hf.decoding.cpu import decoder


@pytest.fixture(autouse=True)
def many_threads(monkeypatch):
    """The compiled engine takes as many threads as torch has, however little there is to do."""
    monkeypatch.setattr(decoder, "WEIGHTS_PER_THREAD", 1)


@pytest.fixture(scope="module", params=HEADS)
def model(request):
    return build_generator(**HEADS[request.param])


@pytest.fixture
def context():
    return torch.randn(3, 5, CONTEXT)
