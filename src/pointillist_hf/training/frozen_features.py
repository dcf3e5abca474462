# SPDX-License-Identifier: Apache-2.0
"""What the frozen generator says about the people of a data set, kept on disk for stage 2.

The states of 20,000 points take 160 MB at the paper's size, those of 394 people more than 60 GB:
they are computed once, on the device of the training, and read back one by one.

    <folder>/features.json                 what they were computed from
    <folder>/features-00003-of-00099.safetensors   some portraits; `states.<row>`, `context.<row>`

Files appear whole, so a run that was interrupted computes what is missing.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from safetensors import safe_open
from torch import Tensor
from tqdm.auto import tqdm

from ..exporters.json_file import read_json_object, write_json_object
from ..exporters.tensor_file import write_tensors
from ..models.modeling_conditioner import AvatarConditioner
from ..models.modeling_point_generator import PointGeneratorForCausalLM
from ..models.tokenization_points import TOKENS_PER_POINT
from ..portraits.image_processing_portrait import PortraitImageProcessor
from .dataset import People
from .portraits import portrait_pixels
from .train_generator import describe_faces

logger = logging.getLogger(__name__)

NOTES_FILE = "features.json"
MAX_SHARD_BYTES = 2**29
BYTES_PER_VALUE = 2  # bfloat16


@dataclass(frozen=True)
class FrozenNetworks:
    """The networks, and how they are asked.

    Args:
        conditioner: Frozen.
        generator: Frozen.
        processor: Of the portraits.
        use_bfloat16: Whether they run in mixed precision.
        keep_context: Whether the conditioning tokens are kept too.
    """

    conditioner: AvatarConditioner
    generator: PointGeneratorForCausalLM
    processor: PortraitImageProcessor
    use_bfloat16: bool = False
    keep_context: bool = True

    @torch.no_grad()
    def __call__(
        self, people: People, index: int, portrait: int, device: torch.device
    ) -> dict[str, Tensor]:
        """Token hidden states [N, 4, D] and conditioning tokens [M, D], bfloat16."""
        person = people.persons[index]
        pixels = portrait_pixels(person.portraits[portrait : portrait + 1] / 255, self.processor)
        num_samples = self.conditioner.config.point_cloud_config.num_points
        rig_points = people.rig.sample_points(person.betas[None], num_samples)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.use_bfloat16):
            context, layouts = self.conditioner(
                pixels.to(device), rig_points.to(device), return_layouts=True
            )
            faces = describe_faces(self.generator, people, person.betas, layouts)
            input_ids = person.input_ids[None].to(device)
            states = windowed_states(self.generator, input_ids, context, faces)
        points = states[0, TOKENS_PER_POINT:-TOKENS_PER_POINT].unflatten(0, (-1, TOKENS_PER_POINT))
        found = {"states": points.bfloat16()}
        return {**found, "context": context[0].bfloat16()} if self.keep_context else found

    def describe(self) -> dict[str, object]:
        """What their answers depend on."""
        digest = hashlib.sha256()
        for model in (self.conditioner, self.generator):
            for name, tensor in sorted(model.state_dict().items()):
                digest.update(name.encode())
                digest.update(
                    tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
                )
        return {
            "weights": digest.hexdigest(),
            "precision": "bf16" if self.use_bfloat16 else "fp32",
            "keep_context": self.keep_context,
            "image": self.processor.to_dict(),
        }


def windowed_states(
    generator: PointGeneratorForCausalLM,
    input_ids: Tensor,
    context: Tensor,
    face_anchors: Tensor | None = None,
) -> Tensor:
    """Final hidden states of whole sequences under the sliding window. [B, L] -> [B, L, D]

    Fed in chunks through the rolling cache: each token meets the keys of a window and a chunk,
    not of the whole sequence.
    """
    faces = generator.model.embed_faces(face_anchors)
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


class FrozenFeatures:
    """The features of some portraits of every person, on disk.

    Args:
        folder: Holds them, and nothing else.
        people: The data set.
        portraits_per_person: Portraits that are looked at. Which ones differs from person to
            person, because they are all that a decoder ever sees.
    """

    def __init__(
        self, folder: str | Path, people: People, *, portraits_per_person: int = 1
    ) -> None:
        self.folder, self.people = Path(folder), people
        self.portraits_per_person = portraits_per_person
        self.lengths = people.point_counts
        self.rows_per_shard = 1

    def portrait_of(self, index: int, number: int) -> int:
        """Which portrait of a person is looked at as the number-th."""
        return (index + number) % len(self.people.persons[index].portraits)

    def __call__(self, index: int, number: int = 0) -> dict[str, Tensor]:
        """What the networks say, bfloat16 on the CPU: "states" [N, 4, D], "context" [M, D]."""
        row = index * self.portraits_per_person + number
        with safe_open(self._path(row // self.rows_per_shard), "pt") as file:
            names = [name for name in file.keys() if name.endswith(f".{row}")]  # noqa: SIM118
            return {name.split(".")[0]: file.get_tensor(name) for name in names}

    def prepare(self, networks: FrozenNetworks, *, show_progress: bool = False) -> None:
        """Computes what is not there yet, on the device of the training; all processes must come.

        Raises:
            OSError: They do not fit on the disk.
        """
        # As the loop's accelerator will read it: the first state of a process stays.
        state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
        self._plan(networks)
        notes = {
            **networks.describe(),
            "people": self._describe_people(),
            "portraits_per_person": self.portraits_per_person,
            "rows_per_shard": self.rows_per_shard,
        }
        if state.is_main_process:
            self._begin(notes)
        state.wait_for_everyone()
        missing = [shard for shard in range(self.num_shards) if not self._path(shard).exists()]
        if state.is_main_process:
            self._announce(len(missing), networks, show_progress)
        for model in (networks.conditioner, networks.generator):
            model.eval().to(state.device)
        own = missing[state.process_index :: state.num_processes]
        bar = tqdm(own, desc="features", disable=not (show_progress and state.is_main_process))
        for shard in bar:
            self._write_shard(shard, networks, state.device)
        state.wait_for_everyone()

    @property
    def num_rows(self) -> int:
        """Portraits that are looked at."""
        return len(self.people) * self.portraits_per_person

    @property
    def num_shards(self) -> int:
        """Files."""
        return -(-self.num_rows // self.rows_per_shard)

    def size(self, networks: FrozenNetworks, num_points: int) -> int:
        """Bytes of a portrait's features."""
        width = networks.generator.config.hidden_size
        values = TOKENS_PER_POINT * num_points * width
        if networks.keep_context:
            config = networks.conditioner.config
            patches = (config.image_size // config.image_config.patch_size) ** 2
            others = 1 + getattr(config.image_config, "num_register_tokens", 0)
            tokens = patches + others + config.point_cloud_config.num_latents
            tokens += config.layout_size or 0
            values += tokens * config.hidden_size
        return BYTES_PER_VALUE * values

    def _plan(self, networks: FrozenNetworks) -> None:
        largest = self.size(networks, max(self.lengths))
        self.rows_per_shard = max(1, min(MAX_SHARD_BYTES // largest, self.num_rows))

    def _path(self, shard: int) -> Path:
        return self.folder / f"features-{shard:05d}-of-{self.num_shards:05d}.safetensors"

    def _begin(self, notes: dict[str, object]) -> None:
        """Keeps what belongs to the same networks and people, and removes everything else."""
        path = self.folder / NOTES_FILE
        if path.is_file() and read_json_object(path) == notes:
            return
        if path.is_file():
            logger.info("%s is of other networks or people, and made anew.", self.folder)
            shutil.rmtree(self.folder)
        write_json_object(notes, path)

    def _announce(self, num_missing: int, networks: FrozenNetworks, is_shown: bool) -> None:
        total = self.portraits_per_person * sum(self.size(networks, n) for n in self.lengths)
        needed = total * num_missing // self.num_shards
        free = shutil.disk_usage(self.folder).free
        text = (
            f"Features of {self.num_rows} portraits: {total / 1e9:.1f} GB in {self.folder}, of "
            f"which {needed / 1e9:.1f} GB are computed now; {free / 1e9:.1f} GB are free."
        )
        logger.info(text)
        if is_shown:
            tqdm.write(text)
        if needed > free:
            raise OSError(
                f"`output` must have room for the features of {self.num_rows} portraits: they take "
                f"{needed / 1e9:.1f} GB more, and {self.folder} has {free / 1e9:.1f} GB free. Make "
                "room, or name another folder."
            )

    def _describe_people(self) -> str:
        digest = hashlib.sha256()
        for person in self.people.persons:
            digest.update(f"{person.identity} {len(person.portraits)}".encode())
            digest.update(person.input_ids.numpy().tobytes())
        return digest.hexdigest()

    def _write_shard(self, shard: int, networks: FrozenNetworks, device: torch.device) -> None:
        first = shard * self.rows_per_shard
        tensors: dict[str, Tensor] = {}
        for row in range(first, min(first + self.rows_per_shard, self.num_rows)):
            index, number = divmod(row, self.portraits_per_person)
            found = networks(self.people, index, self.portrait_of(index, number), device)
            tensors |= {f"{name}.{row}": value.cpu() for name, value in found.items()}
        write_tensors(tensors, self._path(shard))
