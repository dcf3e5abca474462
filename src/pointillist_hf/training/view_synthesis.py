# SPDX-License-Identifier: Apache-2.0
"""The pretext task of the image encoder: from one portrait to other views of the person.

DINOv2's weights are a download, so the small models train an encoder of its architecture from
nothing. Points alone would teach it shapes; who has to draw the back of a head as well keeps
colours, hair and clothes in the tokens, and that is what generator and decoder live on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..geometry.structures import RigParams
from ..models.attention_blocks import CrossBlock, SelfBlock
from ..rigs.head_rig import HeadRig
from .dataset import Person

VIEW_SIZE, PATCH_SIZE = 56, 7  # pixels
MILLIMETRES = 1000.0
REST = 0.5  # millimetres that a head at rest may be moved: what trackers take for noise
# Millimetres that a radian moves the vertices, as a root mean square over the head.
LEVERS = {"neck_pose": 100.0, "jaw_pose": 27.0, "leye_pose": 2.0, "reye_pose": 2.0}


class ViewSynthesis(nn.Module):
    """Draws a view, patch by patch, from the tokens of a portrait and a camera.

    Args:
        hidden_size: Width of the tokens.
        num_heads: Of the attention.
    """

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.grid = VIEW_SIZE // PATCH_SIZE
        # As large as the camera's part: the first norm would drown smaller ones.
        self.embed_places = nn.Parameter(torch.randn(self.grid**2, hidden_size))
        self.camera_mlp = nn.Sequential(
            nn.Linear(12, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)
        )
        self.cross_blocks = nn.ModuleList(
            CrossBlock(hidden_size, num_heads, hidden_size) for _ in range(2)
        )
        self.self_blocks = nn.ModuleList(SelfBlock(hidden_size, num_heads) for _ in range(2))
        self.norm = nn.LayerNorm(hidden_size)
        self.head = nn.Linear(hidden_size, 4 * PATCH_SIZE**2)

    def forward(self, tokens: Tensor, viewmats: Tensor) -> Tensor:
        """Views with premultiplied alpha.

        Args:
            tokens: [B, M, D]
            viewmats: World to camera. [B, K, 4, 4]

        Returns:
            [B, K, 4, VIEW_SIZE, VIEW_SIZE]
        """
        count = viewmats.shape[1]
        cameras = self.camera_mlp(viewmats[:, :, :3].flatten(2))  # [B, K, D]
        states = (cameras[:, :, None] + self.embed_places).flatten(0, 1)
        tokens = tokens.repeat_interleave(count, dim=0)
        for cross_block, self_block in zip(self.cross_blocks, self.self_blocks, strict=True):
            states = self_block(cross_block(states, tokens))
        patches = self.head(self.norm(states))
        patches = patches.unflatten(1, (self.grid, self.grid))
        patches = patches.unflatten(-1, (4, PATCH_SIZE, PATCH_SIZE))  # [BK, gy, gx, 4, py, px]
        images = patches.permute(0, 3, 1, 4, 2, 5).reshape(-1, 4, VIEW_SIZE, VIEW_SIZE)
        return images.unflatten(0, (-1, count))


class RestViews:
    """Draws views of people that show no expression and no pose, or as little as there is.

    Views of recordings are never at rest to the last digit, and the head may be anywhere: those
    that are nearly at rest are taken, and cameras are told in the frame of the head.

    Args:
        rig: Of the people.
    """

    def __init__(self, rig: HeadRig) -> None:
        self.rig = rig
        directions = rig.exprdirs.flatten(0, 1)
        self.gram = directions.T @ directions / len(rig.v_template) * MILLIMETRES**2

    def movements(self, rig_params: RigParams) -> Tensor:
        """About how far the vertices are from where they rest, heads laid over one another. [T]

        Millimetres: root mean square of what expressions do, and angles times a lever.
        """
        expression = rig_params.expression
        moved = torch.einsum("ti,ij,tj->t", expression, self.gram, expression)
        angles = torch.stack([getattr(rig_params, name).norm(dim=-1) for name in LEVERS], dim=-1)
        return moved.clamp_min(0).sqrt() + angles @ angles.new_tensor(list(LEVERS.values()))

    def choose(self, person: Person, num_views: int) -> Tensor:
        """Which views of a person count as at rest: all within `REST`, else the quietest. [K]"""
        movements = self.movements(person.view_params)
        order = movements.argsort(stable=True)
        count = int((movements <= REST).sum()) or num_views
        return order[:count].sort().values

    def draw(
        self, person: Person, num_views: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Some views at rest and their cameras, with repetition if there are too few.

        Returns:
            Views with premultiplied alpha [1, K, 4, VIEW_SIZE, VIEW_SIZE]; world to camera, the
            world being the head's [1, K, 4, 4].
        """
        usable = self.choose(person, num_views)
        order = torch.randperm(len(usable), generator=generator)
        chosen = usable[order.repeat(-(-num_views // len(usable)))[:num_views]]
        images = person.views[chosen].permute(0, 3, 1, 2) / 255
        premultiplied = torch.cat([images[:, :3] * images[:, 3:], images[:, 3:]], dim=1)
        # Shrunk by averaging: view synthesis has to get the colours right, not the eyelashes.
        small = interpolate(premultiplied, (VIEW_SIZE, VIEW_SIZE), mode="area")
        roots = self.rig.joint_motion(person.view_params[chosen]).transforms[:, 0]  # [K, 3, 4]
        last = roots.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(roots), 1, 4)
        viewmats = person.view_cameras.viewmats[chosen] @ torch.cat([roots, last], dim=1)
        return small[None], viewmats[None]
