# SPDX-License-Identifier: Apache-2.0
import pytest
from hub_server import HubServer
from huggingface_hub import constants


@pytest.fixture
def hub(monkeypatch):
    """A Hub that the client of this process talks to, as "me"."""
    with HubServer() as server:
        # What the variables HF_ENDPOINT ... set when the library is imported.
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_me")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
