# SPDX-License-Identifier: Apache-2.0
"""Configuration of the point generator (paper Sec. 4.1, 5.1)."""

# Without `from __future__ import annotations`: `strict` does not check types that are strings.

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .tokenization_points import TokenLayout, TokenOrder

ANCHOR_SIZE = 6  # of a face: centre and normal
MAX_HEIGHTS = 64


@strict
class PointGeneratorConfig(PreTrainedConfig):
    """Sizes and choices of `PointGeneratorForCausalLM`; the paper's values are the defaults."""

    model_type = "pointillist_point_generator"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012  transformers' class attribute

    # vocabulary, see TokenLayout
    num_bins: int = 1024
    num_faces: int = 10144
    token_order: TokenOrder = "xyzb"

    # transformer; the paper does not give its sizes, these are Meshtron's 0.5B
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 2816
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    rope_theta: float | int = 10000.0
    attention_dropout: float | int = 0.0
    sliding_window: int = 12000

    # width of encoder_hidden_states
    cross_attention_size: int = 1024

    # "full" is a softmax over the whole vocabulary; "typed" only over what the slot may hold
    loss_head: Literal["full", "typed"] = "full"

    # Paper: "flat", one step of the transformer per token. "depth": one per point, and a small
    # transformer over the slots of a point emits its tokens; a window then holds a quarter of the
    # keys, and a cloud takes a quarter of the steps.
    point_head: Literal["flat", "depth"] = "flat"
    depth_num_hidden_layers: int = 3
    # None is the size of the large transformer
    depth_hidden_size: int | None = None
    depth_num_attention_heads: int | None = None
    depth_intermediate_size: int | None = None

    # Paper: "free", a learned embedding per face, the same on every head. "anchored": a face is
    # known by where it lies on this head, and with the binding first coordinates are counted from
    # there.
    binding_head: Literal["free", "anchored"] = "free"
    anchor_hidden_size: int = 128
    # Logits of their own for so many bins, and so many faces, on either side of the anchor.
    anchor_reach: int = 32
    # The tokenizer's cube, metres; only anchored bindings ask for it.
    cube_center: list[float] | None = None
    cube_half_extent: float = 0.30
    # Metres above the faces at which they are told the layout that the conditioner foresees, see
    # `layout_features`; None tells them nothing.
    layout_heights: list[float] | None = None
    # Most points of a face in the clouds that were learned from, which the grammars "faces" and
    # "every_face" keep to; None sets no bound.
    max_points_per_face: int | None = None

    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    use_cache: bool = True

    # derived, kept because caches and generate() read them
    layer_types: list[str] | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs: object) -> None:
        """Fills in what follows from the other fields."""
        if self.point_head == "depth":
            for name in ("hidden_size", "num_attention_heads", "intermediate_size"):
                if getattr(self, f"depth_{name}") is None:
                    setattr(self, f"depth_{name}", getattr(self, name))
        if self.binding_head == "anchored" and self.cube_center is None:
            self.cube_center = [0.0, -0.03, -0.04]
        self.layer_types = ["sliding_attention"] * self.num_hidden_layers
        layout = self.layout
        self.bos_token_id, self.eos_token_id = layout.bos_token_id, layout.eos_token_id
        self.pad_token_id = layout.pad_token_id
        super().__post_init__(**kwargs)

    @property
    def layout(self) -> TokenLayout:
        """Who owns which token ids."""
        return TokenLayout(self.num_bins, self.num_faces, self.token_order)

    @property
    def num_face_features(self) -> int:
        """What anchored bindings are told of each face: centre, normal, layout."""
        return ANCHOR_SIZE + len(self.layout_heights or ())

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.layout.vocab_size

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def validate_architecture(self) -> None:
        """Every rule that ties two fields together."""
        if self.hidden_size % self.num_attention_heads or self.head_dim % 2:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of twice "
                f"`num_attention_heads` ({self.num_attention_heads}): heads are rotated in pairs."
            )
        if self.sliding_window < 8 or self.sliding_window % 4:
            raise ValueError(
                f"`sliding_window` must be a multiple of 4 and at least 8, "
                f"got {self.sliding_window}: a window holds whole points."
            )
        if self.point_head == "depth":
            self._validate_depth()
        if self.binding_head == "anchored":
            self._validate_anchors()
        elif self.layout_heights is not None:
            raise ValueError(
                "`layout_heights` must be None with `binding_head='free'`, got "
                f"{self.layout_heights}: nothing looks at where faces lie."
            )

    def _validate_anchors(self) -> None:
        if self.point_head != "depth":
            raise ValueError(
                "`point_head` must be 'depth' with `binding_head='anchored'`, "
                f"got {self.point_head!r}: the flat one knows no points."
            )
        if self.anchor_reach < 1 or self.anchor_hidden_size < 1:
            raise ValueError(
                "`anchor_reach` and `anchor_hidden_size` must be at least 1, got "
                f"{self.anchor_reach} and {self.anchor_hidden_size}."
            )
        heights = self.layout_heights
        reach = 2 * self.cube_half_extent
        if heights is not None and not (
            0 < len(heights) <= MAX_HEIGHTS and all(abs(height) <= reach for height in heights)
        ):
            raise ValueError(
                f"`layout_heights` must be None, or 1 to {MAX_HEIGHTS} heights in metres, at most "
                f"{reach:g}, got {heights}."
            )
        if len(self.cube_center) != len("xyz") or not self.cube_half_extent > 0:
            raise ValueError(
                "`cube_center` must be three numbers and `cube_half_extent` positive, got "
                f"{self.cube_center} and {self.cube_half_extent}. Take the tokenizer's."
            )

    def _validate_depth(self) -> None:
        if self.loss_head != "typed":
            raise ValueError(
                f"`loss_head` must be 'typed' with `point_head='depth'`, got {self.loss_head!r}: "
                "its heads know no tokens of other slots."
            )
        if self.depth_num_hidden_layers < 1:
            raise ValueError(
                "`depth_num_hidden_layers` must be at least 1, "
                f"got {self.depth_num_hidden_layers}: otherwise a token sees none of its point."
            )
        if self.depth_num_attention_heads < 1 or (
            self.depth_hidden_size % self.depth_num_attention_heads
        ):
            raise ValueError(
                f"`depth_hidden_size` ({self.depth_hidden_size}) must be a multiple of "
                f"`depth_num_attention_heads` ({self.depth_num_attention_heads})."
            )
