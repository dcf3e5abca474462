# SPDX-License-Identifier: Apache-2.0
"""What a fit optimises, with the moments of its optimiser: it grows, shrinks and is resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...exporters.atomic_file import write_atomically
from ...geometry.structures import POSE_NAMES, BoundSplats, RigParams
from .config import FitConfig
from .densification import SPLIT_SHRINKAGE, Plan

SPLAT_NAMES = ("means", "log_scales", "quats", "opacity_logits", "sh_dc", "sh_rest")
TRACKING_NAMES = ("expression", *POSE_NAMES, "transl")
MOMENTS = ("exp_avg", "exp_avg_sq")
SH_REST_FACTOR = 1 / 20  # learning rate above degree 0


class FitState:
    """Splats in the frames of their triangles, tracked parameters, and an Adam over both.

    Args:
        values: Tensors by the names of `SPLAT_NAMES`, [N, ...] each.
        bindings: Face of each splat. [N]
        rig_params: Tracked; the shape stays as it is.
        config: Learning rates.
        extent: Of the cameras, metres.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor],
        bindings: Tensor,
        rig_params: RigParams,
        config: FitConfig,
        extent: float,
    ) -> None:
        self.bindings, self.betas = bindings, rig_params.betas
        self.config, self.extent = config, extent
        self.step = 0
        self.origin: dict[str, object] = {"config": asdict(config)}  # what checkpoints belong to
        self.gradient_sums = values["means"].new_zeros(len(bindings))
        self.num_seen = torch.zeros_like(self.gradient_sums)
        tracked = {name: getattr(rig_params, name) for name in TRACKING_NAMES}
        self.values = {
            name: value.detach().clone().requires_grad_()
            for name, value in {**values, **tracked}.items()
        }
        self.optimizer = torch.optim.Adam(
            [{"params": [self.values[name]], "name": name} for name in self.values], eps=1e-15
        )
        self.set_learning_rates()

    def __len__(self) -> int:
        return len(self.bindings)

    @property
    def splats(self) -> BoundSplats:
        """The splats as they are."""
        values = {name: self.values[name] for name in SPLAT_NAMES}
        sh = torch.cat([values.pop("sh_dc"), values.pop("sh_rest")], dim=1)
        return BoundSplats(sh=sh, bindings=self.bindings, **values)

    @property
    def rig_params(self) -> RigParams:
        """Parameters of the T time steps as they are."""
        tracked = {name: self.values[name] for name in TRACKING_NAMES}
        return RigParams(betas=self.betas, **tracked)

    def set_learning_rates(self) -> None:
        """Those of the present step; that of the places falls exponentially."""
        config = self.config
        progress = min(self.step / config.num_steps, 1.0)
        means_lr = config.means_lr ** (1 - progress) * config.means_lr_final**progress
        rates = {
            "means": means_lr * self.extent,
            "log_scales": config.scales_lr,
            "quats": config.quats_lr,
            "opacity_logits": config.opacity_lr,
            "sh_dc": config.sh_lr,
            "sh_rest": config.sh_lr * SH_REST_FACTOR,
            "expression": config.expression_lr,
            "transl": config.transl_lr,
        }
        for group in self.optimizer.param_groups:
            group["lr"] = rates.get(group["name"], config.pose_lr)

    def note_gradients(self, screen_gradients: Tensor, is_seen: Tensor) -> None:
        """Adds the screen gradients of one picture to the statistics. [N, 2], [N] bool"""
        self.gradient_sums[is_seen] += screen_gradients[is_seen].norm(dim=-1)
        self.num_seen += is_seen

    def apply(self, plan: Plan, child_shifts: Tensor) -> None:
        """Makes the splats of a plan, and starts the statistics afresh.

        Args:
            plan: From `densification`.
            child_shifts: By how much the children of splits move, in units of the triangle; rows
                of other splats are not read. [N', 3]
        """
        with torch.no_grad():
            for name in SPLAT_NAMES:
                value = self.values[name][plan.sources]
                if name == "means":
                    value[plan.is_child] += child_shifts[plan.is_child]
                if name == "log_scales":
                    value[plan.is_child] -= torch.tensor(SPLIT_SHRINKAGE).log()
                self._replace(name, value, plan)
        self.bindings = self.bindings[plan.sources]
        self.gradient_sums = self.gradient_sums.new_zeros(len(plan))
        self.num_seen = self.num_seen.new_zeros(len(plan))

    def reset_opacities(self, highest: float) -> None:
        """Lowers opacities to at most this value, and forgets their moments."""
        with torch.no_grad():
            logits = self.values["opacity_logits"]
            logits.clamp_(max=torch.logit(torch.tensor(highest)).item())
            for moment in MOMENTS:
                state = self.optimizer.state.get(logits)
                if state:
                    state[moment].zero_()

    def _replace(self, name: str, value: Tensor, plan: Plan) -> None:
        group = next(g for g in self.optimizer.param_groups if g["name"] == name)
        state = self.optimizer.state.pop(group["params"][0], None)
        parameter = value.detach().clone().requires_grad_()
        if state:
            for moment in MOMENTS:
                state[moment] = state[moment][plan.sources]
                state[moment][plan.is_new] = 0
            self.optimizer.state[parameter] = state
        group["params"], self.values[name] = [parameter], parameter

    # on disk --------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Writes a checkpoint in one move."""
        tensors = {f"values.{name}": value.detach() for name, value in self.values.items()}
        for name, value in self.values.items():
            state = self.optimizer.state.get(value, {})  # empty before the first step
            tensors |= {f"{key}.{name}": state[key] for key in (*MOMENTS, "step") if key in state}
        tensors["bindings"], tensors["betas"] = self.bindings, self.betas
        tensors["gradient_sums"], tensors["num_seen"] = self.gradient_sums, self.num_seen
        notes = {"step": str(self.step), "origin": json.dumps(self.origin)}
        contiguous = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        write_atomically(path, lambda partial: save_file(contiguous, partial, metadata=notes))

    def restore(self, path: str | Path) -> None:
        """Goes on from a checkpoint of the same fit.

        Raises:
            ValueError: It is damaged, or of a fit with other settings.
        """
        try:
            with safe_open(path, framework="pt") as file:
                notes = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}); remove it to start anew.") from error
        if json.loads(notes["origin"]) != self.origin:
            raise ValueError(
                f"{path} belongs to a fit of another capture or with other settings. Choose "
                "another output folder, or remove it."
            )
        device = self.bindings.device
        # Copied: a view into the file may lie at an odd address, where sums round differently.
        tensors = {name: tensor.clone().to(device) for name, tensor in tensors.items()}
        self.bindings, self.betas = tensors["bindings"], tensors["betas"]
        self.gradient_sums, self.num_seen = tensors["gradient_sums"], tensors["num_seen"]
        self.step = int(notes["step"])
        for group in self.optimizer.param_groups:
            name = group["name"]
            self.optimizer.state.pop(group["params"][0], None)
            parameter = tensors[f"values.{name}"].requires_grad_()
            group["params"], self.values[name] = [parameter], parameter
            if f"step.{name}" in tensors:
                state = {moment: tensors[f"{moment}.{name}"] for moment in MOMENTS}
                self.optimizer.state[parameter] = {"step": tensors[f"step.{name}"].cpu(), **state}
        self.set_learning_rates()
