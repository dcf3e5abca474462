# SPDX-License-Identifier: Apache-2.0
"""Stage 1: the generator learns to predict the next token (paper Sec. 4.4.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..models.layout_features import append_layouts, hide_layouts
from ..models.layout_reader import layout_losses, mix_layouts
from ..models.modeling_conditioner import AvatarConditioner
from ..models.modeling_point_generator import PointGeneratorForCausalLM
from ..models.slot_heads import IGNORED
from ..models.tokenization_points import (
    TOKENS_PER_POINT,
    PointTokenizer,
    TokenLayout,
    TokenOrder,
)
from ..portraits.image_processing_portrait import PortraitImageProcessor
from ..rigs.head_rig import HeadRig
from ..rigs.region_faces import find_region_faces
from .dataset import People, Person
from .loop import Batch, Loss, Periodic, train
from .loop_config import LoopConfig
from .portraits import portrait_pixels
from .windows import cut_window, focused_start, window_start, window_starts

NAME_SHARE = 0.3  # of the deviation that the rows of faces begin with when they are only names


class GeneratorTraining(nn.Module):
    """Conditioner and generator with the cross-entropy of the next token.

    Args:
        conditioner: Trained along; freeze its image encoder beforehand to keep it, as the paper
            keeps DINOv2.
        generator: Trained.
    """

    def __init__(
        self, conditioner: AvatarConditioner, generator: PointGeneratorForCausalLM
    ) -> None:
        super().__init__()
        self.conditioner, self.generator = conditioner, generator
        # What accelerate's FSDP shards, unless told otherwise. It refuses classes that are lacking.
        there = {type(module).__name__ for module in generator.modules()}
        self._no_split_modules = [kind for kind in generator._no_split_modules if kind in there]

    def forward(
        self,
        pixel_values: Tensor,
        rig_points: Tensor,
        input_ids: Tensor,
        labels: Tensor,
        face_anchors: Tensor | None = None,
        hide_portrait: Tensor | None = None,
        layouts: Tensor | None = None,
        layout_shares: Tensor | None = None,
    ) -> dict[str, Loss]:
        """Negative log-likelihoods in nats, as sums and numbers of tokens.

        "loss" is over all tokens, "loss_x", "loss_y", "loss_z" and "loss_b" over those of a slot,
        "loss_end" over the ends of clouds. Rows in which `hide_portrait` [B] is true know their
        head alone.

        A conditioner that foresees layouts learns it from the true ones [B, L, L^2], whose nats
        are "loss_layout" and part of the "loss". The generator is told mixtures, in each row the
        true one with a share of `layout_shares` [B]: it will be told what is foreseen, and has to
        obey it all the same.
        """
        guesses = told = None
        if layouts is None:
            context = self.conditioner(pixel_values, rig_points, hide_portrait)
        else:
            shares = {"layouts": layouts, "layout_shares": layout_shares}
            context, guesses = self.conditioner(pixel_values, rig_points, hide_portrait, **shares)
            told = mix_layouts(guesses, layouts, layout_shares)
        if face_anchors is not None:
            face_anchors = append_layouts(face_anchors, told, self.generator.config)
            if hide_portrait is not None:
                hidden = hide_layouts(face_anchors)
                face_anchors = torch.where(hide_portrait[:, None, None], hidden, face_anchors)
        output = self.generator.model(
            input_ids=input_ids,
            encoder_hidden_states=context,
            use_cache=False,
            face_anchors=face_anchors,
        )
        nats = self.generator.token_losses(
            output.last_hidden_state, labels, anchoring=output.anchoring
        )
        losses = {
            f"loss_{kind}" if kind else "loss": ((nats * chosen).sum(), chosen.sum())
            for kind, chosen in label_kinds(labels, self.generator.config.layout).items()
        }
        if guesses is not None:
            own = layout_losses(guesses, layouts).sum()
            total, count = losses["loss"]
            losses |= {
                "loss": (total + own, count),
                "loss_layout": (own, count.new_tensor(len(layouts))),
            }
        return losses

    def count_terms(self, labels: Tensor, **batch: Tensor) -> Tensor:
        """Tokens that "loss" is over."""
        return label_kinds(labels, self.generator.config.layout)[""].sum()


def label_kinds(labels: Tensor, layout: TokenLayout) -> dict[str, Tensor]:
    """Which labels of windows that start at a point count: all (""), per slot, ends. [B, L] each"""
    counts = labels != IGNORED
    counts[..., 0] = False  # nothing comes before it in the window
    ends = labels == layout.eos_token_id
    slots = torch.arange(labels.shape[-1], device=labels.device) % TOKENS_PER_POINT
    kinds = {name: counts & ~ends & (slots == slot) for slot, name in enumerate(layout.token_order)}
    return {"": counts, **kinds, "end": counts & ends}


def train_generator(
    conditioner: AvatarConditioner,
    generator: PointGeneratorForCausalLM,
    people: People,
    processor: PortraitImageProcessor,
    config: LoopConfig,
    periodic: Sequence[Periodic] = (),
) -> tuple[AvatarConditioner, PointGeneratorForCausalLM]:
    """Trains on windows of the data set's sequences, one random window per row.

    Args:
        conditioner: Trained along.
        generator: Trained.
        people: The data set.
        processor: Of the portraits.
        config: Of the loop.
        periodic: Gets a `GeneratorTraining`.

    Raises:
        ValueError: The clouds are encoded in another order of tokens than the generator's, or the
            rig has no region of the name of `focus_region`.
    """
    _check_token_order(people.tokenizer, generator.config.token_order)
    layout, window = people.tokenizer.layout, generator.config.sliding_window
    is_anchored = generator.config.binding_head == "anchored"
    layout_size = conditioner.config.layout_size
    if config.window_step:
        window_starts(window, window, config.window_step)  # refuses it here, not in a worker

    focus = _find_focus(people, config)

    def choose_start(person: Person, generator: torch.Generator) -> int:
        length = len(person.input_ids)
        if focus is None:
            return window_start(length, window, generator, config.window_step)
        bindings = people.tokenizer.decode_points(person.input_ids).bindings
        return focused_start(focus[bindings], length, window, generator, config.focus_share)

    def make_row(index: Tensor, generator: torch.Generator) -> Batch:
        person = people.persons[int(index)]
        which = torch.randint(len(person.portraits), (1,), generator=generator)
        start = choose_start(person, generator)
        input_ids, labels = cut_window(person.input_ids, start, window, layout)
        row = {
            "pixel_values": portrait_pixels(person.portraits[which] / 255, processor, generator),
            "rig_points": _rig_points(person.betas, people, conditioner),
            "input_ids": input_ids[None],
            "labels": labels[None],
        }
        if is_anchored:
            row["face_anchors"] = people.rig.face_anchors(person.betas[None])
        if layout_size is not None:
            row["layouts"] = people.layout_of(person, layout_size)[None]
            row["layout_shares"] = torch.rand(1, generator=generator)
        if config.portrait_dropout:
            # Drawn last: everything else in the row is the same for any share.
            row["hide_portrait"] = torch.rand(1, generator=generator) < config.portrait_dropout
        return row

    def collate(rows: list[Batch]) -> Batch:
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    training = GeneratorTraining(conditioner, generator)
    trained = train(training, make_row, collate, len(people), config, periodic)
    return trained.conditioner, trained.generator


def _find_focus(people: People, config: LoopConfig) -> Tensor | None:
    """Faces of the region that windows are to be of; None: of all alike. [F]"""
    if config.focus_region is None:
        return None
    if config.window_step:
        raise ValueError(
            f"`focus_region` must be left out where windows are {config.window_step} tokens apart, "
            f"got {config.focus_region!r}; take a window_step of 0."
        )
    return find_region_faces(people.rig, (config.focus_region,))


def _check_token_order(tokenizer: PointTokenizer, wanted: TokenOrder) -> None:
    if tokenizer.token_order != wanted:
        raise ValueError(
            f"`people` must be encoded in the order {wanted!r} of the generator, got "
            f"{tokenizer.token_order!r}. Take `with_token_order(people, {wanted!r})`."
        )


def encode_person(
    training: GeneratorTraining,
    people: People,
    index: int,
    processor: PortraitImageProcessor,
    betas: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Conditioning tokens of a person's first portrait as it is [1, M, D], and the faces.

    Args:
        training: Holds the networks.
        people: The data set.
        index: Of the person.
        processor: Of the portraits.
        betas: Of another head than the person's own. [S]
    """
    person, device = people.persons[index], training.generator.device
    betas = person.betas if betas is None else betas
    pixels = portrait_pixels(person.portraits[:1] / 255, processor)
    points = _rig_points(betas, people, training.conditioner)
    context, layouts = training.conditioner(
        pixels.to(device), points.to(device), return_layouts=True
    )
    return context, describe_faces(training.generator, people, betas, layouts)


def describe_faces(
    generator: PointGeneratorForCausalLM, people: People, betas: Tensor, layouts: Tensor | None
) -> Tensor | None:
    """What anchored bindings are known by [1, F, 6 or more], None for free ones.

    Args:
        generator: That they are for.
        people: Have the rig.
        betas: Of the head. [S]
        layouts: What is foreseen of its cloud, if anything. [1, L, L^2]
    """
    if generator.config.binding_head == "free":
        return None
    anchors = people.rig.face_anchors(betas[None]).to(generator.device)
    return append_layouts(anchors, layouts, generator.config)


def _rig_points(betas: Tensor, people: People, conditioner: AvatarConditioner) -> Tensor:
    num_samples = conditioner.config.point_cloud_config.num_points
    return people.rig.sample_points(betas[None], num_samples)


@torch.no_grad()
def embed_geometry(
    generator: PointGeneratorForCausalLM, tokenizer: PointTokenizer, rig: HeadRig
) -> None:
    """Starts the token embeddings from where the tokens are in space.

    A bin gets waves of its coordinate; a face gets the sum of three sets of waves, one for each
    coordinate of its centre, so that near tokens start alike, and a sum over the slots can point
    at a face. With random embeddings a small model spends most of its training on learning which
    of thousands of faces are neighbours.

    Args:
        generator: Its embeddings are overwritten, in place.
        tokenizer: Knows the bins and the cube.
        rig: Knows the faces.
    """
    weight = generator.model.embed_tokens.weight
    layout, std = tokenizer.layout, generator.config.initializer_range
    stream = torch.Generator().manual_seed(0)
    bins = (torch.arange(layout.num_bins) + 0.5) / layout.num_bins * 2 - 1
    centers = tokenizer.normalize_coords(rig.v_template[rig.faces].mean(1))
    of_bins = _waves(bins, weight.shape[1], layout.num_bins, stream)
    of_faces = sum(
        _waves(axis, weight.shape[1], layout.num_bins, stream) for axis in centers.unbind(-1)
    )
    weight[: layout.num_bins] = std * of_bins.to(weight)
    faces = weight[layout.binding_offset : layout.bos_token_id]
    if generator.config.binding_head == "anchored":
        # What lies where is told by the head; these rows begin as hardly more than names.
        faces.mul_(NAME_SHARE)
    else:
        faces.copy_(std * of_faces.to(weight) / 3**0.5)


def _waves(coords: Tensor, size: int, num_bins: int, stream: torch.Generator) -> Tensor:
    """Unit-variance cosines of coordinates in [-1, 1], from one wave per cube to one per 4 bins."""
    slowest, fastest = torch.pi / 2, torch.pi * num_bins / 4
    place = torch.rand(size, generator=stream)
    frequencies = slowest * (fastest / slowest) ** place
    phases = 2 * torch.pi * torch.rand(size, generator=stream)
    return 2**0.5 * torch.cos(coords.cpu()[:, None] * frequencies + phases)
