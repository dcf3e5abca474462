# SPDX-License-Identifier: Apache-2.0
"""A photograph, an avatar, a smile: python examples/quickstart.py, in the repository's root."""

from pointillist_hf import AvatarPipeline
from pointillist_hf.exporters.images import write_contact_sheet

pipe = AvatarPipeline.from_pretrained("model_cards/pointillist-tiny")
avatar = pipe("examples/images/astronaut.jpg", seed=0).avatar
smile = avatar.rig_params({"mouthSmile": 1.0}, jaw_pose=[0.15, 0.0, 0.0])
write_contact_sheet(avatar.animate(smile).render(), "smile.png")
avatar.save_pretrained("me/")
avatar.export("me.ply")
avatar.export("me.html")  # one file: open it and move the sliders
