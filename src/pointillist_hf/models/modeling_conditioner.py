# SPDX-License-Identifier: Apache-2.0
"""What the generator looks at: the portrait and the tracked head (paper Sec. 4.1)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init

from ..guarded_push import GuardedPush
from .attention_blocks import CrossBlock, SelfBlock, fourier_features
from .configuration_conditioner import (
    MICHELANGELO,
    AvatarConditionerConfig,
    PointCloudEncoderConfig,
    check_image_size,
)
from .layout_reader import LayoutReader, mix_layouts
from .strict_loading import StrictLoading, check_loading, digest_weights

ENCODERS = ("image_encoder", "point_cloud_encoder")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Of `from_pretrained`, that encoders from elsewhere are read with, too.
HUB_OPTIONS = ("cache_dir", "local_files_only", "token", "force_download")


class PointCloudEncoder(GuardedPush, StrictLoading, PreTrainedModel):
    """Surface samples with normals -> a fixed number of tokens, in Michelangelo's architecture."""

    config_class = PointCloudEncoderConfig
    base_model_prefix = "point_cloud_encoder"

    def __init__(self, config: PointCloudEncoderConfig) -> None:
        super().__init__(config)
        size, heads = config.hidden_size, config.num_attention_heads
        self.latents = nn.Embedding(config.num_latents, size)
        self.input_proj = nn.Linear(6 + 6 * config.num_frequencies, size)
        self.cross_block = CrossBlock(size, heads, size)
        self.blocks = nn.ModuleList(SelfBlock(size, heads) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(size)
        self.post_init()

    def forward(self, points: Tensor) -> Tensor:
        """Tokens of a cloud; the order of its points does not matter.

        Args:
            points: Position in the cube's coordinates, then unit normal. [B, P, 6]

        Returns:
            [B, num_latents, hidden_size]
        """
        positions, normals = points.split(3, dim=-1)
        features = fourier_features(positions, self.config.num_frequencies)
        samples = self.input_proj(torch.cat([features, normals], dim=-1))
        latents = self.latents.weight.expand(len(points), -1, -1)
        latents = self.cross_block(latents, samples)
        for block in self.blocks:
            latents = block(latents)
        return self.norm(latents)

    def push_to_hub(self, *args: object, **kwargs: object) -> str:
        """Publishes the encoder, unless its weights are of others.

        Raises:
            ValueError: They are Michelangelo's.
        """
        refuse_foreign_weights(self.config)
        return super().push_to_hub(*args, **kwargs)


class AvatarConditioner(GuardedPush, StrictLoading, PreTrainedModel):
    """Tokens of the portrait and tokens of the tracked head, side by side.

    Both are projected to one width and marked with a learned embedding of their kind. The portrait
    is looked at by a DINOv2, with or without registers, or by a DINOv3.

    An encoder that the configuration names a source of is frozen, and is not saved: a folder has
    its source and the SHA-256 of its weights, and `from_pretrained` reads it from there again.
    Made anew, such a conditioner has none until `attach_encoder` gives it one.
    """

    config_class = AvatarConditionerConfig
    base_model_prefix = "conditioner"
    main_input_name = "pixel_values"

    def __init__(self, config: AvatarConditionerConfig) -> None:
        super().__init__(config)
        # Filled later if it comes from elsewhere.
        for name in ENCODERS:
            self.register_module(name, None)
        if config.image_encoder_source is None:
            self.image_encoder = AutoModel.from_config(config.image_config)
        if config.point_cloud_encoder_source is None:
            self.point_cloud_encoder = PointCloudEncoder(config.point_cloud_config)
        self.image_proj = nn.Linear(config.image_config.hidden_size, config.hidden_size)
        self.point_proj = nn.Linear(config.point_cloud_config.hidden_size, config.hidden_size)
        self.embed_kinds = nn.Embedding(2, config.hidden_size)
        self.layout_reader = None
        if config.layout_size is not None:
            sizes = (config.hidden_size, config.image_config.hidden_size)
            self.layout_reader = LayoutReader(config.layout_size, *sizes)
            self.layout_proj = nn.Linear(config.layout_size**2, config.hidden_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module is self.image_encoder:
            return
        super()._init_weights(module)
        if isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *args: object,
        image_encoder: str | Path | None = None,
        point_cloud_encoder: str | Path | None = None,
        **kwargs: object,
    ) -> Self:
        """The conditioner of a folder or Hub id, with encoders that are not saved inside.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            *args: Of transformers.
            image_encoder: Where the image encoder is, if not where it was.
            point_cloud_encoder: Where the point-cloud encoder is, if not where it was.
            **kwargs: Of transformers.

        Raises:
            OSError: There is no such model.
            FileNotFoundError: An encoder is not where the configuration says.
            ValueError: A part is damaged, or an encoder is another one than it was.
        """
        found = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = found[0] if isinstance(found, tuple) else found
        options = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
        given = {"image_encoder": image_encoder, "point_cloud_encoder": point_cloud_encoder}
        for name in ENCODERS:
            source = given[name] or getattr(model.config, f"{name}_source")
            if source is not None:
                model.attach_encoder(name, source, **options)
        return found

    def attach_encoder(self, name: str, source: str | Path, **options: object) -> None:
        """Takes over an encoder of a folder or Hub id; it is frozen.

        Args:
            name: "image_encoder" or "point_cloud_encoder".
            source: Folder or Hub id; an encoder of a configuration without a source stays inside.
            **options: Of transformers' `from_pretrained`, such as `token`.

        Raises:
            FileNotFoundError: It is not there.
            ValueError: It is damaged, or is another one than the configuration means.
        """
        config = self.config.image_config if name == ENCODERS[0] else self.config.point_cloud_config
        encoder, digest = read_encoder(name, source, config, **options)
        wanted = getattr(self.config, f"{name}_sha256")
        if wanted not in (None, digest):
            raise ValueError(
                f"`{name}` must be the one that the conditioner was trained with, whose weights "
                f"have SHA-256 {wanted}; those of {source} have {digest}."
            )
        if getattr(self.config, f"{name}_source") is not None:
            # Folders are found again from wherever the next process starts.
            place = Path(source).absolute() if Path(source).is_dir() else source
            setattr(self.config, f"{name}_source", str(place))
            setattr(self.config, f"{name}_sha256", digest)
        setattr(self, name, encoder.to(self.embed_kinds.weight))

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        state_dict: dict | None = None,
        max_shard_size: int | str = "50GB",
        variant: str | None = None,
        **kwargs: object,
    ) -> None:
        """Writes the conditioner without those encoders that are read from elsewhere.

        diffusers looks for the names of these arguments before it passes them.
        """
        state = self.state_dict() if state_dict is None else state_dict
        outside = [n for n in ENCODERS if getattr(self.config, f"{n}_source") is not None]
        inside = {k: v for k, v in state.items() if k.split(".")[0] not in outside}
        options = {"max_shard_size": max_shard_size, "variant": variant, **kwargs}
        super().save_pretrained(save_directory, state_dict=inside, **options)

    def push_to_hub(self, *args: object, **kwargs: object) -> str:
        """Publishes the conditioner, unless weights of others are inside.

        Raises:
            ValueError: They are Michelangelo's.
        """
        if self.config.point_cloud_encoder_source is None:
            refuse_foreign_weights(self.config.point_cloud_config)
        return super().push_to_hub(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Switches what is trained; frozen encoders stay as they are, without drop-outs."""
        super().train(mode)
        for encoder in (self.image_encoder, self.point_cloud_encoder):
            if encoder is not None and not any(p.requires_grad for p in encoder.parameters()):
                encoder.eval()
        return self

    def look_at(self, pixel_values: Tensor) -> Tensor:
        """What the image encoder makes of the portraits: the whole, registers, then the patches.

        Args:
            pixel_values: Processed portraits. [B, 3, H, W]

        Returns:
            [B, M, C]
        """
        for side in pixel_values.shape[-2:]:
            check_image_size(side, self.config.image_config)
        return self.image_encoder(pixel_values).last_hidden_state

    def foresee(self, image_states: Tensor) -> Tensor | None:
        """Layouts of the clouds of these portraits, None if the conditioner foresees none.

        Args:
            image_states: Of `look_at`. [B, M, C]

        Returns:
            Numbers of points that are expected in each cell, see `rigs.cloud_layout`. [B, L, L^2]
        """
        return None if self.layout_reader is None else self.layout_reader(image_states).exp()

    def encode_image(self, image_states: Tensor, layouts: Tensor | None = None) -> Tensor:
        """Tokens of the portraits, then those of the layouts if the conditioner foresees any.

        Args:
            image_states: Of `look_at`. [B, M, C]
            layouts: Numbers of points; None are those that are foreseen. [B, L, L^2]

        Returns:
            [B, M, D], or [B, M + L, D]
        """
        tokens = self.image_proj(image_states) + self.embed_kinds.weight[0]
        if self.layout_reader is None:
            return tokens
        layouts = self.foresee(image_states) if layouts is None else layouts
        slices = self.layout_proj(layouts.to(tokens.dtype).log1p())
        return torch.cat([tokens, slices + self.layout_reader.embed_slices.weight], dim=1)

    def encode_points(self, rig_points: Tensor) -> Tensor:
        """Tokens of the tracked heads.

        Args:
            rig_points: Canonical surface samples in metres with normals. [B, P, 6]

        Returns:
            [B, M, D]
        """
        positions, normals = rig_points.split(3, dim=-1)
        center = positions.new_tensor(self.config.cube_center)
        coords = (positions - center) / self.config.cube_half_extent
        states = self.point_cloud_encoder(torch.cat([coords, normals], dim=-1))
        return self.point_proj(states) + self.embed_kinds.weight[1]

    def forward(
        self,
        pixel_values: Tensor,
        rig_points: Tensor,
        hide_portrait: Tensor | None = None,
        layouts: Tensor | None = None,
        layout_shares: Tensor | None = None,
        *,
        return_layouts: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        """Conditioning tokens: those of the image, then those of the head.

        Args:
            pixel_values: Processed portraits. [B, 3, H, W]
            rig_points: Canonical surface samples in metres with normals. [B, P, 6]
            hide_portrait: True in rows that get `hide_portraits`. [B]
            layouts: In training, the true ones. [B, L, L^2]
            layout_shares: Of the true layouts in what is told; the rest is foreseen. [B]
            return_layouts: Whether to return what `foresee` says, without true layouts.

        Returns:
            [B, M, hidden_size]; where the true layouts are given, also the logarithms of the
            numbers that were foreseen [B, L, L^2]; with `return_layouts`, what was foreseen, or
            None.
        """
        states = self.look_at(pixel_values)
        if layouts is None:
            foreseen = self.foresee(states)
            tokens = self.encode_image(states, foreseen)
            context = self.join_tokens(tokens, rig_points, hide_portrait)
            return (context, foreseen) if return_layouts else context
        log_rates = self.layout_reader(states)
        image_tokens = self.encode_image(states, mix_layouts(log_rates, layouts, layout_shares))
        return self.join_tokens(image_tokens, rig_points, hide_portrait), log_rates

    def join_tokens(
        self, image_tokens: Tensor, rig_points: Tensor, hide_portrait: Tensor | None = None
    ) -> Tensor:
        """`forward` with the tokens of `encode_image` [B, M, hidden_size]."""
        point_tokens = self.encode_points(rig_points.to(image_tokens.dtype))
        context = torch.cat([image_tokens, point_tokens], dim=1)
        if hide_portrait is None:
            return context
        return torch.where(hide_portrait[:, None, None], self.hide_portraits(context), context)

    def hide_portraits(self, context: Tensor) -> Tensor:
        """Conditioning tokens of the same heads, with portraits of which nothing is known.

        Every token of the image or its layout becomes the embedding of the image's kind alone.

        Args:
            context: What `forward` returns. [B, M, hidden_size]

        Returns:
            [B, M, hidden_size]
        """
        num_image_tokens = context.shape[1] - self.config.point_cloud_config.num_latents
        nothing = self.embed_kinds.weight[0].to(context.dtype)
        nothing = nothing.expand(len(context), num_image_tokens, -1)
        return torch.cat([nothing, context[:, num_image_tokens:]], dim=1)


def refuse_foreign_weights(config: PointCloudEncoderConfig) -> None:
    """Refuses to publish an encoder that is not the publisher's.

    Raises:
        ValueError: Its weights are Michelangelo's.
    """
    if config.origin == MICHELANGELO:
        raise ValueError(
            "`push_to_hub` must not be called for Michelangelo's weights, which stand under "
            "GPL-3.0 or unspecified terms: name them by `point_cloud_encoder_source` instead."
        )


def read_encoder(
    name: str, source: str | Path, config: object, **options: object
) -> tuple[PreTrainedModel, str]:
    """An encoder of a folder or Hub id, frozen, and the SHA-256 of its weights as they lie there.

    Args:
        name: Of the part, for messages.
        source: Folder or Hub id.
        config: Of the kind and the width that are wanted.
        **options: Of transformers' `from_pretrained`.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is damaged, or of another kind or width.
    """
    is_folder = Path(source).is_dir()
    if not is_folder and not HUB_ID.fullmatch(str(source)):
        raise FileNotFoundError(
            f"`{name}` must be a folder or a Hub id, and {source} is neither; pass `{name}`, the "
            "place where its weights are."
        )
    kind = PointCloudEncoder if name == ENCODERS[1] else AutoModel
    try:
        encoder, info = kind.from_pretrained(
            source, dtype="auto", output_loading_info=True, **options
        )
    except OSError as error:
        raise FileNotFoundError(
            f"`{name}` was not found at {source}: {' '.join(str(error).split())}"
        ) from error
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"`{name}` must be a whole model, and {source} is none: {error}"
        ) from error
    # Heads for other tasks are left; nothing is ever masked here.
    missing = [n for n in info["missing_keys"] if not n.endswith("mask_token")]
    check_loading(encoder, {**info, "missing_keys": missing, "unexpected_keys": ()})
    for value in ("model_type", "hidden_size"):
        if getattr(encoder.config, value, None) != getattr(config, value):
            raise ValueError(
                f"`{name}` of {source} has {value} {getattr(encoder.config, value, None)!r}, and "
                f"the conditioner wants {getattr(config, value)!r}."
            )
    return encoder.eval().requires_grad_(False), digest_weights(encoder)
