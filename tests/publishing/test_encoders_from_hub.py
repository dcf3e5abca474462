# SPDX-License-Identifier: Apache-2.0
"""An image encoder by its id on the Hub, in training and wherever the conditioner is loaded."""

import torch
from made_up_weights import write_image_encoder

from pointillist_hf import AvatarConditioner
from pointillist_hf.training.encoders import Encoders, build_conditioner, build_processor


def test_a_conditioner_names_its_encoder_by_id(hub, tiny_tokenizer, tmp_path, monkeypatch):
    write_image_encoder(tmp_path / "dinov2", std=(0.3, 0.4, 0.5))
    hub.publish("me/dinov2", tmp_path / "dinov2")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    encoders = Encoders(image="me/dinov2")
    processor = build_processor("nano", encoders)
    assert tuple(processor.image_std) == (0.3, 0.4, 0.5)
    conditioner = build_conditioner("nano", tiny_tokenizer, encoders, processor.size).eval()
    assert conditioner.config.image_encoder_source == "me/dinov2"
    conditioner.save_pretrained(tmp_path / "saved")
    again = AvatarConditioner.from_pretrained(tmp_path / "saved").eval()
    pixels = torch.randn(1, 3, 56, 56)
    assert torch.equal(again.look_at(pixels), conditioner.look_at(pixels))
