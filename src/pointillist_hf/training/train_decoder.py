# SPDX-License-Identifier: Apache-2.0
"""Stage 2: the Gaussian decoder learns from pictures, the generator frozen (paper Sec. 4.4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..geometry.structures import Cameras, CanonicalPoints, Gaussians, RigParams
from ..models.modeling_gaussian_decoder import GaussianDecoder, GaussianDecoderOutput
from ..rendering import rasterize
from ..rigs.binding import animate_gaussians
from ..rigs.head_rig import HeadRig
from ..rigs.template_points import build_template_points
from .dataset import People
from .device_moves import Companion
from .frozen_features import FrozenFeatures
from .loop import Batch, train
from .loop_config import LoopConfig
from .losses import LossWeights, image_losses, offset_penalty


@dataclass(frozen=True)
class Sitting:
    """What a person's splats are compared with in one step."""

    bindings: Tensor  # [N]
    images: Tensor  # [V, H, W, 4] uint8
    rig_params: RigParams  # V frames
    cameras: Cameras  # V
    background: Tensor  # [3]


class DecoderTraining(nn.Module):
    """The decoder with Eq. 6: its splats are animated, rendered and compared with pictures."""

    def __init__(
        self,
        decoder: GaussianDecoder,
        rig: HeadRig,
        weights: LossWeights,
        perceptual: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.decoder, self.weights = decoder, weights
        self.rig = Companion(rig)
        # What accelerate's FSDP shards, unless told otherwise.
        self._no_split_modules = list(decoder._no_split_modules)
        self.perceptual = None if perceptual is None else Companion(perceptual)

    def forward(
        self,
        means: Tensor,
        token_hidden_states: Tensor | None,
        attention_mask: Tensor,
        encoder_hidden_states: Tensor | None,
        sittings: list[Sitting],
    ) -> dict[str, Tensor]:
        """Losses of B people, each seen in some of its views."""
        context = None if encoder_hidden_states is None else encoder_hidden_states.float()
        states = None if token_hidden_states is None else token_hidden_states.float()
        output = self.decoder(means, states, attention_mask, context)
        # Half precision is for networks: pictures and skinning need all digits.
        with torch.autocast(means.device.type, enabled=False):
            return self.picture_losses(output, sittings)

    def picture_losses(
        self, output: GaussianDecoderOutput, sittings: list[Sitting]
    ) -> dict[str, Tensor]:
        """Eq. 6 of rendered splats, averaged over B people."""
        device = output.means.device
        rig = self.rig.on(device)
        perceptual = None if self.perceptual is None else self.perceptual.on(device)
        rows = []
        for row, sitting in enumerate(sittings):
            count = len(sitting.bindings)
            rendered = render_views(output.gaussians(row, count), rig, sitting)
            target = composite(sitting.images / 255, sitting.background)
            losses = image_losses(rendered, target, self.weights, perceptual)
            losses["offset"] = offset_penalty(
                output.offsets[row, :count], self.decoder.config.bin_size
            )
            rows.append(losses)
        terms = {name: torch.stack([r[name] for r in rows]).mean() for name in rows[0]}
        return {"loss": terms["image"] + self.weights.offset * terms["offset"], **terms}


def render_views(gaussians: Gaussians, rig: HeadRig, sitting: Sitting) -> Tensor:
    """Frame t seen by camera t. [V, H, W, 3]"""
    posed = animate_gaussians(gaussians, sitting.bindings, rig, sitting.rig_params)
    images = [
        rasterize(posed[t], sitting.cameras[t : t + 1], backgrounds=sitting.background[None])[0]
        for t in range(len(sitting.cameras))
    ]
    return torch.cat(images)


def composite(images: Tensor, background: Tensor) -> Tensor:
    """Pictures with straight alpha on a background. [..., 4], [3] -> [..., 3]"""
    alpha = images[..., 3:]
    return images[..., :3] * alpha + background * (1 - alpha)


def choose_cloud(people: People, index: int, inputs: str) -> CanonicalPoints:
    """What a decoder with some `inputs` is given of a person: the true cloud, or the head's own."""
    person = people.persons[index]
    if inputs == "template":
        return build_template_points(people.rig, person.betas)
    return people.tokenizer.decode_points(person.input_ids)


def train_decoder(
    decoder: GaussianDecoder,
    features: FrozenFeatures,
    people: People,
    config: LoopConfig,
    *,
    views_per_person: int = 3,
    weights: LossWeights | None = None,
    perceptual: nn.Module | None = None,
) -> GaussianDecoder:
    """Trains the decoder on the views of a data set.

    Args:
        decoder: Trained in place, on the clouds of the data set, or on vertices of the heads if
            these are its `inputs`.
        features: Of the frozen networks, prepared.
        people: The data set.
        config: Of the loop.
        views_per_person: Pictures per person and step.
        weights: Of Eq. 6.
        perceptual: The third term; None leaves it out.
    """

    def make_row(index: Tensor, generator: torch.Generator) -> Batch:
        person = people.persons[int(index)]
        number = int(torch.randint(features.portraits_per_person, (), generator=generator))
        views = torch.randperm(len(person.views), generator=generator)[:views_per_person]
        # A background that changes leaves half-transparent splats nothing to hide behind.
        background = torch.rand(3, generator=generator)
        cloud = choose_cloud(people, int(index), decoder.config.inputs)
        sitting = Sitting(
            bindings=cloud.bindings,
            images=person.views[views],
            rig_params=person.view_params[views],
            cameras=person.view_cameras[views],
            background=background,
        )
        known = features(int(index), number)
        if decoder.config.generator_hidden_size is None:
            del known["states"]
        return {"means": cloud.means, "sitting": sitting, **known}

    def collate(rows: list[Batch]) -> Batch:
        means = [row["means"] for row in rows]
        ones = [torch.ones(len(row), dtype=torch.bool) for row in means]
        contexts = [row["context"] for row in rows if "context" in row]
        states = [row["states"] for row in rows if "states" in row]
        return {
            "means": pad_sequence(means, batch_first=True),
            "token_hidden_states": pad_sequence(states, batch_first=True) if states else None,
            "attention_mask": pad_sequence(ones, batch_first=True),
            "encoder_hidden_states": torch.stack(contexts) if contexts else None,
            "sittings": [row["sitting"] for row in rows],
        }

    training = DecoderTraining(decoder, people.rig, weights or LossWeights(), perceptual)
    return train(training, make_row, collate, len(people), config).decoder
