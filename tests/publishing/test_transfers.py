# SPDX-License-Identifier: Apache-2.0
"""Uploads and downloads that are refused, cut off and taken up again."""

import json
import time

import pytest
import torch
from hub_server import READ_ONLY
from huggingface_hub import HfApi, constants

from pointillist_hf import Avatar
from pointillist_hf.publishing.download import AVATAR_PATTERNS, fetch_folder

# The client's own, of the library that it speaks with.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

WORDS = {"licence": "cc-by-4.0", "rights": "Nobody: forty random points.", "preview": False}


def push(avatar, **options):
    return avatar.push_to_hub("me/avatar", **{**WORDS, **options})


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """The client waits for seconds before it asks again."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))


def same(first, second):
    return torch.equal(first.gaussians.means, second.gaussians.means) and torch.equal(
        first.betas, second.betas
    )


def test_an_avatar_comes_back(hub, tiny_avatar, tmp_path):
    publication = push(tiny_avatar)
    sent = hub.files("me/avatar")
    assert publication.url.startswith(f"{hub.address}/me/avatar/commit/")
    assert {file.path: file.size for file in publication.files} == {
        path: len(content) for path, content in sent.items()
    }
    assert same(Avatar.from_pretrained("me/avatar", cache_dir=tmp_path), tiny_avatar)
    first = hub.repositories["model", "me/avatar"].commits[1][0]
    push(tiny_avatar, commit_message="Again")
    assert hub.repositories["model", "me/avatar"].messages[-1] == "Again"
    pinned = Avatar.from_pretrained("me/avatar", cache_dir=tmp_path, revision=first)
    assert same(pinned, tiny_avatar)


def test_nothing_is_sent_that_is_refused_or_only_tried(hub, tiny_avatar):
    with pytest.raises(ValueError, match="likeness"):
        push(tiny_avatar, rights=None)
    assert push(tiny_avatar, dry_run=True).url is None
    assert not hub.requests


@pytest.mark.parametrize(
    ("token", "advice"),
    [
        ("hf_nobody", r"the Hub answered 401 .*log in with `hf auth login`"),
        (READ_ONLY, r"the Hub answered 403 .*use a token that may write there"),
    ],
)
def test_tokens_that_may_not_write(hub, tiny_avatar, token, advice):
    with pytest.raises(OSError, match=advice):
        push(tiny_avatar, token=token)
    assert not hub.repositories


def test_a_hub_that_is_busy(hub, tiny_avatar):
    hub.fail("POST", "/preupload/", 429, times=100)
    with pytest.raises(OSError, match=r"the Hub answered 429 .*wait some minutes"):
        push(tiny_avatar)
    hub.faults.clear()
    assert push(tiny_avatar).url


def test_public_repositories_are_not_taken_for_private_ones(hub, tiny_avatar):
    push(tiny_avatar, private=True)
    assert hub.repositories["model", "me/avatar"].private
    hub.repositories["model", "me/avatar"].private = False
    commits = len(hub.repositories["model", "me/avatar"].commits)
    with pytest.raises(ValueError, match="me/avatar exists and is public"):
        push(tiny_avatar, private=True)
    assert len(hub.repositories["model", "me/avatar"].commits) == commits


def test_private_avatars_are_their_owners(hub, tiny_avatar, tmp_path):
    push(tiny_avatar, private=True)
    assert same(Avatar.from_pretrained("me/avatar", cache_dir=tmp_path / "me"), tiny_avatar)
    with pytest.raises(OSError, match=r"is no folder here, and the Hub answered 404"):
        Avatar.from_pretrained("me/avatar", cache_dir=tmp_path / "other", token="hf_other")


def test_an_upload_that_is_cut_leaves_nothing_half_and_goes_on(hub, tiny_avatar):
    hub.fail("POST", "/commit/", times=100)
    with pytest.raises(OSError, match=r"me/avatar was not written: the connection was lost"):
        push(tiny_avatar)
    assert hub.files("me/avatar") == {}
    hub.faults.clear()
    before = hub.uploaded_bytes
    assert before > 0
    assert push(tiny_avatar).url
    assert hub.uploaded_bytes == before  # what had arrived is not sent again


def test_a_download_that_is_cut_goes_on(hub, tiny_avatar, tmp_path):
    push(tiny_avatar)
    hub.fail("GET", r"resolve/.*/avatar\.safetensors", times=2)
    assert same(Avatar.from_pretrained("me/avatar", cache_dir=tmp_path), tiny_avatar)


def test_a_download_that_fails_leaves_no_half_avatar(hub, tiny_avatar, tmp_path):
    push(tiny_avatar)
    hub.fail("GET", r"resolve/.*/avatar\.safetensors", 500, times=100)
    with pytest.raises(OSError, match="the Hub answered 500"):
        Avatar.from_pretrained("me/avatar", cache_dir=tmp_path)
    assert not list(tmp_path.rglob("snapshots/*/avatar.safetensors"))
    hub.faults.clear()
    assert same(Avatar.from_pretrained("me/avatar", cache_dir=tmp_path), tiny_avatar)


def test_the_cache_serves_without_a_network(hub, tiny_avatar, tmp_path, monkeypatch):
    push(tiny_avatar)
    Avatar.from_pretrained("me/avatar", cache_dir=tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same(Avatar.from_pretrained("me/avatar", cache_dir=tmp_path), tiny_avatar)
    with pytest.raises(FileNotFoundError, match="not in the cache of the Hub"):
        Avatar.from_pretrained("me/other", cache_dir=tmp_path)
    with pytest.raises(OSError, match="HF_HUB_OFFLINE is set; unset it to upload"):
        push(tiny_avatar)


def test_folders_go_before_repositories(hub, tiny_avatar, tmp_path):
    tiny_avatar.save_pretrained(tmp_path / "me")
    assert fetch_folder(tmp_path / "me", AVATAR_PATTERNS) == tmp_path / "me"
    assert not hub.requests


def test_other_files_of_a_repository_stay(hub, tiny_avatar):
    push(tiny_avatar)
    HfApi().upload_file(path_or_fileobj=b"x", path_in_repo="mine.txt", repo_id="me/avatar")
    push(tiny_avatar)
    files = hub.files("me/avatar")
    assert files["mine.txt"] == b"x"
    assert json.loads(files["licences.json"])["licence"] == "cc-by-4.0"
