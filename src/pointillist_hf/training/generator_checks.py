# SPDX-License-Identifier: Apache-2.0
"""How the generator does while it is trained: its likelihood on other people, and pictures."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch
from accelerate import PartialState
from torch import Tensor, nn

from ..decoding.generation import generate_points
from ..exporters.images import write_contact_sheet
from ..geometry.cameras import orbit_cameras
from ..geometry.structures import CanonicalPoints, Gaussians
from ..models.modeling_point_generator import PointGeneratorForCausalLM
from ..models.slot_heads import IGNORED
from ..portraits.image_processing_portrait import PortraitImageProcessor
from ..rendering import rasterize
from ..rigs.head_rig import HeadRig
from .dataset import People
from .loop import Periodic
from .loop_config import LoopConfig
from .train_generator import GeneratorTraining, encode_person, label_kinds
from .windows import cut_window, scoring_windows

WINDOWS_AT_ONCE = 8
NUM_SAMPLES, PICTURE_SIZE, POINT_RADIUS = 4, 160, 0.004
VIEWS = [0.0, 60.0]
NUM_COMPARED = 4  # people whose clouds are scored with other heads too
Head = Literal["right", "mean", "wrong"]


def generator_checks(
    people: People | None, seen: People, processor: PortraitImageProcessor, config: LoopConfig
) -> list[Periodic]:
    """What the loop does every `eval_steps` and every `sample_steps`.

    Args:
        people: The split that is not trained on.
        seen: The split that is.
        processor: Of the portraits.
        config: Says how often.
    """
    shown = seen if people is None or not len(people) else people
    return [
        Periodic(
            config.eval_steps,
            partial(
                _log_likelihood, people=shown, processor=processor, count=config.num_eval_people
            ),
        ),
        Periodic(
            config.sample_steps,
            partial(
                _draw_samples,
                people=shown,
                processor=processor,
                max_points=config.num_sample_points,
                folder=Path(config.output_dir) / "samples",
            ),
        ),
    ]


@torch.no_grad()
def cloud_losses(
    generator: PointGeneratorForCausalLM,
    input_ids: Tensor,
    context: Tensor,
    face_anchors: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Nats of each token of a whole cloud, scored once, and the labels they are of.

    Args:
        generator: Sees windows of its own size, half a window apart.
        input_ids: A whole sequence. [L]
        context: Conditioning tokens. [1, M, D]
        face_anchors: Of the head, with anchored bindings. [1, F, 6 or more]

    Returns:
        Nats [L] and labels [L], -100 where the grammar leaves nothing to predict.
    """
    layout, window = generator.config.layout, generator.config.sliding_window
    window = min(window, len(input_ids))
    faces = generator.model.embed_faces(face_anchors)
    nats = torch.zeros(len(input_ids), dtype=torch.float64)
    all_labels = cut_window(input_ids, 0, len(input_ids), layout)[1]
    plan = scoring_windows(len(input_ids), window)
    for i in range(0, len(plan), WINDOWS_AT_ONCE):
        part = plan[i : i + WINDOWS_AT_ONCE]
        rows = [cut_window(input_ids, start, window, layout) for start, _ in part]
        ids, labels = (torch.stack(column).to(context.device) for column in zip(*rows, strict=True))
        for row, (start, first) in zip(labels, part, strict=True):
            row[: first - start] = IGNORED
        output = generator.model(
            input_ids=ids,
            encoder_hidden_states=context.expand(len(ids), -1, -1),
            use_cache=False,
            face_anchors=None if faces is None else faces.expand(len(ids)),
        )
        losses = generator.token_losses(
            output.last_hidden_state, labels, anchoring=output.anchoring
        )
        losses = losses.double().cpu()
        for row, (start, _) in zip(losses, part, strict=True):
            place = slice(start, start + window)
            nats[place] += row[: len(nats[place])]
    return nats, all_labels


def choose_head(people: People, index: int, head: Head) -> Tensor:
    """The identity of a person's own head, of the mean one, or of that of the next person. [S]

    The last person's next is the first, who is the same where there is no other.
    """
    if head == "mean":
        return torch.zeros_like(people.persons[index].betas)
    return people.persons[(index + (head == "wrong")) % len(people)].betas


def validate_generator(
    training: GeneratorTraining,
    people: People,
    processor: PortraitImageProcessor,
    count: int,
    head: Head = "right",
) -> dict[str, float]:
    """Held-out negative log-likelihood.

    Args:
        training: Holds the networks.
        people: The data set.
        processor: Of the portraits.
        count: People whose clouds are scored, from the first one on.
        head: Which head the generator is told of.

    Returns:
        "nats_per_point", the four tokens of a point together, averaged over the points of all
        clouds; "nats_x", "nats_y", "nats_z" and "nats_b", its parts; "nats_end" per cloud, apart.
    """
    layout = people.tokenizer.layout
    sums = dict.fromkeys((*layout.token_order, "end"), 0.0)
    num_points, num_clouds = 0, min(count, len(people))
    for index, person in enumerate(people.persons[:num_clouds]):
        betas = choose_head(people, index, head)
        conditioning = encode_person(training, people, index, processor, betas)
        nats, labels = cloud_losses(training.generator, person.input_ids, *conditioning)
        for kind, chosen in label_kinds(labels, layout).items():
            if kind:
                sums[kind] += float(nats[chosen].sum())
        num_points += person.num_points
    figures = {f"nats_{axis}": sums[axis] / num_points for axis in "xyzb"}
    return {
        "nats_per_point": sum(figures.values()),
        **figures,
        "nats_end": sums["end"] / num_clouds,
    }


def compare_heads(
    training: GeneratorTraining, people: People, processor: PortraitImageProcessor, count: int
) -> dict[str, float]:
    """Whether the generator looks at the head: held-out nats per point with several heads.

    Returns:
        "nats_right_head", "nats_mean_head" and "nats_wrong_head", over the same people.
    """
    scores = {
        head: validate_generator(training, people, processor, min(count, NUM_COMPARED), head)
        for head in get_args(Head)
    }
    return {f"nats_{head}_head": figures["nats_per_point"] for head, figures in scores.items()}


def draw_samples(
    training: GeneratorTraining, people: People, processor: PortraitImageProcessor, max_points: int
) -> Tensor:
    """Clouds of the first people, true and sampled, seen from two sides. [4 K, H, W, 3]"""
    shown, generator = people.persons[:NUM_SAMPLES], training.generator
    contexts, faces = zip(
        *(encode_person(training, people, i, processor) for i in range(len(shown))), strict=True
    )
    options = {} if faces[0] is None else {"face_anchors": torch.cat(faces)}
    output = generate_points(generator, torch.cat(contexts), max_points=max_points, **options)
    pictures = []
    for person, sampled in zip(shown, output.input_ids.cpu(), strict=True):
        for ids in (person.input_ids, sampled):
            pictures.append(_render_points(people.tokenizer.decode_points(ids), people.rig))
    return torch.cat(pictures)


def _log_likelihood(
    model: nn.Module, done: int, *, people: People, processor: PortraitImageProcessor, count: int
) -> dict[str, float]:
    figures = validate_generator(model, people, processor, count)
    if model.generator.config.binding_head == "anchored":
        figures |= compare_heads(model, people, processor, count)
    return {f"validation_{name}": value for name, value in figures.items()}


def _draw_samples(
    model: nn.Module,
    done: int,
    *,
    people: People,
    processor: PortraitImageProcessor,
    max_points: int,
    folder: Path,
) -> dict[str, float]:
    pictures = draw_samples(model, people, processor, max_points)
    if PartialState().is_main_process:
        labels = ["true", "true", "sampled", "sampled"] * (len(pictures) // 4)
        path = folder / f"step-{done:07d}.png"
        write_contact_sheet(pictures, path, columns=4, labels=labels)
    return {}


def _render_points(points: CanonicalPoints, rig: HeadRig) -> Tensor:
    """Small balls, coloured by the directions of the faces they are bound to. [2, H, W, 3]"""
    corners = rig.v_template[rig.faces].cpu()
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    colors = 0.5 + 0.5 * nn.functional.normalize(normals, dim=-1)
    count = len(points)
    balls = Gaussians(
        means=points.means.float(),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        scales=torch.full((count, 3), POINT_RADIUS),
        opacities=torch.full((count,), 0.9),
        colors=colors[points.bindings],
    )
    cameras = orbit_cameras(VIEWS, width=PICTURE_SIZE, height=PICTURE_SIZE)
    return rasterize(balls, cameras, backgrounds=torch.ones(2, 3))[0]
