# SPDX-License-Identifier: Apache-2.0
"""CLIP's cosine, and the features of FID: transformers, torchmetrics, files."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from pointillist_hf.evaluation.metrics import inception as inception_module
from pointillist_hf.evaluation.metrics.clip import clip_embeddings, clip_similarity, load_clip
from pointillist_hf.evaluation.metrics.inception import (
    INCEPTION_FILE,
    InceptionFeatures,
    inception_features,
    resize_clean,
)
from pointillist_hf.pretrained.weights_files import MissingWeightsError


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
    )
    return CLIPVisionModelWithProjection(config).eval()


def test_clip_is_transformers_own(clip, tmp_path):
    images = torch.randint(256, (2, 70, 64, 3)) / 255
    pictures = [Image.fromarray((255 * i).round().byte().numpy()) for i in images]
    processor = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size=56)
    values = processor(pictures, return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = clip(pixel_values=values).image_embeds
    clip.save_pretrained(tmp_path)
    found = clip_embeddings(images, load_clip(tmp_path))
    assert torch.allclose(found, expected, atol=1e-5)
    a, b = found.numpy()
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert clip_similarity(found[:1], found[1:]).item() == pytest.approx(cosine, abs=1e-5)
    swapped = clip_similarity(found[1:], found[:1])
    assert torch.equal(swapped, clip_similarity(found[:1], found[1:]))
    assert clip_similarity(found[:1], found[1:] * torch.nan).isnan().all()
    assert clip_similarity(found, found).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_missing_clip_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("POINTILLIST_WEIGHTS", str(tmp_path))
    with pytest.raises(MissingWeightsError, match="openai/clip-vit-large-patch14"):
        load_clip()


def test_clean_resizing_keeps_a_ramp_and_leaves_no_alias():
    ramp = torch.linspace(0, 1, 640)[None, :, None].expand(640, -1, 3)
    small = resize_clean(ramp, 299)
    assert small.shape == (299, 299, 3)
    assert (small.diff(dim=1) >= -1e-6).all()
    checkers = ((torch.arange(598)[:, None] + torch.arange(598)) % 2).float()
    flat = resize_clean(checkers[..., None].expand(-1, -1, 3), 299)
    assert (flat[4:-4, 4:-4] - 0.5).abs().max() < 0.01


def test_inception_reads_its_file(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = InceptionFeatures()
    # With the classifier of 1000 classes it has 23,834,568 weights, as Inception V3 should.
    assert sum(p.numel() for p in network.parameters()) + 1000 * 2049 == 23_834_568
    state = {**network.state_dict(), "fc.weight": torch.zeros(8, 8)}
    torch.save(state, tmp_path / INCEPTION_FILE.name)
    checksum = hashlib.sha256((tmp_path / INCEPTION_FILE.name).read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="begins with 6726825d"):
        InceptionFeatures.read(tmp_path)
    monkeypatch.setattr(
        inception_module, "INCEPTION_FILE", replace(INCEPTION_FILE, sha256=checksum)
    )
    read = InceptionFeatures.read(tmp_path)
    image = torch.rand(1, 64, 64, 3)
    features = inception_features(image, read)
    assert features.shape == (1, 2048)
    assert torch.equal(features, inception_features(image, network))
