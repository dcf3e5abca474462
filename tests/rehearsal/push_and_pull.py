# SPDX-License-Identifier: Apache-2.0
"""Pushes the pipeline of a rehearsal to a Hub of our own, and pulls it as somebody else would.

Writes DIR/hub.json: what the first push was refused for, what the second one sent, and whether the
pulled pipeline writes the same tokens.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from hub_server import HubServer

PULL = """
import json, sys, torch
from pathlib import Path
from huggingface_hub import snapshot_download
from pointillist_hf import AvatarConditioner, AvatarPipeline
folder = Path(sys.argv[1])
sent = Path(snapshot_download("me/rehearsal"))
encoders = {
    "image_encoder": folder / "inputs" / "dinov2", "point_cloud_encoder": folder / "michelangelo"
}
conditioner = AvatarConditioner.from_pretrained(sent / "conditioner", **encoders)
pulled = AvatarPipeline.from_pretrained("me/rehearsal", conditioner=conditioner)
ours = AvatarPipeline.from_pretrained(folder / "pipeline")
picture = folder / "inputs" / "portraits" / "104.png"
ids = [pipe(picture, max_points=20, engine="reference").input_ids for pipe in (pulled, ours)]
print(json.dumps(torch.equal(*ids)))
"""
RIGHTS = "Made up from the synthetic people of this package: nothing in it is FLAME's."


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def main(folder: Path) -> None:
    push = [sys.executable, "-m", "pointillist_hf.cli", "push", str(folder / "pipeline")]
    with HubServer() as hub:
        environment = {**os.environ, **hub.environment(folder / "home")}
        environment.pop("HF_HUB_OFFLINE", None)
        refused = run([*push, "me/rehearsal"], environment)
        terms = ["--licence", "cc-by-nc-4.0", "--rights", RIGHTS]
        sent = run([*push, "me/rehearsal", *terms], environment)
        pulled = run([sys.executable, "-c", PULL, str(folder)], environment)
    found = {
        "refused": (refused.stdout + refused.stderr).splitlines()[-1:],
        "refused_code": refused.returncode,
        "sent": sent.stdout.splitlines(),
        "is_same": pulled.stdout.splitlines()[-1:] == ["true"],
    }
    (folder / "hub.json").write_text(json.dumps(found, indent=1))
    if sent.returncode or pulled.returncode:
        raise SystemExit(sent.stderr + pulled.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
