# SPDX-License-Identifier: Apache-2.0
"""Floor 6. The public steps of the pipeline, in the order of the data flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .avatar import Avatar
from .decoding.generation import PointGenerationOutput, generate_points
from .decoding.grammar import MAX_POINTS
from .decoding.streamers import FirstRows, PointCounter, StreamerGroup, replay
from .geometry.number_checks import check_integer
from .geometry.structures import Cameras, CanonicalPoints, Gaussians, RigParams, join_params
from .models.layout_features import append_layouts
from .pipeline_candidates import candidate_seeds, check_candidates, choose_candidates
from .pipeline_inputs import (
    check_choices,
    check_layouts,
    check_sampling,
    check_tracking,
    list_seeds,
)
from .pipeline_parts import MAX_REFINE_STEPS
from .portraits.image_processing_portrait import PortraitInput
from .refinement.avatar_refinement import refine_avatar
from .refinement.completion import complete_points
from .refinement.dressing import dress_points
from .refinement.portrait_view import PortraitView
from .refinement.tracked_portrait import TrackedPortrait, fit_portrait
from .rigs.alignment import align_to_shape
from .rigs.landmark_sources import find_landmark_places
from .rigs.template_points import build_template_points

# Settings of `generate_tokens` that a pipeline has defaults of.
SAMPLING = (
    "grammar", "temperature", "min_p", "guidance_scale", "max_points", "num_candidates",
)  # fmt: skip


class PipelineSteps:
    """What `AvatarPipeline` does with its components; each step can be called by itself."""

    def check_inputs(
        self,
        images: list[PortraitInput],
        rig_params: RigParams | None,
        seed: int | Sequence[int],
        cameras: Cameras | None = None,
        refine_steps: int = 0,
        **choices: bool | int | None,
    ) -> list[int]:
        """Refuses what cannot be made into avatars. Returns one seed per portrait.

        `choices` are `face`, `detect_face` and `remove_background`, as in the call.
        """
        if not images:
            raise ValueError("`image` must hold at least one portrait, got an empty list.")
        if rig_params is None and self.rig_regressor is None and self.portrait_tracker is None:
            raise ValueError(
                "`rig_params` must be given: this pipeline has no `portrait_tracker` and no "
                "`rig_regressor` to find them."
            )
        check_integer("refine_steps", refine_steps, 0, MAX_REFINE_STEPS)
        if refine_steps and self.portrait_tracker is None:
            raise ValueError(
                "`refine_steps` must be 0 or more, and 0 without a `portrait_tracker`, "
                f"got {refine_steps}."
            )
        check_choices(self.portrait_tracker is not None, **choices)
        check_tracking(len(images), self.rig, rig_params, cameras)
        return list_seeds(seed, len(images))

    def track_portraits(
        self,
        images: list[PortraitInput],
        rig_params: RigParams | None = None,
        cameras: Cameras | None = None,
        *,
        face: int | None = None,
    ) -> list[TrackedPortrait] | None:
        """The faces in the photographs, and the rig that lies on them; None without a tracker.

        All of it on the CPU, where photographs are read, and where small solvers are quickest.

        Args:
            images: B photographs.
            rig_params: B frames, if somebody knows them; then only cameras are looked for.
            cameras: B, if somebody knows them.
            face: Which face of a photograph, 1 being the largest.
        """
        if self.portrait_tracker is None:
            return None
        portraits, rig = self.portrait_tracker(images, face=face), self.rig.on_cpu()
        return [
            fit_portrait(
                portrait,
                rig,
                None if rig_params is None else rig_params[i : i + 1].to("cpu"),
                None if cameras is None else cameras[i : i + 1].to("cpu"),
            )
            for i, portrait in enumerate(portraits)
        ]

    def encode_image(
        self,
        images: list[PortraitInput],
        rig_params: RigParams | None = None,
        tracked: list[TrackedPortrait] | None = None,
        *,
        detect_face: bool = True,
        remove_background: bool = True,
    ) -> tuple[RigParams, Tensor, Tensor | None]:
        """Rig parameters of the portraits, what the generator looks at, and what it should make.

        Args:
            images: B photographs.
            rig_params: B frames, if somebody knows them.
            tracked: Of `track_portraits`, if the pipeline has a tracker.
            detect_face: As in the call.
            remove_background: As in the call.

        Returns:
            Parameters, B frames; conditioning tokens [B, M, D]; the layouts of clouds that a
            conditioner with a `layout_size` foresees, None of others [B, L, L^2].
        """
        device, dtype = self._execution_device, self.conditioner.dtype
        if tracked is None:
            processed = self.image_processor(
                images, detect_face=detect_face, remove_background=remove_background
            )["pixel_values"]
        else:
            rig_params = join_params([one.rig_params for one in tracked])
            roots = self.rig.on_cpu().joint_motion(rig_params).transforms[:, 0]
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
        rig_points = rig_points.to(device, dtype)
        return rig_params, *self.conditioner(pixel_values, rig_points, return_layouts=True)

    def frame_portraits(
        self, tracked: list[TrackedPortrait] | None, copies: Tensor
    ) -> list[PortraitView] | None:
        """The heads of the photographs for completion and refinement, one per avatar."""
        if tracked is None:
            return None
        framed = [one.view(self.config.view_size) for one in tracked]
        return [framed[i] for i in copies.tolist()]

    def generate_tokens(
        self,
        context: Tensor,
        rig_params: RigParams | None = None,
        layouts: Tensor | None = None,
        *,
        seeds: Sequence[int],
        on_points: Callable[[int], None] | None = None,
        **sampling: object,
    ) -> PointGenerationOutput:
        """One token sequence per row of the context, with the hidden states of its tokens.

        Args:
            context: [B, M, D]
            rig_params: B frames, whose heads a generator with anchored bindings looks at.
            layouts: Of `encode_image`: what the generator is told if it has `layout_heights`, and
                what candidates are measured by. [B, L, L^2]
            seeds: One per row.
            on_points: Gets the number of points so far, of all rows, of the first candidates.
            **sampling: Of `generate_points`, and `num_candidates`, sequences that are drawn for a
                row, of which what is nearest to its layout is returned. What is None or missing is
                the pipeline's. A `streamer` gets sequences as they are drawn, or, of several
                candidates, when they have been chosen.
        """
        check_sampling(sampling)
        check_layouts(layouts, rig_params, len(context))
        for name in SAMPLING:
            if sampling.get(name) is None:
                sampling[name] = self.config[name]
        if sampling["guidance_scale"] != 1:
            blind = self.conditioner.hide_portraits(context)
            sampling.setdefault("unconditional_states", blind.to(self.point_generator.dtype))
        if self.point_generator.config.binding_head == "anchored":
            sampling["face_anchors"] = self._describe_faces(context, rig_params, layouts)
        num_candidates = check_candidates(sampling.pop("num_candidates"), rig_params, layouts)
        most = check_integer("max_points", sampling["max_points"], 1, MAX_POINTS)
        with self.progress_bar(total=len(context) * most) as bar:
            bar.unit = " points"
            end_token_id = self.tokenizer.layout.bos_token_id
            counters = [PointCounter(bar.update, end_token_id)]
            if on_points is not None:
                counters.append(PointCounter(_sum_up(on_points), end_token_id))
            streamer = sampling.pop("streamer", None)
            is_live = streamer is not None and num_candidates == 1
            streamers = StreamerGroup([*counters, streamer] if is_live else counters)
            generated = generate_points(
                self.point_generator,
                context.to(self.point_generator.dtype),
                seeds=candidate_seeds(seeds, len(context), num_candidates),
                num_return_sequences=num_candidates,
                streamer=FirstRows(streamers, num_candidates),
                **sampling,
            )
            # Clouds end where they are complete, and so does the bar.
            bar.total = bar.n
            bar.refresh()
        if num_candidates == 1:
            return generated
        clouds = self._place_clouds(generated.input_ids, rig_params, num_candidates)
        parts = {"tokenizer": self.tokenizer, "rig": self.rig, "max_points": most}
        chosen = choose_candidates(generated, clouds, layouts, rig_params.betas, **parts)
        if streamer is not None:
            replay(chosen.input_ids, streamer)
        return chosen

    def _describe_faces(
        self, context: Tensor, rig_params: RigParams | None, layouts: Tensor | None
    ) -> Tensor:
        """What anchored bindings are known by. [B, F, 6 or more]"""
        if rig_params is None:
            raise ValueError(
                "`rig_params` must be given: the bindings of this generator are anchored on "
                "the tracked head. Take those of `encode_image`."
            )
        config = self.point_generator.config
        if config.layout_heights is not None and layouts is None:
            raise ValueError(
                "`layouts` must be given: this generator is told how many points to expect. Take "
                "those of `encode_image`."
            )
        anchors = self.rig.face_anchors(rig_params.betas).to(context.device)
        return append_layouts(anchors, layouts, config)

    def _place_clouds(
        self, input_ids: Tensor, rig_params: RigParams | None, num_copies: int = 1
    ) -> list[CanonicalPoints]:
        """Clouds, so many for each head, laid onto it if the pipeline does that."""
        clouds = [self.tokenizer.decode_points(row) for row in input_ids]
        if not self.config.align_points or rig_params is None:
            return clouds
        heads = rig_params.betas.repeat_interleave(num_copies, dim=0)
        return [
            align_to_shape(cloud, self.rig, betas)
            for cloud, betas in zip(clouds, heads, strict=True)
        ]

    def decode_points(
        self,
        input_ids: Tensor,
        rig_params: RigParams | None = None,
        views: list[PortraitView] | None = None,
    ) -> list[CanonicalPoints]:
        """The clouds of the sequences.

        They lie on the heads of the portraits if `align_points` is set, and are completed by what
        the photographs show if `complete_points` is. For a decoder with `inputs="template"` they
        are the vertices of the heads, whatever the sequences say.

        Args:
            input_ids: [B, L]
            rig_params: B frames; without, the clouds stay as they are.
            views: The photographs of the B clouds.
        """
        has_template = self.gaussian_decoder.config.inputs == "template"
        if has_template and rig_params is None:
            raise ValueError(
                "`rig_params` must be given: the points of this decoder are the vertices of the "
                "tracked head. Take those of `encode_image`."
            )
        if has_template:
            clouds = [build_template_points(self.rig, betas) for betas in rig_params.betas]
        else:
            clouds = self._place_clouds(input_ids, rig_params)
        if not self.config.complete_points or views is None:
            return clouds
        places = find_landmark_places(self.rig)
        return [
            complete_points(cloud, view, self.rig, places=places)
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
        on_step: Callable[[int], None] | None = None,
    ) -> Avatar:
        """The avatar after some steps towards photographs of its person.

        Ctrl-C ends the steps, and what they have brought is kept.

        Args:
            avatar: Of this pipeline's rig.
            views: Photographs, see `TrackedPortrait.view`.
            num_steps: Each looks at one photograph, in turn.
            seed: The same seed gives the same bits.
            on_step: Gets the number of steps done; what it raises ends the refinement.
        """
        show = not getattr(self, "_progress_bar_config", {}).get("disable", False)
        options = {"num_steps": num_steps, "seed": seed, "on_step": on_step}
        return refine_avatar(avatar, views, show_progress=show, **options)


def _sum_up(on_total: Callable[[int], None]) -> Callable[[int], None]:
    """A callback for numbers, which calls another with their sum so far."""
    total = 0

    def add(number: int) -> None:
        nonlocal total
        total += number
        on_total(total)

    return add
