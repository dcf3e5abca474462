# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of torch read without torch's own reader, in both of their formats."""

import pickle

import pytest
import torch

from pointillist_hf.pretrained.torch_checkpoint import read_checkpoint

BOTH_FORMATS = pytest.mark.parametrize("is_zip", [True, False])


def save(value, path, is_zip=True):
    torch.save(value, path, _use_new_zipfile_serialization=is_zip)
    return path


@BOTH_FORMATS
def test_tensors_come_back(tmp_path, is_zip):
    base = torch.randn(6, 5)
    module = torch.nn.BatchNorm1d(3)
    state = {
        "all": base,
        "part": base[2:4, 1:],
        "turned": base.T,
        "half": base.half(),
        "parameter": torch.nn.Parameter(base + 1),
        "empty": torch.zeros(0, 4),
        "number": torch.tensor(7),
        **module.state_dict(),  # an OrderedDict with attributes
    }
    found = read_checkpoint(save(state, tmp_path / "a.pth", is_zip))
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    ordered = read_checkpoint(save(module.state_dict(), tmp_path / "b.pth", is_zip))
    assert ordered.keys() == module.state_dict().keys()
    wrapped = read_checkpoint(save({"model_state_dict": {"a": base}}, tmp_path / "c.pth", is_zip))
    assert torch.equal(wrapped["a"], base)


class Evil:
    def __reduce__(self):
        return print, ("run",)


@BOTH_FORMATS
def test_programs_and_damage_are_refused(tmp_path, is_zip, capsys):
    path = save({"a": Evil()}, tmp_path / "a.pth", is_zip)
    with pytest.raises(ValueError, match=r"print.*has no place in a checkpoint"):
        read_checkpoint(path)
    assert capsys.readouterr().out == ""
    path = save({"a": torch.zeros(50)}, tmp_path / "b.pth", is_zip)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is refused"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(3))
    with pytest.raises(ValueError, match="does not begin as a checkpoint"):
        read_checkpoint(path)
