# SPDX-License-Identifier: Apache-2.0
"""Fits splats on the triangles of a rig to a capture, as GaussianAvatars does (paper Sec. 3.1).

A splat lives in the frame of its triangle, in units of the triangle's size, so that it follows
every expression; a fit starts with one splat on each face and adds more where the pictures ask for
them. Tracked parameters are refined along the way, the shape stays.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...geometry.bound_splats import local_to_global
from ...geometry.rotations import quat_to_matrix
from ...geometry.spherical_harmonics import num_sh_coefficients, sh_colors
from ...geometry.structures import BoundSplats, Capture, Gaussians, Record, RigParams
from ...geometry.triangles import triangle_frames
from ...motion.vhap_params import match_static_offset
from ...rendering.rasterize import rasterize
from ...rendering.similarity import structural_similarity
from ...rigs.head_rig import HeadRig
from .config import FitConfig
from .densification import Plan, mean_gradients, most_contributing, plan_growth, survivors
from .state import FitState

EXTENT_FACTOR = 1.1  # over the largest distance of a camera from the middle of all
CONTRIBUTION_PICTURES = 24  # that tell which splats contribute
RESET_OPACITY = 0.01
RESET_ROUNDS = 3  # of densification that splats get to recover


class Fit:
    """A fit under way.

    Args:
        capture: Pictures of the person; those of the split "train" are fitted.
        rig: The rig of its parameters.
        config: Settings.
        device: Of the tensors; on CUDA the splats are drawn by gsplat.

    Raises:
        ValueError: The capture has nothing to fit, belongs to another rig, or `max_points` is less
            than the number of faces.
    """

    def __init__(
        self,
        capture: Capture,
        rig: HeadRig,
        config: FitConfig,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        rig.check_params(capture.rig_params)
        self.device = torch.device(device)
        self.rig, self.config = rig.to(self.device), config
        self.capture = replace(
            capture,
            cameras=capture.cameras.to(self.device),
            rig_params=capture.rig_params.to(self.device),
        )
        self.numbers = capture.of_split("train")
        if not self.numbers:
            raise ValueError(f'`capture` {capture.name} must have pictures of the split "train".')
        if config.max_points < rig.num_faces:
            raise ValueError(
                f"`max_points` must be at least {rig.num_faces}, because every face of the rig "
                f"keeps a splat; got {config.max_points}."
            )
        self.static_offset = match_static_offset(
            capture.static_offset, len(rig.v_template), capture.name
        ).to(self.device)
        self.camera_centers = torch.linalg.inv(self.capture.cameras.viewmats)[:, :3, 3]
        betas = self.capture.rig_params.betas[:1]
        rest = self.rig.canonical_vertices(betas, self.static_offset)[0]
        self.face_sizes = triangle_frames(rest[rig.faces])[2]
        self.state = FitState(
            {k: v.to(self.device) for k, v in initial_values(rig.num_faces, config).items()},
            torch.arange(rig.num_faces, device=self.device),
            self.capture.rig_params,
            config,
            camera_extent(self.camera_centers[self.numbers], config),
        )
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    @property
    def _white(self) -> Tensor:
        return torch.ones(1, 3, device=self.device)

    @property
    def sh_degree(self) -> int:
        """Degree of the colours at the present step."""
        return min(self.config.sh_degree, self.state.step // self.config.sh_degree_every)

    def gaussians(self, number: int) -> Gaussians:
        """The splats in the world at the time of a picture, as its camera sees them."""
        splats, rig = self.state.splats, self.rig
        step = self.capture.timesteps[number : number + 1]
        vertices = rig(self.state.rig_params[step], self.static_offset)[0]
        gaussians = local_to_global(splats, vertices[rig.faces[splats.bindings]])
        if self.sh_degree == 0:
            return gaussians
        center = self.camera_centers[number]
        colors = sh_colors(splats.sh, gaussians.means, center, self.sh_degree)
        return replace(gaussians, colors=colors)

    def render(self, number: int) -> Tensor:
        """The fit as the camera of a picture sees it, on white. [H, W, 3]"""
        with torch.no_grad():
            camera = self.capture.cameras[number : number + 1]
            colors, _ = rasterize(self.gaussians(number), camera, backgrounds=self._white)
        return colors[0].cpu()

    def advance(self) -> dict[str, float]:
        """One step on one picture. Returns its losses, and "mse"."""
        number, state = self._next_picture(), self.state
        camera = self.capture.cameras[number : number + 1]
        gaussians = self.gaussians(number)
        probe = torch.zeros(1, len(state), 2, device=self.device, requires_grad=True)
        colors, _, meta = rasterize(
            gaussians, camera, backgrounds=self._white, screen_probe=probe, with_meta=True
        )
        is_seen = meta.radii[0] > 0
        target = self.capture.images[number][None].to(self.device)
        losses = fit_losses(colors, target, state, is_seen, self.config)
        state.set_learning_rates()
        state.optimizer.zero_grad()
        losses["loss"].backward()
        sides = probe.new_tensor([camera.width / 2, camera.height / 2])
        state.note_gradients(probe.grad[0] * sides, is_seen)
        state.optimizer.step()
        state.step += 1
        self._change_splats()
        mse = (colors.detach() - target).square().mean()
        return {name: float(value.detach()) for name, value in losses.items()} | {"mse": float(mse)}

    def contributions(self, numbers: list[int]) -> Tensor:
        """How much of the pictures each splat makes: the sum of its blending weights. [N]"""
        total = torch.zeros(len(self.state), device=self.device)
        for number in numbers:
            with torch.no_grad():
                gaussians = self.gaussians(number)
            colors = torch.ones_like(gaussians.colors, requires_grad=True)
            shown = replace(gaussians, colors=colors)
            image, _ = rasterize(shown, self.capture.cameras[number : number + 1])
            # The picture is linear in the colours; its gradient is the weight of each.
            (weights,) = torch.autograd.grad(image[..., 0].sum(), colors)
            total += weights[:, 0]
        return total

    def detached_splats(self) -> BoundSplats:
        """The splats as a record of their own."""
        splats = self.state.splats
        return BoundSplats(
            **{name: value.detach().clone().cpu() for name, value in vars(splats).items()}
        )

    def detached_params(self) -> RigParams:
        """The refined parameters as a record of their own."""
        return _copy(self.state.rig_params)

    def _next_picture(self) -> int:
        """Every picture once per round, in an order of the seed and the round."""
        epoch, place = divmod(self.state.step, len(self.numbers))
        if self._order[0] != epoch:
            order = torch.randperm(len(self.numbers), generator=self._stream(epoch))
            self._order = (epoch, order)
        return self.numbers[int(self._order[1][place])]

    def _stream(self, count: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.config.seed * 1_000_003 + count) % 2**63)

    def _change_splats(self) -> None:
        config, step = self.config, self.state.step
        # What is changed at the very end would stay as it is.
        left = config.num_steps - step
        is_time = step % config.densify_every == 0 and left >= config.densify_every
        if config.densify_from < step < config.densify_until and is_time:
            self._densify()
        reset_now = step == config.densify_from and config.opacity_reset_at_start
        is_reset = reset_now or step % config.opacity_reset_every == 0
        if is_reset and step < config.densify_until and left >= RESET_ROUNDS * config.densify_every:
            self.state.reset_opacities(RESET_OPACITY)

    def _densify(self) -> None:
        state, config = self.state, self.config
        scales = state.values["log_scales"].detach().exp().amax(1)
        world_scales = scales * self.face_sizes[state.bindings]
        gradients = mean_gradients(state.gradient_sums, state.num_seen)
        plan = plan_growth(gradients, world_scales, state.extent, config)
        opacities = state.values["opacity_logits"].detach().sigmoid()[plan.sources]
        doomed = opacities < config.min_opacity
        bindings = state.bindings[plan.sources]
        plan = plan.keep(survivors(doomed, bindings, opacities, config.prune_rule))
        shifts = self._child_shifts(plan)
        state.apply(plan, shifts)
        if len(state) > config.max_points:
            self.limit_points(config.max_points)

    def _child_shifts(self, plan: Plan) -> Tensor:
        """Children scatter as the splat itself does, along its own axes."""
        # GaussianAvatars adds metres to units of the triangle here; we stay in the latter.
        values = self.state.values
        noise = torch.randn(len(plan), 3, generator=self._stream(self.state.step)).to(self.device)
        scales = values["log_scales"].detach().exp()[plan.sources]
        rotations = quat_to_matrix(values["quats"].detach()[plan.sources])
        return torch.einsum("nij,nj->ni", rotations, noise * scales)

    def limit_points(self, max_points: int) -> None:
        """Removes what contributes least, every face keeping a splat."""
        # By lot: every n-th picture would often be of the same few cameras.
        order = torch.randperm(len(self.numbers), generator=self._stream(self.state.step))
        chosen = [self.numbers[i] for i in order[:CONTRIBUTION_PICTURES].tolist()]
        contributions = self.contributions(chosen)
        kept = most_contributing(contributions, self.state.bindings, max_points)
        sources = torch.arange(len(self.state), device=self.device)
        nothing = torch.zeros_like(sources, dtype=torch.bool)
        plan = Plan(sources, is_new=nothing, is_child=nothing).keep(kept)
        sums, seen = self.state.gradient_sums[kept], self.state.num_seen[kept]
        self.state.apply(plan, torch.zeros(len(plan), 3, device=self.device))
        self.state.gradient_sums, self.state.num_seen = sums, seen


def _copy(record: Record) -> Record:
    return replace(record, **{k: v.detach().clone().cpu() for k, v in vars(record).items()})


def initial_values(num_faces: int, config: FitConfig) -> dict[str, Tensor]:
    """One grey splat on each face, as large as the face. Values by the names of `FitState`."""
    generator = torch.Generator().manual_seed(config.seed)
    count = num_sh_coefficients(config.sh_degree)
    quats = torch.zeros(num_faces, 4)
    quats[:, 0] = 1
    return {
        "means": torch.zeros(num_faces, 3),
        "log_scales": torch.zeros(num_faces, 3),
        "quats": quats,
        "opacity_logits": torch.logit(torch.tensor(config.init_opacity)).repeat(num_faces),
        "sh_dc": torch.rand(num_faces, 1, 3, generator=generator) / 255,
        "sh_rest": torch.zeros(num_faces, count - 1, 3),
    }


def camera_extent(centers: Tensor, config: FitConfig) -> float:
    """Size of the ring of cameras, metres; not less than `min_extent`. [C, 3]"""
    distances = (centers - centers.mean(0)).norm(dim=-1)
    return max(EXTENT_FACTOR * float(distances.max()), config.min_extent)


def fit_losses(
    colors: Tensor, target: Tensor, state: FitState, is_seen: Tensor, config: FitConfig
) -> dict[str, Tensor]:
    """Terms of the loss, each without its weight, and their weighted sum as "loss".

    Args:
        colors: [1, H, W, 3]
        target: [1, H, W, 3]
        state: Of the splats.
        is_seen: Splats in the picture; the others are left in peace. [N]
        config: Weights and thresholds.
    """
    means, scales = state.values["means"][is_seen], state.values["log_scales"][is_seen].exp()
    # A mean over nothing would be NaN, for a camera that looks the other way.
    count = is_seen.sum().clamp_min(1)
    far = (means.norm(dim=-1) - config.position_threshold).clamp_min(0)
    large = (scales - config.scale_threshold).clamp_min(0)
    terms = {
        "l1": (colors - target).abs().mean(),
        "ssim": 1 - structural_similarity(colors, target),
        "position": far.sum() / count,
        "scale": large.norm(dim=-1).sum() / count,
    }
    loss = (1 - config.ssim_weight) * terms["l1"] + config.ssim_weight * terms["ssim"]
    loss = loss + config.position_weight * terms["position"]
    return {**terms, "loss": loss + config.scale_weight * terms["scale"]}
