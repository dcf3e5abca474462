# SPDX-License-Identifier: Apache-2.0
"""LPIPS on trunks of random weights: two ways agree, files are read and checked."""

import hashlib
from dataclasses import replace

import pytest
import torch

from pointillist_hf.evaluation.metrics.lpips import lpips
from pointillist_hf.pretrained import lpips as lpips_module
from pointillist_hf.pretrained.lpips import LpipsNetwork
from pointillist_hf.pretrained.weights_files import MissingWeightsError


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return LpipsNetwork("alex")


def slow_lpips(image, target, network):
    """The definition, pixel by pixel of each layer."""
    total = 0.0
    for a, b, head in zip(network(image), network(target), network.heads, strict=True):
        for y in range(a.shape[2]):
            for x in range(a.shape[3]):
                gap = (a[0, :, y, x] - b[0, :, y, x]) ** 2
                total += float((gap * head).sum()) / (a.shape[2] * a.shape[3])
    return total


def test_the_definition_written_out(network):
    a, b = torch.rand(2, 1, 64, 64, 3)
    assert lpips(a, b, network).item() == pytest.approx(slow_lpips(a, b, network), rel=1e-5)


@pytest.mark.parametrize("trunk", ["alex", "vgg"])
def test_torchmetrics_agrees(trunk):
    module = pytest.importorskip("torchmetrics.functional.image.lpips")
    torch.manual_seed(0)
    network = LpipsNetwork(trunk)
    theirs = module._LPIPS.__new__(module._LPIPS)
    torch.nn.Module.__init__(theirs)
    theirs.pnet_type, theirs.lpips, theirs.spatial, theirs.resize = trunk, True, False, None
    theirs.scaling_layer = module.ScalingLayer()
    taps = lpips_module.TAPS[trunk]

    class Trunk(torch.nn.Module):
        def forward(self, x):
            found = []
            for index, layer in enumerate(network.features):
                x = layer(x)
                if index in taps:
                    found.append(x)
            return found

    theirs.net, theirs.L = Trunk(), len(taps)
    theirs.chns = lpips_module.CHANNELS[trunk]
    theirs.lins = torch.nn.ModuleList()
    for head in network.heads:
        layer = module.NetLinLayer(len(head), use_dropout=False)
        layer.model[-1].weight.data = head[None, :, None, None].clone()
        theirs.lins.append(layer)
    a, b = torch.rand(2, 3, 64, 64, 3)
    with torch.no_grad():
        expected = theirs.eval()(a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2), normalize=True)
    assert torch.allclose(lpips(a, b, network), expected.flatten(), atol=1e-6)


def test_equal_pictures_and_swapped_arguments(network):
    a, b = torch.rand(2, 2, 64, 64, 3)
    assert not lpips(a, a, network).any()
    assert torch.equal(lpips(a, b, network), lpips(b, a, network))
    assert torch.allclose(lpips(a, b, network)[1:], lpips(a[1:], b[1:], network))
    with pytest.raises(ValueError, match="holds other values or NaN"):
        lpips(a, b * torch.nan, network)


def test_weights_are_read_from_their_files(network, tmp_path, monkeypatch):
    trunk = {f"features.{k}": v for k, v in network.features.state_dict().items()}
    # As torchvision wrote its files: with a classifier, and before torch 1.6.
    torch.save(
        {**trunk, "classifier.1.weight": torch.zeros(2, 2)},
        tmp_path / "alexnet-owt-7be5be79.pth",
        _use_new_zipfile_serialization=False,
    )
    heads = {f"lin{i}.model.1.weight": h[None, :, None, None] for i, h in enumerate(network.heads)}
    torch.save(heads, tmp_path / "alex.pth")
    for table in ("TRUNK_FILES", "HEAD_FILES"):
        file = getattr(lpips_module, table)["alex"]
        checksum = hashlib.sha256((tmp_path / file.name).read_bytes()).hexdigest()
        with pytest.raises(ValueError, match="must have a sha256 that begins with"):
            file.find(tmp_path)
        monkeypatch.setitem(getattr(lpips_module, table), "alex", replace(file, sha256=checksum))
    monkeypatch.setenv("POINTILLIST_WEIGHTS", str(tmp_path))
    read = LpipsNetwork.read("alex", head_path=tmp_path)
    a, b = torch.rand(2, 1, 64, 64, 3)
    assert torch.equal(lpips(a, b, read), lpips(a, b, network))


def test_missing_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("POINTILLIST_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingWeightsError, match=r"`lpips` needs alexnet-owt-7be5be79\.pth"):
        LpipsNetwork.read()
    with pytest.raises(ValueError, match="'alex' or 'vgg'"):
        LpipsNetwork("resnet")
