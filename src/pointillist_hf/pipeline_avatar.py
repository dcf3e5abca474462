# SPDX-License-Identifier: Apache-2.0
"""Floor 6. One portrait in, one drivable avatar out: the figure of the paper, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from .avatar import Avatar
from .decoding.cpu.first_calls import expect_model
from .decoding.generation import Engine
from .decoding.grammar import GrammarLevel
from .default_model import find_default_model
from .first_use import compile_drawing
from .geometry.structures import Cameras, CanonicalPoints, Gaussians, RigParams
from .models.modeling_conditioner import AvatarConditioner
from .models.modeling_gaussian_decoder import GaussianDecoder
from .models.modeling_point_generator import PointGeneratorForCausalLM
from .models.modeling_rig_regressor import RigRegressor
from .models.tokenization_points import PointTokenizer
from .pipeline_hub import HubPipeline
from .pipeline_inputs import list_copies
from .pipeline_output import AvatarPipelineOutput
from .pipeline_parts import DAMAGE, check_parts, check_settings, resolve_dtype
from .pipeline_steps import PipelineSteps
from .portraits.image_processing_portrait import PortraitImageProcessor, PortraitInput
from .portraits.portrait_tracker import PortraitTracker
from .refinement.portrait_view import PortraitView
from .registration import register_with_transformers
from .rigs.head_rig import HeadRig

register_with_transformers()

# Gets the name of a step, and how much of it is done: points while tokens are generated, steps of
# the optimisation while an avatar is refined, and 0 as each step begins.
ProgressCallback = Callable[[str, int], None]


class AvatarPipeline(PipelineSteps, HubPipeline):
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
        guidance_scale: Default of the call; the paper has none, which is 1.
        num_candidates: Default of the call; the paper draws one cloud.
        max_points: Default of the call.
        align_points: Whether clouds are laid onto the tracked head, see `rigs.alignment`. The paper
            does not; a small generator misses the shape of the head by millimetres.
        complete_points: Whether clouds are completed by what the photograph shows, see
            `refinement.completion`; wants the tracker. The paper does not.
        refine_steps: Default of the call.
        view_size: Side of the picture that completion and refinement look at, pixels.
        licences: Source and licence of each part, see `publishing.manifest`; published with it.

    Example:
        >>> pipe = AvatarPipeline.from_pretrained()
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
        guidance_scale: float = 1.0,
        num_candidates: int = 1,
        max_points: int = 20000,
        align_points: bool = False,
        complete_points: bool = False,
        refine_steps: int = 0,
        view_size: int = 384,
        licences: dict | None = None,
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
            guidance_scale=guidance_scale,
            num_candidates=num_candidates,
            max_points=max_points,
            align_points=align_points,
            complete_points=complete_points,
            refine_steps=refine_steps,
            view_size=view_size,
            licences=licences,
        )
        check_parts(self)
        check_settings(self)
        looks = gaussian_decoder.config.image_inputs == "projected"
        if (complete_points or looks) and portrait_tracker is None:
            raise ValueError(
                "`portrait_tracker` must be given: `complete_points` and decoders with "
                "`image_inputs='projected'` look at the photograph."
            )

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path | None = None, **kwargs: object
    ) -> AvatarPipeline:
        """The pipeline of a folder or Hub id, in float32 unless `dtype` says otherwise.

        Weights are stored in bfloat16 to be small; most CPUs compute with it several times slower.

        Args:
            pretrained_model_name_or_path: Without, the model of the checkout, or the Hub's copy of
                it where the package is installed.
            **kwargs: Of diffusers: `dtype` (or its older name `torch_dtype`), `device_map`,
                `variant`, `revision`, `cache_dir`, `local_files_only`, `token`, parts by name ...

        Raises:
            OSError: There is no such pipeline, or a file of it is missing.
            ValueError: A part is damaged, or was made for others than the pipeline's.
        """
        source = str(pretrained_model_name_or_path or find_default_model())
        kwargs = resolve_dtype(kwargs)
        expect_model(source)
        try:
            pipe = super().from_pretrained(source, **kwargs)
        except (*DAMAGE, OSError) as error:
            # A disk's words, and our own about the Hub, say already what to do.
            is_clear = isinstance(error, FileNotFoundError) and "`" in str(error)
            if isinstance(error, OSError) and (error.errno is not None or is_clear):
                raise
            kind = OSError if isinstance(error, OSError) else ValueError
            raise kind(
                f"`pretrained_model_name_or_path` must be a whole pipeline, and {source} holds "
                f"none: {' '.join(str(error).split()) or type(error).__name__}"
            ) from error
        compile_drawing(pipe)
        return pipe

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
        guidance_scale: float | None = None,
        num_candidates: int | None = None,
        engine: Engine = "auto",
        num_return_sequences: int = 1,
        refine_steps: int | None = None,
        detect_face: bool = True,
        remove_background: bool = True,
        on_progress: ProgressCallback | None = None,
        **generate_kwargs: object,
    ) -> AvatarPipelineOutput:
        """Avatars of the portraits.

        A progress bar counts the points, see `set_progress_bar_config`. The first Ctrl-C while they
        are generated ends that, and the avatars are made of the points so far.

        Args:
            image: PIL image, path, array [H, W, 3] or tensor [3, H, W]; a list makes a batch.
            rig_params: Of the portraits, one frame each, from a tracker of your own.
            cameras: That see these heads in the photographs' pixels; else they are found.
            face: Which face, 1 being the largest; None takes that and warns if there are several.
            seed: One for all portraits, or one each. The same seed gives the same avatar; further
                avatars of a portrait have the seeds after it.
            max_points: Most points of an avatar.
            grammar: "types", "full", "faces" or "every_face", see `decoding.grammar.GrammarLevel`.
            temperature: Of the sampling.
            min_p: Of the sampling.
            guidance_scale: Of the sampling: above 1, clouds follow the portrait more closely.
            num_candidates: Clouds that are drawn; what fits the portrait best of them is kept.
            engine: "auto", "reference", "compiled", ..., see `decoding.generation.Engine`.
            num_return_sequences: Avatars of each portrait, one after the other.
            refine_steps: Steps of optimisation against the photograph; 0 leaves the networks' word.
            detect_face: False takes the largest centred square as the frame; without a tracker.
            remove_background: False keeps the background; without a tracker.
            on_progress: Is told how far it is, see `ProgressCallback`; what it raises ends it.
            **generate_kwargs: Of `generate_tokens`: `streamer`, which gets the points, or `stop`.
        """
        images = image if isinstance(image, list) else [image]
        tell = on_progress or _tell_nobody
        sampling = {"engine": engine, "on_points": partial(tell, "generate_tokens")}
        sampling |= {"temperature": temperature, "min_p": min_p, "guidance_scale": guidance_scale}
        sampling |= {"grammar": grammar, "max_points": max_points, "num_candidates": num_candidates}
        sampling |= generate_kwargs
        framing = {"detect_face": detect_face, "remove_background": remove_background}
        refine_steps = self.config.refine_steps if refine_steps is None else refine_steps
        options = {"refine_steps": refine_steps, "face": face, **framing}
        seeds = self.check_inputs(images, rig_params, seed, cameras, **options)
        copies = list_copies(len(images), num_return_sequences)
        seeds = [seed + i for seed in seeds for i in range(num_return_sequences)]
        timed = _Stopwatch(tell)
        with timed("track_portraits"):
            tracked = self.track_portraits(images, rig_params, cameras, face=face)
        with timed("encode_image"):
            encoded = self.encode_image(images, rig_params, tracked, **framing)
            views = self.frame_portraits(tracked, copies)
        rig_params, context, layouts = (x if x is None else x[copies] for x in encoded)
        with timed("generate_tokens"):
            generated = self.generate_tokens(context, rig_params, layouts, seeds=seeds, **sampling)
        with timed("decode_points"):
            clouds = self.decode_points(generated.input_ids, rig_params, views)
        with timed("decode_gaussians"):
            gaussians = self.decode_gaussians(clouds, generated.token_hidden_states, context, views)
        avatars = _join_parts(gaussians, clouds, self.rig, rig_params)
        with timed("refine"):
            avatars = _refine_each(self, avatars, views, seeds, refine_steps, tell)
        self.maybe_free_model_hooks()
        return AvatarPipelineOutput(
            avatars, clouds, generated.input_ids, rig_params, tracked, timed.seconds
        )


class _Stopwatch:
    """Says that steps begin, and how many seconds they took."""

    def __init__(self, tell: ProgressCallback) -> None:
        self.tell, self.seconds = tell, {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.tell(name, 0)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def _tell_nobody(step: str, done: int) -> None:
    pass


def _join_parts(
    gaussians: list[Gaussians], clouds: list[CanonicalPoints], rig: HeadRig, rig_params: RigParams
) -> list[Avatar]:
    return [
        Avatar(splats, cloud.bindings, rig, betas)
        for splats, cloud, betas in zip(gaussians, clouds, rig_params.betas, strict=True)
    ]


def _refine_each(
    steps: PipelineSteps,
    avatars: list[Avatar],
    views: list[PortraitView] | None,
    seeds: list[int],
    num_steps: int,
    tell: ProgressCallback,
) -> list[Avatar]:
    if not num_steps:
        return avatars
    options = {"num_steps": num_steps, "on_step": partial(tell, "refine")}
    return [
        steps.refine(avatar, [view], seed=seed, **options)
        for avatar, view, seed in zip(avatars, views, seeds, strict=True)
    ]
