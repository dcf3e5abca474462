# SPDX-License-Identifier: Apache-2.0
"""Floor 6. One portrait in, one drivable avatar out: the figure of the paper, step by step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from .avatar import Avatar
from .decoding.generation import Engine, PointGenerationOutput, generate_points
from .decoding.grammar import GrammarLevel
from .decoding.streamers import PointCounter, StreamerGroup
from .geometry.structures import Cameras, CanonicalPoints, Gaussians, RigParams, join_params
from .models.modeling_conditioner import AvatarConditioner
from .models.modeling_gaussian_decoder import GaussianDecoder
from .models.modeling_point_generator import PointGeneratorForCausalLM
from .models.modeling_rig_regressor import RigRegressor
from .models.tokenization_points import PointTokenizer
from .pipeline_output import AvatarPipelineOutput, TrackedPortrait
from .portraits.camera_fit import fit_camera
from .portraits.image_processing_portrait import PortraitImageProcessor, PortraitInput
from .portraits.landmark_fit import fit_landmarks
from .portraits.portrait_tracker import PortraitTracker
from .refinement.avatar_refinement import refine_avatar
from .refinement.completion import complete_points
from .refinement.dressing import dress_points
from .refinement.portrait_view import PortraitView
from .registration import register_with_diffusers, register_with_transformers
from .rigs.alignment import align_to_shape
from .rigs.face_landmarks import find_face_landmarks
from .rigs.head_rig import HeadRig

register_with_diffusers()
register_with_transformers()


class AvatarPipeline(DiffusionPipeline):
    """From portraits to avatars.

    The call runs the public steps `check_inputs`, `track_portraits`, `encode_image`,
    `generate_tokens`, `decode_points`, `decode_gaussians`, `refine`, in this order.

    Args:
        image_processor: Frames the portrait.
        rig_regressor: Portrait -> rig parameters, where nobody knows them. Optional.
        portrait_tracker: Photograph -> face, landmarks, matte; the rig is fitted to the landmarks.
            Optional.
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
        complete_points: Whether clouds are completed by what the photograph shows, see
            `refinement.completion`; wants the tracker. The paper does not.
        refine_steps: Default of the call.
        view_size: Side of the picture that completion and refinement look at, pixels.

    Example:
        >>> pipe = AvatarPipeline.from_pretrained("model_cards/pointillist-tiny")
        >>> avatar = pipe("examples/images/astronaut.jpg", seed=0).avatar
        >>> avatar.export("me.ply")
    """

    model_cpu_offload_seq = "rig_regressor->conditioner->point_generator->gaussian_decoder"
    _optional_components = ["rig_regressor", "portrait_tracker"]  # noqa: RUF012  diffusers' class attribute

    def __init__(
        self,
        image_processor: PortraitImageProcessor,
        rig: HeadRig,
        conditioner: AvatarConditioner,
        tokenizer: PointTokenizer,
        point_generator: PointGeneratorForCausalLM,
        gaussian_decoder: GaussianDecoder,
        rig_regressor: RigRegressor | None = None,
        portrait_tracker: PortraitTracker | None = None,
        grammar: str = "types",
        temperature: float = 1.0,
        min_p: float = 0.05,
        max_points: int = 20000,
        align_points: bool = False,
        complete_points: bool = False,
        refine_steps: int = 0,
        view_size: int = 384,
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
            portrait_tracker=portrait_tracker,
        )
        # Sampling defaults live here because the Hub download of diffusers leaves
        # generation_config.json behind.
        self.register_to_config(
            grammar=grammar,
            temperature=temperature,
            min_p=min_p,
            max_points=max_points,
            align_points=align_points,
            complete_points=complete_points,
            refine_steps=refine_steps,
            view_size=view_size,
        )
        looks = gaussian_decoder.config.image_inputs == "projected"
        if (complete_points or looks) and portrait_tracker is None:
            raise ValueError(
                "`portrait_tracker` must be given: `complete_points` and decoders with "
                "`image_inputs='projected'` look at the photograph."
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
        cameras: Cameras | None = None,
        face: int | None = None,
        seed: int | Sequence[int] = 0,
        max_points: int | None = None,
        grammar: GrammarLevel | None = None,
        temperature: float | None = None,
        min_p: float | None = None,
        engine: Engine = "auto",
        num_return_sequences: int = 1,
        refine_steps: int | None = None,
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
            cameras: That see these heads in the photographs, in their pixels; by default they are
                found from the landmarks.
            face: Which face of a photograph, 1 being the largest; None takes that and warns if
                there are several.
            seed: One for all portraits, or one each. The same seed gives the same avatar; further
                avatars of a portrait have the seeds after it.
            max_points: Most points of an avatar.
            grammar: "types" or "full", see `PointGrammar`.
            temperature: Of the sampling.
            min_p: Of the sampling.
            engine: "auto", "reference", "compiled", "compiled-bfloat16" or "compiled-int8", see
                `decoding.generation.Engine`.
            num_return_sequences: Avatars of each portrait, one after the other.
            refine_steps: Steps of optimisation against the photograph; 0 leaves the networks' word.
            detect_face: False takes the largest centred square as the frame; without a tracker.
            remove_background: False keeps the background; without a tracker.
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
        refine_steps = self.config.refine_steps if refine_steps is None else refine_steps
        seeds = self.check_inputs(images, rig_params, seed, cameras, refine_steps)
        copies = self._copies(len(images), num_return_sequences)
        seeds = [seed + i for seed in seeds for i in range(num_return_sequences)]
        timings: dict[str, float] = {}
        with _timed(timings, "track_portraits"):
            tracked = self.track_portraits(images, rig_params, cameras, face=face)
        with _timed(timings, "encode_image"):
            rig_params, context = self.encode_image(
                images,
                rig_params,
                tracked,
                detect_face=detect_face,
                remove_background=remove_background,
            )
        rig_params, context = rig_params[copies], context[copies]
        views = None
        if tracked is not None:
            framed = [one.view(self.config.view_size) for one in tracked]
            views = [framed[i] for i in copies.tolist()]
        with _timed(timings, "generate_tokens"):
            generated = self.generate_tokens(context, seeds=seeds, **sampling, **generate_kwargs)
        with _timed(timings, "decode_points"):
            clouds = self.decode_points(generated.input_ids, rig_params, views)
        with _timed(timings, "decode_gaussians"):
            gaussians = self.decode_gaussians(clouds, generated.token_hidden_states, context, views)
        avatars = [
            Avatar(splats, cloud.bindings, self.rig, betas)
            for splats, cloud, betas in zip(gaussians, clouds, rig_params.betas, strict=True)
        ]
        with _timed(timings, "refine"):
            if refine_steps:
                avatars = [
                    self.refine(avatar, [view], num_steps=refine_steps, seed=seed)
                    for avatar, view, seed in zip(avatars, views, seeds, strict=True)
                ]
        self.maybe_free_model_hooks()
        return AvatarPipelineOutput(
            avatars=avatars,
            clouds=clouds,
            input_ids=generated.input_ids,
            rig_params=rig_params,
            tracked=tracked,
            timings=timings,
        )

    def check_inputs(
        self,
        images: list[PortraitInput],
        rig_params: RigParams | None,
        seed: int | Sequence[int],
        cameras: Cameras | None = None,
        refine_steps: int = 0,
    ) -> list[int]:
        """Refuses what cannot be made into avatars. Returns one seed per portrait."""
        if not images:
            raise ValueError("`image` must hold at least one portrait, got an empty list.")
        if rig_params is None and self.rig_regressor is None and self.portrait_tracker is None:
            raise ValueError(
                "`rig_params` must be given: this pipeline has no `portrait_tracker` and no "
                "`rig_regressor` to find them."
            )
        if cameras is not None and (rig_params is None or len(cameras) != len(images)):
            raise ValueError(
                "`cameras` must come with `rig_params`, one for each portrait, got "
                f"{len(cameras)} for {len(images)}."
            )
        if refine_steps < 0 or (refine_steps and self.portrait_tracker is None):
            raise ValueError(
                "`refine_steps` must be 0 or more, and 0 without a `portrait_tracker`, "
                f"got {refine_steps}."
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

    def track_portraits(
        self,
        images: list[PortraitInput],
        rig_params: RigParams | None = None,
        cameras: Cameras | None = None,
        *,
        face: int | None = None,
    ) -> list[TrackedPortrait] | None:
        """The faces in the photographs, and the rig that lies on them; None without a tracker.

        Args:
            images: B photographs.
            rig_params: B frames, if somebody knows them; then only cameras are looked for.
            cameras: B, if somebody knows them.
            face: Which face of a photograph, 1 being the largest.
        """
        if self.portrait_tracker is None:
            return None
        tracked = []
        for i, portrait in enumerate(self.portrait_tracker(images, face=face)):
            size = {"width": portrait.width, "height": portrait.height}
            if rig_params is None:
                found = fit_landmarks(
                    self.rig, portrait.landmarks[None], portrait.irises[None], **size
                )
                tracked.append(TrackedPortrait(portrait, found.rig_params, found.cameras))
                continue
            params = rig_params[i : i + 1]
            camera = None if cameras is None else cameras[i : i + 1]
            if camera is None:
                camera = fit_camera(self.rig, params, portrait.landmarks, **size)
            tracked.append(TrackedPortrait(portrait, params, camera))
        return tracked

    def encode_image(
        self,
        images: list[PortraitInput],
        rig_params: RigParams | None = None,
        tracked: list[TrackedPortrait] | None = None,
        *,
        detect_face: bool = True,
        remove_background: bool = True,
    ) -> tuple[RigParams, Tensor]:
        """Rig parameters of the portraits, and the tokens that the generator looks at.

        Args:
            images: B photographs.
            rig_params: B frames, if somebody knows them.
            tracked: Of `track_portraits`, if the pipeline has a tracker.
            detect_face: As in the call.
            remove_background: As in the call.

        Returns:
            Parameters, B frames; conditioning tokens [B, M, D].
        """
        device, dtype = self._execution_device, self.conditioner.dtype
        if tracked is None:
            processed = self.image_processor(
                images, detect_face=detect_face, remove_background=remove_background
            )["pixel_values"]
        else:
            rig_params = join_params([one.rig_params for one in tracked])
            roots = self.rig.joint_motion(rig_params).transforms[:, 0]
            framed = [
                self.image_processor.frame_head(one.portrait, root, one.cameras)
                for one, root in zip(tracked, roots, strict=True)
            ]
            processed = torch.stack([self.image_processor.normalize(image) for image in framed])
        pixel_values = processed.to(device, dtype)
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
        self,
        input_ids: Tensor,
        rig_params: RigParams | None = None,
        views: list[PortraitView] | None = None,
    ) -> list[CanonicalPoints]:
        """The clouds of the sequences.

        They lie on the heads of the portraits if `align_points` is set, and are completed by what
        the photographs show if `complete_points` is.

        Args:
            input_ids: [B, L]
            rig_params: B frames; without, the clouds stay as they are.
            views: The photographs of the B clouds.
        """
        clouds = [self.tokenizer.decode_points(row) for row in input_ids]
        if self.config.align_points and rig_params is not None:
            clouds = [
                align_to_shape(cloud, self.rig, betas)
                for cloud, betas in zip(clouds, rig_params.betas, strict=True)
            ]
        if not self.config.complete_points or views is None:
            return clouds
        places = find_face_landmarks(self.rig)
        return [
            complete_points(cloud, view, self.rig, landmark_places=places)
            for cloud, view in zip(clouds, views, strict=True)
        ]

    def decode_gaussians(
        self,
        clouds: list[CanonicalPoints],
        token_hidden_states: Tensor,
        context: Tensor,
        views: list[PortraitView] | None = None,
    ) -> list[Gaussians]:
        """What the points look like.

        Args:
            clouds: B clouds of at most N points.
            token_hidden_states: [B, N, 4, D]
            context: Conditioning tokens. [B, M, D]
            views: The photographs of the B clouds, for those that look at them.
        """
        looks = self.gaussian_decoder.config.image_inputs == "projected"
        if views is not None and (looks or self.config.complete_points):
            decoder = self.gaussian_decoder if looks else None
            return [
                dress_points(cloud, view, self.rig, decoder)
                for cloud, view in zip(clouds, views, strict=True)
            ]
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

    def refine(
        self,
        avatar: Avatar,
        views: list[PortraitView],
        *,
        num_steps: int = 100,
        seed: int = 0,
    ) -> Avatar:
        """The avatar after some steps towards photographs of its person.

        Ctrl-C ends the steps, and what they have brought is kept.

        Args:
            avatar: Of this pipeline's rig.
            views: Photographs, see `TrackedPortrait.view`.
            num_steps: Each looks at one photograph, in turn.
            seed: The same seed gives the same bits.
        """
        show = not getattr(self, "_progress_bar_config", {}).get("disable", False)
        return refine_avatar(avatar, views, num_steps=num_steps, seed=seed, show_progress=show)


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[name] = time.perf_counter() - start
