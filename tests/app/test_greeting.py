# SPDX-License-Identifier: Apache-2.0
"""The motion with which an avatar introduces itself."""

import torch
from fake_flame import write_flame

from pointillist_hf import Avatar, FlameHeadRig
from pointillist_hf.app.greeting import FPS, SECONDS, build_greeting
from pointillist_hf.geometry.structures import Gaussians


def test_it_is_a_loop_that_begins_at_rest(tiny_avatar):
    motion = build_greeting(tiny_avatar)
    assert len(motion) == SECONDS * FPS
    rest = tiny_avatar.rig_params()
    for name in ("expression", "neck_pose", "jaw_pose", "leye_pose"):
        values = getattr(motion, name)
        assert torch.allclose(values[:1], getattr(rest, name), atol=1e-6)
        # No frame is further from the next than the quickest movement, the last one neither.
        steps = (values.roll(-1, 0) - values).abs().amax(-1)
        assert steps[-1] <= 1.01 * steps[:-1].max()
    assert torch.equal(motion.betas[0], tiny_avatar.betas)


def test_it_turns_smiles_speaks_and_blinks(tiny_avatar):
    motion, rig = build_greeting(tiny_avatar), tiny_avatar.rig
    assert motion.neck_pose[:, 1].max() > 0.3 > -0.3 > motion.neck_pose[:, 1].min()
    assert motion.jaw_pose[:, 0].max() > 0.15
    for name in ("mouthSmileLeft", "eyeBlinkRight", "browInnerUp"):
        strength = motion.expression[:, rig.expression_names.index(name)]
        assert strength.max() > 0.7
    assert motion.expression.max() <= 1


def test_a_rig_without_names_turns_its_joints(tmp_path):
    write_flame(tmp_path / "flame2023.pkl")
    rig = FlameHeadRig.from_flame(tmp_path / "flame2023.pkl")
    gaussians = Gaussians(
        means=rig.v_template[rig.faces[:1]].mean(1),
        quats=torch.tensor([[1.0, 0, 0, 0]]),
        scales=torch.full((1, 3), 0.01),
        opacities=torch.ones(1),
        colors=torch.ones(1, 3),
    )
    bindings = torch.zeros(1, dtype=torch.long)
    motion = build_greeting(Avatar(gaussians, bindings, rig, torch.zeros(rig.num_betas)))
    assert not motion.expression.any()
    assert motion.neck_pose.any()
