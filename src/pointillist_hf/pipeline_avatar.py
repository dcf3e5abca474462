# SPDX-License-Identifier: Apache-2.0
"""Floor 6. One portrait in, one drivable avatar out: the figure of the paper, step by step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from .avatar import Avatar
from .decoding.generation import Engine, PointGenerationOutput, generate_points
from .decoding.grammar import GrammarLevel
from .decoding.streamers import PointCounter, StreamerGroup
from .geometry.structures import CanonicalPoints, Gaussians, RigParams
from .models.modeling_conditioner import AvatarConditioner
from .models.modeling_gaussian_decoder import GaussianDecoder
from .models.modeling_point_generator import PointGeneratorForCausalLM
from .models.modeling_rig_regressor import RigRegressor
from .models.tokenization_points import PointTokenizer
from .portraits.image_processing_portrait import PortraitImageProcessor, PortraitInput
from .registration import register_with_diffusers, register_with_transformers
from .rigs.alignment import align_to_shape
from .rigs.head_rig import HeadRig

register_with_diffusers()
register_with_transformers()


@dataclass
class AvatarPipelineOutput(BaseOutput):
    """What the pipeline makes of B portraits. `avatar` and `points` are those of the first."""

    avatars: list[Avatar]
    clouds: list[CanonicalPoints]
    input_ids: Tensor  # [B, 4 (N + 2)], padded
    rig_params: RigParams  # one frame per avatar, as regressed or as given
    timings: dict[str, float] = field(default_factory=dict)  # seconds per step

    @property
    def avatar(self) -> Avatar:
        """The first avatar."""
        return self.avatars[0]

    @property
    def points(self) -> CanonicalPoints:
        """The first point cloud, in the order in which it was generated."""
        return self.clouds[0]


class AvatarPipeline(DiffusionPipeline):
    """From portraits to avatars.

    The call runs the public steps `check_inputs`, `encode_image`, `generate_tokens`,
    `decode_points`, `decode_gaussians`, in this order.

    Args:
        image_processor: Frames the portrait.
        rig_regressor: Portrait -> rig parameters, where the user brings none. Optional.
        rig: The head that moves the avatar.
        conditioner: Portrait and head -> conditioning tokens.
        tokenizer: Tokens <-> points.
        point_generator: Conditioning tokens -> tokens.
        gaussian_decoder: Points -> gaussians.
        grammar: Default of the call.
        temperature: Default of the call.
        min_p: Default of the call.
        max_points: Default of the call.
        align_points: Whether clouds are laid onto the tracked head, see `rigs.alignment`. The paper
            does not; a small generator misses the shape of the head by millimetres.

    Example:
        >>> pipe = AvatarPipeline.from_pretrained("model_cards/pointillist-tiny")
        >>> avatar = pipe("examples/images/astronaut.jpg", seed=0).avatar
        >>> avatar.export("me.ply")
    """

    model_cpu_offload_seq = "rig_regressor->conditioner->point_generator->gaussian_decoder"
    _optional_components = ["rig_regressor"]  # noqa: RUF012  diffusers' class attribute

    def __init__(
        self,
        image_processor: PortraitImageProcessor,
        rig: HeadRig,
        conditioner: AvatarConditioner,
        tokenizer: PointTokenizer,
        point_generator: PointGeneratorForCausalLM,
        gaussian_decoder: GaussianDecoder,
        rig_regressor: RigRegressor | None = None,
        grammar: str = "types",
        temperature: float = 1.0,
        min_p: float = 0.05,
        max_points: int = 20000,
        align_points: bool = False,
    ) -> None:
        super().__init__()
        self.register_modules(
            image_processor=image_processor,
            rig=rig,
            conditioner=conditioner,
            tokenizer=tokenizer,
            point_generator=point_generator,
            gaussian_decoder=gaussian_decoder,
            rig_regressor=rig_regressor,
        )
        # Sampling defaults live here because the Hub download of diffusers leaves
        # generation_config.json behind.
        self.register_to_config(
            grammar=grammar,
            temperature=temperature,
            min_p=min_p,
            max_points=max_points,
            align_points=align_points,
        )

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, **kwargs: object
    ) -> AvatarPipeline:
        """The pipeline of a folder or Hub id, in float32 unless `dtype` says otherwise.

        Weights are stored in bfloat16 to be small; most CPUs compute with it several times slower.
        """
        kwargs = {"dtype": torch.float32, **kwargs}
        return super().from_pretrained(str(pretrained_model_name_or_path), **kwargs)

    @torch.no_grad()
    def __call__(
        self,
        image: PortraitInput | list[PortraitInput],
        *,
        rig_params: RigParams | None = None,
        seed: int | Sequence[int] = 0,
        max_points: int | None = None,
        grammar: GrammarLevel | None = None,
        temperature: float | None = None,
        min_p: float | None = None,
        engine: Engine = "auto",
        num_return_sequences: int = 1,
        detect_face: bool = True,
        remove_background: bool = True,
        **generate_kwargs: object,
    ) -> AvatarPipelineOutput:
        """Avatars of the portraits.

        A progress bar counts the points, see `set_progress_bar_config`. The first Ctrl-C while they
        are generated ends that, and the avatars are made of the points so far.

        Args:
            image: PIL image, path, array [H, W, 3] or tensor [3, H, W]; a list makes a batch.
            rig_params: Of the portraits, one frame each, from a tracker of your own.
            seed: One for all portraits, or one each. The same seed gives the same avatar; further
                avatars of a portrait have the seeds after it.
            max_points: Most points of an avatar.
            grammar: "types" or "full", see `PointGrammar`.
            temperature: Of the sampling.
            min_p: Of the sampling.
            engine: "auto", "reference", "compiled", "compiled-bfloat16" or "compiled-int8", see
                `decoding.generation.Engine`.
            num_return_sequences: Avatars of each portrait, one after the other.
            detect_face: False takes the largest centred square as the frame.
            remove_background: False keeps the background of the photograph.
            **generate_kwargs: Go to `generate_points`, for instance `streamer`, which gets the
                points as they are decoded, or `stop`.
        """
        images = image if isinstance(image, list) else [image]
        sampling = {
            "grammar": grammar or self.config.grammar,
            "temperature": self.config.temperature if temperature is None else temperature,
            "min_p": self.config.min_p if min_p is None else min_p,
            "max_points": self.config.max_points if max_points is None else max_points,
            "engine": engine,
        }
        seeds = self.check_inputs(images, rig_params, seed)
        copies = self._copies(len(images), num_return_sequences)
        seeds = [seed + i for seed in seeds for i in range(num_return_sequences)]
        timings: dict[str, float] = {}
        with _timed(timings, "encode_image"):
            rig_params, context = self.encode_image(
                images,
                rig_params,
                detect_face=detect_face,
                remove_background=remove_background,
            )
        rig_params, context = rig_params[copies], context[copies]
        with _timed(timings, "generate_tokens"):
            generated = self.generate_tokens(context, seeds=seeds, **sampling, **generate_kwargs)
        with _timed(timings, "decode_points"):
            clouds = self.decode_points(generated.input_ids, rig_params)
        with _timed(timings, "decode_gaussians"):
            gaussians = self.decode_gaussians(clouds, generated.token_hidden_states, context)
        avatars = [
            Avatar(splats, cloud.bindings, self.rig, betas)
            for splats, cloud, betas in zip(gaussians, clouds, rig_params.betas, strict=True)
        ]
        self.maybe_free_model_hooks()
        return AvatarPipelineOutput(
            avatars=avatars,
            clouds=clouds,
            input_ids=generated.input_ids,
            rig_params=rig_params,
            timings=timings,
        )

    def check_inputs(
        self,
        images: list[PortraitInput],
        rig_params: RigParams | None,
        seed: int | Sequence[int],
    ) -> list[int]:
        """Refuses what cannot be made into avatars. Returns one seed per portrait."""
        if not images:
            raise ValueError("`image` must hold at least one portrait, got an empty list.")
        if rig_params is None and self.rig_regressor is None:
            raise ValueError(
                "`rig_params` must be given: this pipeline has no `rig_regressor` to guess them."
            )
        if rig_params is not None:
            self.rig.check_params(rig_params)
            if len(rig_params) != len(images):
                raise ValueError(
                    f"`rig_params` must hold one frame per portrait, got {len(rig_params)} "
                    f"for {len(images)}."
                )
        seeds = [seed] * len(images) if isinstance(seed, int) else list(seed)
        if len(seeds) != len(images):
            raise ValueError(
                f"`seed` must be one number or one per portrait, got {len(seeds)} for "
                f"{len(images)}."
            )
        return seeds

    @staticmethod
    def _copies(num_images: int, num_return_sequences: int) -> Tensor:
        """The portrait of each avatar. [B num_return_sequences]"""
        if num_return_sequences < 1:
            raise ValueError(
                f"`num_return_sequences` must be at least 1, got {num_return_sequences}."
            )
        return torch.arange(num_images).repeat_interleave(num_return_sequences)

    def encode_image(
        self,
        images: list[PortraitInput],
        rig_params: RigParams | None = None,
        *,
        detect_face: bool = True,
        remove_background: bool = True,
    ) -> tuple[RigParams, Tensor]:
        """Rig parameters of the portraits, and the tokens that the generator looks at.

        Returns:
            Parameters, B frames; conditioning tokens [B, M, D].
        """
        processed = self.image_processor(
            images, detect_face=detect_face, remove_background=remove_background
        )
        device, dtype = self._execution_device, self.conditioner.dtype
        pixel_values = processed["pixel_values"].to(device, dtype)
        if rig_params is None:
            rig_params = self.rig_regressor(pixel_values.to(self.rig_regressor.dtype))
        rig_params = rig_params.to(self.rig.v_template.device)
        num_points = self.conditioner.config.point_cloud_config.num_points
        rig_points = self.rig.sample_points(rig_params.betas, num_points)
        return rig_params, self.conditioner(pixel_values, rig_points.to(device, dtype))

    def generate_tokens(
        self, context: Tensor, *, seeds: Sequence[int], **sampling: object
    ) -> PointGenerationOutput:
        """One token sequence per row of the context, with the hidden states of its tokens."""
        most = sampling.get("max_points", self.config.max_points)
        with self.progress_bar(total=len(context) * most) as bar:
            bar.unit = " points"
            counter = PointCounter(bar.update, self.tokenizer.layout.bos_token_id)
            streamer = sampling.pop("streamer", None)
            sampling["streamer"] = StreamerGroup([counter, streamer] if streamer else [counter])
            generated = generate_points(
                self.point_generator,
                context.to(self.point_generator.dtype),
                seeds=seeds,
                **sampling,
            )
            # Clouds end where they are complete, and so does the bar.
            bar.total = bar.n
            bar.refresh()
        return generated

    def decode_points(
        self, input_ids: Tensor, rig_params: RigParams | None = None
    ) -> list[CanonicalPoints]:
        """The clouds of the sequences, on the heads of the portraits if `align_points` is set.

        Args:
            input_ids: [B, L]
            rig_params: B frames; without, the clouds stay as they are.
        """
        clouds = [self.tokenizer.decode_points(row) for row in input_ids]
        if not self.config.align_points or rig_params is None:
            return clouds
        return [
            align_to_shape(cloud, self.rig, betas)
            for cloud, betas in zip(clouds, rig_params.betas, strict=True)
        ]

    def decode_gaussians(
        self, clouds: list[CanonicalPoints], token_hidden_states: Tensor, context: Tensor
    ) -> list[Gaussians]:
        """What the points look like.

        Args:
            clouds: B clouds of at most N points.
            token_hidden_states: [B, N, 4, D]
            context: Conditioning tokens. [B, M, D]
        """
        counts = [len(cloud) for cloud in clouds]
        means = torch.nn.utils.rnn.pad_sequence([c.means for c in clouds], batch_first=True)
        mask = torch.arange(means.shape[1])[None] < torch.tensor(counts)[:, None]
        dtype = self.gaussian_decoder.dtype
        looks = self.gaussian_decoder.config.cross_attention_size is not None
        output = self.gaussian_decoder(
            means,
            token_hidden_states.to(dtype),
            attention_mask=mask.to(means.device),
            encoder_hidden_states=context.to(dtype) if looks else None,
        )
        return [output.gaussians(row, count) for row, count in enumerate(counts)]


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[name] = time.perf_counter() - start
