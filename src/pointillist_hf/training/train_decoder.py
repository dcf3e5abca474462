# SPDX-License-Identifier: Apache-2.0
"""Stage 2: the Gaussian decoder learns from pictures, the generator frozen (paper Sec. 4.4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..geometry.structures import Cameras, Gaussians, RigParams
from ..models.modeling_conditioner import AvatarConditioner
from ..models.modeling_gaussian_decoder import GaussianDecoder, GaussianDecoderOutput
from ..models.modeling_point_generator import PointGeneratorForCausalLM
from ..models.slot_heads import FaceTable
from ..models.tokenization_points import TOKENS_PER_POINT
from ..portraits.image_processing_portrait import PortraitImageProcessor
from ..rendering import rasterize
from ..rigs.binding import animate_gaussians
from .dataset import People, Person
from .loop import Batch, LoopConfig, train
from .losses import LossWeights, PerceptualLoss, image_losses, offset_penalty
from .portraits import portrait_pixels
from .train_generator import embed_head


class FrozenFeatures:
    """What the frozen networks say about a person's sequence, remembered between epochs.

    Args:
        conditioner: Frozen.
        generator: Frozen.
        people: The data set.
        processor: Of the portraits.
        use_bfloat16: Whether the networks run in mixed precision.
    """

    def __init__(
        self,
        conditioner: AvatarConditioner,
        generator: PointGeneratorForCausalLM,
        people: People,
        processor: PortraitImageProcessor,
        *,
        use_bfloat16: bool = False,
    ) -> None:
        self.conditioner, self.generator = conditioner.eval(), generator.eval()
        self.people, self.processor = people, processor
        self.use_bfloat16 = use_bfloat16
        self.known: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def __call__(self, index: int, portrait: int) -> tuple[Tensor, Tensor]:
        """Token hidden states [N, 4, D] and conditioning tokens [M, D], bfloat16 on the CPU."""
        if (index, portrait) not in self.known:
            self.known[index, portrait] = self._compute(self.people.persons[index], portrait)
        return self.known[index, portrait]

    @torch.no_grad()
    def _compute(self, person: Person, portrait: int) -> tuple[Tensor, Tensor]:
        device = self.conditioner.device
        pixels = portrait_pixels(person.portraits[portrait : portrait + 1] / 255, self.processor)
        num_samples = self.conditioner.config.point_cloud_config.num_points
        samples = self.people.rig.sample_points(person.betas[None], num_samples)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.use_bfloat16):
            context = self.conditioner(pixels.to(device), samples.to(device))
            faces = embed_head(self.generator, self.people, person.betas)
            input_ids = person.input_ids[None].to(device)
            states = windowed_states(self.generator, input_ids, context, faces)
        points = states[0, TOKENS_PER_POINT:-TOKENS_PER_POINT].unflatten(0, (-1, TOKENS_PER_POINT))
        return points.bfloat16().cpu(), context[0].bfloat16().cpu()


def windowed_states(
    generator: PointGeneratorForCausalLM,
    input_ids: Tensor,
    context: Tensor,
    faces: FaceTable | None = None,
) -> Tensor:
    """Final hidden states of whole sequences under the sliding window. [B, L] -> [B, L, D]

    Fed in chunks through the rolling cache: each token meets the keys of a window and a chunk,
    not of the whole sequence.
    """
    past, states = None, []
    for chunk in input_ids.split(max(generator.config.sliding_window // 2, 1), dim=1):
        output = generator.model(
            input_ids=chunk,
            encoder_hidden_states=context,
            past_key_values=past,
            use_cache=True,
            face_anchors=faces,
        )
        past = output.past_key_values
        states.append(output.last_hidden_state)
    return torch.cat(states, dim=1)


class DecoderTraining(nn.Module):
    """The decoder with Eq. 6: its splats are animated, rendered and compared with pictures."""

    def __init__(
        self,
        decoder: GaussianDecoder,
        people: People,
        weights: LossWeights,
        perceptual: PerceptualLoss | None = None,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.people, self.weights, self.perceptual = people, weights, perceptual

    def forward(
        self,
        means: Tensor,
        token_hidden_states: Tensor,
        attention_mask: Tensor,
        encoder_hidden_states: Tensor,
        bindings: list[Tensor],
        indices: list[int],
        views: list[Tensor],
        backgrounds: Tensor,
    ) -> dict[str, Tensor]:
        """Losses of B people, each seen in some of its views."""
        output = self.decoder(
            means, token_hidden_states.float(), attention_mask, encoder_hidden_states.float()
        )
        # Half precision is for networks: pictures and skinning need all digits.
        with torch.autocast(means.device.type, enabled=False):
            return self.picture_losses(output, bindings, indices, views, backgrounds)

    def picture_losses(
        self,
        output: GaussianDecoderOutput,
        bindings: list[Tensor],
        indices: list[int],
        views: list[Tensor],
        backgrounds: Tensor,
    ) -> dict[str, Tensor]:
        """Eq. 6 of rendered splats, averaged over B people."""
        rows = []
        for row, index in enumerate(indices):
            person, count = self.people.persons[index], len(bindings[row])
            background = backgrounds[row]
            rendered = render_views(
                output.gaussians(row, count),
                bindings[row],
                self.people,
                person.view_params[views[row]],
                person.view_cameras[views[row]],
                background,
            )
            target = composite(person.views[views[row]].to(background.device) / 255, background)
            losses = image_losses(rendered, target, self.weights, self.perceptual)
            losses["offset"] = offset_penalty(
                output.offsets[row, :count], self.decoder.config.bin_size
            )
            rows.append(losses)
        terms = {name: torch.stack([r[name] for r in rows]).mean() for name in rows[0]}
        return {"loss": terms["image"] + self.weights.offset * terms["offset"], **terms}


def render_views(
    gaussians: Gaussians,
    bindings: Tensor,
    people: People,
    rig_params: RigParams,
    cameras: Cameras,
    background: Tensor,
) -> Tensor:
    """Frame t seen by camera t. [V, H, W, 3]"""
    posed = animate_gaussians(gaussians, bindings, people.rig, rig_params)
    images = [
        rasterize(posed[t], cameras[t : t + 1], backgrounds=background[None])[0]
        for t in range(len(cameras))
    ]
    return torch.cat(images)


def composite(images: Tensor, background: Tensor) -> Tensor:
    """Pictures with straight alpha on a background. [..., 4], [3] -> [..., 3]"""
    alpha = images[..., 3:]
    return images[..., :3] * alpha + background * (1 - alpha)


def train_decoder(
    decoder: GaussianDecoder,
    features: FrozenFeatures,
    people: People,
    config: LoopConfig,
    *,
    views_per_person: int = 3,
    portraits_per_person: int = 1,
    weights: LossWeights | None = None,
    perceptual: PerceptualLoss | None = None,
) -> GaussianDecoder:
    """Trains the decoder on the views of a data set.

    Args:
        decoder: Trained in place.
        features: Of the frozen networks.
        people: The data set.
        config: Of the loop.
        views_per_person: Pictures per person and step.
        portraits_per_person: Portraits that are looked at; each costs a pass of the generator.
        weights: Of Eq. 6.
        perceptual: Any perceptual distance; None leaves the term out.
    """

    def make_row(index: Tensor, generator: torch.Generator) -> Batch:
        person = people.persons[int(index)]
        usable = min(portraits_per_person, len(person.portraits))
        # Not always the first ones: these portraits are all that the decoder ever sees.
        first = int(index) % len(person.portraits)
        which = (first + int(torch.randint(usable, (), generator=generator))) % len(
            person.portraits
        )
        return {
            "index": int(index),
            "portrait": which,
            "views": torch.randperm(len(person.views), generator=generator)[:views_per_person],
            # A background that changes leaves half-transparent splats nothing to hide behind.
            "background": torch.rand(3, generator=generator),
        }

    def collate(rows: list[Batch]) -> Batch:
        known = [features(row["index"], row["portrait"]) for row in rows]
        clouds = [
            people.tokenizer.decode_points(people.persons[row["index"]].input_ids) for row in rows
        ]
        states, contexts = zip(*known, strict=True)
        ones = [torch.ones(len(cloud), dtype=torch.bool) for cloud in clouds]
        return {
            "means": pad_sequence([cloud.means for cloud in clouds], batch_first=True),
            "token_hidden_states": pad_sequence(list(states), batch_first=True),
            "attention_mask": pad_sequence(ones, batch_first=True),
            "encoder_hidden_states": torch.stack(contexts),
            "bindings": [cloud.bindings for cloud in clouds],
            "indices": [row["index"] for row in rows],
            "views": [row["views"] for row in rows],
            "backgrounds": torch.stack([row["background"] for row in rows]),
        }

    training = DecoderTraining(decoder, people, weights or LossWeights(), perceptual)
    return train(training, make_row, collate, len(people), config).decoder
