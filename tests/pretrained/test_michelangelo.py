# SPDX-License-Identifier: Apache-2.0
"""Michelangelo's encoder: converted, its features are those of a second implementation."""

import math

import pytest
import torch
from made_up_weights import michelangelo_state, write_michelangelo

from pointillist_hf import PointCloudEncoder
from pointillist_hf.pretrained.michelangelo import convert_michelangelo, read_michelangelo

SMALL = {"size": 128, "layers": 2, "latents": 5}
PREFIX = "model.shape_model.encoder."


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("michelangelo") / "shapevae-256.ckpt"
    write_michelangelo(path, **SMALL)
    return path


def random_cloud(count):
    normals = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
    return torch.cat([2 * torch.rand(count, 3) - 1, normals], dim=-1)


class Plain:
    """The encoder as its code has it, in float64 and in loops over tokens, heads and octaves."""

    def __init__(self, state):
        names = {name.removeprefix(PREFIX): value.double() for name, value in state.items()}
        self.state = {k: v for k, v in names.items() if not k.startswith("model.")}

    def linear(self, name, x):
        return x @ self.state[f"{name}.weight"].T + self.state.get(f"{name}.bias", 0.0)

    def norm(self, name, x):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        scaled = (x - mean) / (variance + 1e-5).sqrt()
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def mlp(self, name, x):
        wide = self.linear(f"{name}.c_fc", x)
        gelu = 0.5 * wide * (1 + torch.erf(wide / math.sqrt(2)))
        return self.linear(f"{name}.c_proj", gelu)

    def attend(self, queries, keys, values, name):
        """[N, heads, 64] each."""
        rows = []
        for token in range(len(queries)):
            heads = []
            for head in range(queries.shape[1]):
                scores = torch.stack([queries[token, head] @ key[head] for key in keys]) / 8
                shares = (scores - scores.max()).exp()
                shares = shares / shares.sum()
                heads.append(sum(s * v[head] for s, v in zip(shares, values, strict=True)))
            rows.append(torch.cat(heads))
        return self.linear(f"{name}.c_proj", torch.stack(rows))

    def packed(self, name, x, parts):
        """The packed projection viewed as [N, heads, parts x 64] and then cut."""
        wide = self.linear(name, x)
        heads = wide.shape[1] // (parts * 64)
        return wide.view(len(x), heads, parts * 64).split(64, dim=-1)

    def __call__(self, cloud):
        points = []
        for row in cloud.double():
            angles = [float(c) * 2**k for c in row[:3] for k in range(8)]
            waves = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            points.append(torch.tensor([*row[:3].tolist(), *waves, *row[3:].tolist()]).double())
        data, x = self.linear("input_proj", torch.stack(points)), self.state["query"]
        heads = x.shape[1] // 64
        queries = self.linear("cross_attn.attn.c_q", self.norm("cross_attn.ln_1", x))
        keys, values = self.packed("cross_attn.attn.c_kv", self.norm("cross_attn.ln_2", data), 2)
        queries = queries.view(len(x), heads, 64)
        x = x + self.attend(queries, keys, values, "cross_attn.attn")
        x = x + self.mlp("cross_attn.mlp", self.norm("cross_attn.ln_3", x))
        layers = sum(name.endswith("c_qkv.weight") for name in self.state)
        for block in (f"self_attn.resblocks.{i}" for i in range(layers)):
            three = self.packed(f"{block}.attn.c_qkv", self.norm(f"{block}.ln_1", x), 3)
            x = x + self.attend(*three, f"{block}.attn")
            x = x + self.mlp(f"{block}.mlp", self.norm(f"{block}.ln_2", x))
        return self.norm("ln_post", x)


@torch.no_grad()
def test_features_are_those_of_a_second_implementation(checkpoint, tmp_path):
    convert_michelangelo(checkpoint, tmp_path / "encoder")
    encoder = PointCloudEncoder.from_pretrained(tmp_path / "encoder").double().eval()
    cloud = random_cloud(40)
    expected = Plain(michelangelo_state(**SMALL))(cloud)
    assert expected.shape == (5, 128)
    assert expected.abs().mean() > 0.3
    # Octaves are computed in single precision, whatever the weights are in.
    torch.testing.assert_close(encoder(cloud.double()[None])[0], expected, atol=1e-5, rtol=0)
    half = encoder.float()(cloud[None])[0].double()
    torch.testing.assert_close(half, expected, atol=1e-4, rtol=0)


def test_the_encoder_has_the_defaults_of_the_paper():
    config, state = PointCloudEncoder.config_class(), michelangelo_state()
    with torch.device("meta"):
        wanted = sum(p.numel() for p in PointCloudEncoder(config).parameters())
    found = sum(v.numel() for k, v in state.items() if k.startswith(PREFIX))
    assert found == wanted
    assert wanted == pytest.approx(64.0e6, rel=2e-3)


def test_what_lightning_leaves_is_not_made(tmp_path, capsys):
    class Callback:
        def __reduce__(self):
            return print, ("run",)

    state = michelangelo_state(**SMALL)
    content = {"state_dict": state, "callbacks": [Callback()], "flags": torch.ones(2).bool()}
    torch.save(content, tmp_path / "a.ckpt")
    encoder = read_michelangelo(tmp_path / "a.ckpt")
    assert capsys.readouterr().out == ""
    assert torch.equal(encoder.latents.weight, state[f"{PREFIX}query"])


def test_other_files_are_refused(checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file at"):
        read_michelangelo(tmp_path / "none.ckpt")
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"must be Michelangelo's .* has no `encoder\.query`"):
        read_michelangelo(tmp_path / "other.ckpt")
    state = michelangelo_state(**SMALL)
    del state[f"{PREFIX}ln_post.bias"]
    torch.save({"state_dict": state}, tmp_path / "part.ckpt")
    with pytest.raises(ValueError, match=r"must be a whole checkpoint .*ln_post\.bias"):
        read_michelangelo(tmp_path / "part.ckpt")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(FileExistsError, match="must be a new or empty folder"):
        convert_michelangelo(checkpoint, tmp_path / "full")


def test_its_weights_are_not_published(checkpoint, tmp_path):
    encoder = convert_michelangelo(checkpoint, tmp_path / "encoder")
    assert "license: gpl-3.0" in (tmp_path / "encoder" / "README.md").read_text()
    again = PointCloudEncoder.from_pretrained(tmp_path / "encoder")
    for model in (encoder, again):
        with pytest.raises(ValueError, match="must not be called for Michelangelo's weights"):
            model.push_to_hub("me/encoder")
