# SPDX-License-Identifier: Apache-2.0
"""All files that metrics need, with random networks in them, in one folder."""

import hashlib
from dataclasses import replace

import torch
from recognition_files import write_weights
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from pointillist_hf.evaluation import face_recognition, instruments
from pointillist_hf.evaluation.metrics import inception
from pointillist_hf.evaluation.metrics.clip import CLIP_NAME
from pointillist_hf.evaluation.metrics.head_pose import POSE_FILE, HeadPoseNetwork
from pointillist_hf.evaluation.metrics.inception import INCEPTION_FILE, InceptionFeatures
from pointillist_hf.pretrained import lpips


def write_all(folder):
    torch.manual_seed(0)
    network = lpips.LpipsNetwork("alex")
    trunk = {f"features.{k}": v for k, v in network.features.state_dict().items()}
    torch.save(trunk, folder / lpips.TRUNK_FILES["alex"].name)
    features = InceptionFeatures()
    for parameter in features.parameters():
        # Torch's own beginning fades out over so many layers, and all pictures look alike.
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    torch.save(features.state_dict(), folder / INCEPTION_FILE.name)
    torch.save({"model_state_dict": HeadPoseNetwork().state_dict()}, folder / POSE_FILE.name)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder / CLIP_NAME)
    write_weights(folder)


def trust(folder, monkeypatch):
    """Takes the hashes of these files for those that are published."""

    def own(file):
        contents = (folder / file.name).read_bytes()
        return replace(file, sha256=hashlib.sha256(contents).hexdigest())

    alex = own(lpips.TRUNK_FILES["alex"])
    monkeypatch.setitem(lpips.TRUNK_FILES, "alex", alex)
    for module, name in (
        (inception, "INCEPTION_FILE"),
        (instruments, "INCEPTION_FILE"),
        (face_recognition, "RECOGNITION_FILE"),
        (instruments, "RECOGNITION_FILE"),
    ):
        monkeypatch.setattr(module, name, own(getattr(module, name)))
    monkeypatch.setenv("POINTILLIST_WEIGHTS", str(folder))
