# SPDX-License-Identifier: Apache-2.0
"""A long clip takes no more memory than a short one."""

import subprocess
import sys

import pytest

WRITE = """
import resource, sys
import torch
from pointillist_hf import Avatar
from pointillist_hf.geometry.cameras import orbit_cameras
torch.set_num_threads(1)
avatar, path, count, size = Avatar.from_pretrained(sys.argv[1]), *sys.argv[2:]
jaw = torch.linspace(0, 0.4, int(count))[:, None] * torch.tensor([[1.0, 0.0, 0.0]])
animated = avatar.animate(avatar.rig_params(num_frames=int(count), jaw_pose=jaw))
animated.export(path, orbit_cameras([0.0], width=int(size), height=int(size)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def measure(folder, path, count, size):
    """Megabytes at the most."""
    command = [sys.executable, "-c", WRITE, folder, path, count, size]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".gif", ""])
def test_memory_is_flat_over_length(tiny_avatar, tmp_path, suffix):
    """Held as floats, the frames of the longer clip are 700 MB; as bytes 180."""
    pytest.importorskip("imageio_ffmpeg")
    tiny_avatar.save_pretrained(tmp_path / "me")
    short = measure(tmp_path / "me", tmp_path / f"short{suffix}", 10, 384)
    long = measure(tmp_path / "me", tmp_path / f"long{suffix}", 400, 384)
    assert long < short + 60
