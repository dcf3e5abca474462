# SPDX-License-Identifier: Apache-2.0
"""Point clouds as token sequences: quantisation, order, vocabulary (paper Sec. 3.2).

A cloud of N points becomes 4 (N + 2) tokens: a block of four start tokens, four tokens per point,
a block of four end tokens. With `num_bins=1024` and `num_faces=10144`, the point in bins
(x, y, z) = (512, 40, 600), bound to face 7, reads 512, 40, 600, 1031 in the order "xyzb".
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizer

from ..geometry.number_checks import check_finite, check_integer, check_number
from ..geometry.structures import CanonicalPoints
from ..guarded_push import GuardedPush

logger = logging.getLogger(__name__)

TOKENS_PER_POINT = 4
MAX_BINS, MAX_FACES = 2**16, 2**22  # beyond, a vocabulary is a typing mistake
MAX_HALF_EXTENT = 100.0  # metres
TokenOrder = Literal[
    "xyzb",  # the paper's order of emission
    "yzxb",  # the order of the sort key, so that the key grows from token to token
    # Face by face: the binding says where to look, and the coordinates follow. Sorted by the same
    # key: sorted by y, a point whose face lies too low would be pushed off it, and all after it.
    "byzx",
]
TOKEN_ORDERS = get_args(TokenOrder)


@dataclass(frozen=True)
class TokenLayout:
    """Who owns which ids: bins, then faces, then start, end and padding."""

    num_bins: int
    num_faces: int
    token_order: TokenOrder = "xyzb"

    def __post_init__(self) -> None:
        check_integer("num_bins", self.num_bins, 2, MAX_BINS)
        check_integer("num_faces", self.num_faces, 1, MAX_FACES)
        if self.token_order not in TOKEN_ORDERS:
            raise ValueError(
                f"`token_order` must be one of {', '.join(TOKEN_ORDERS)}, got {self.token_order!r}."
            )

    @property
    def sort_key(self) -> str:
        """What the points of a cloud are sorted by, the most important first."""
        return "byzx" if self.token_order == "byzx" else "yzxb"

    @property
    def binding_offset(self) -> int:
        """Id of the binding to face 0."""
        return self.num_bins

    @property
    def bos_token_id(self) -> int:
        """Start of a cloud, S in the paper."""
        return self.num_bins + self.num_faces

    @property
    def eos_token_id(self) -> int:
        """End of a cloud, E in the paper."""
        return self.bos_token_id + 1

    @property
    def pad_token_id(self) -> int:
        """Padding, P in the paper."""
        return self.bos_token_id + 2

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self.bos_token_id + 3

    def slot_range(self, slot: int) -> tuple[int, int]:
        """First id, and one past the last, that the slot of a point may hold. The end is extra."""
        if self.token_order[slot] == "b":
            return self.binding_offset, self.bos_token_id
        return 0, self.num_bins

    def slot_of(self, axis: str) -> int:
        """Slot of an axis ("x", "y", "z") or of the binding ("b") within a point."""
        return self.token_order.index(axis)


def quantize(coords: Tensor, num_bins: int) -> Tensor:
    """Bin index of each coordinate.

    Args:
        coords: Normalised canonical coordinates in [-1, 1]. [..., 3]
        num_bins: Bins per axis.
    """
    # +1.0 is a legal coordinate, and it belongs to the last bin.
    return ((coords + 1) / 2 * num_bins).floor().long().clamp(0, num_bins - 1)


def dequantize(bins: Tensor, num_bins: int) -> Tensor:
    """Coordinates of the bins' centres, in (-1, 1). [..., 3]"""
    return (bins.float() + 0.5) / num_bins * 2 - 1


def point_order(bins: Tensor, bindings: Tensor, sort_key: str = "yzxb") -> Tensor:
    """Order of quantised points: by y, then z, then x, then binding, then as they came.

    The sort follows the quantisation, because points sorted before it leave the order again when
    two of them fall into one bin.

    Args:
        bins: x, y, z bins. [N, 3]
        bindings: [N]
        sort_key: Another order of these four, see `TokenLayout.sort_key`.

    Returns:
        Indices that sort the points. [N]
    """
    columns = dict(zip("xyzb", (*bins.unbind(-1), bindings), strict=True))
    keys = [columns[name].cpu().numpy() for name in reversed(sort_key)]
    return torch.from_numpy(np.lexsort(keys)).to(bins.device)


class PointTokenizer(GuardedPush, PreTrainedTokenizer):
    """Turns canonical points into token ids and back.

    Args:
        num_bins: Bins per axis; the paper uses 1024.
        num_faces: Faces of the rig; 10,144 is FLAME with teeth.
        token_order: Order of the four tokens of a point.
        cube_center: Centre of the quantised cube, metres. The default is FLAME's.
        cube_half_extent: Half the cube's side, metres.
        outside: What happens to points outside the cube.

    Example:
        >>> tokenizer = PointTokenizer(num_bins=64, num_faces=80)
        >>> points = CanonicalPoints(torch.zeros(1, 3), torch.tensor([5]))
        >>> tokenizer.encode_points(points).tolist()[4:8]
        [32, 35, 36, 69]
    """

    vocab_files_names: dict[str, str] = {}  # noqa: RUF012  transformers reads a plain class attribute
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(
        self,
        num_bins: int = 1024,
        num_faces: int = 10144,
        token_order: TokenOrder = "xyzb",
        cube_center: list[float] | tuple[float, ...] = (0.0, -0.03, -0.04),
        cube_half_extent: float = 0.30,
        outside: Literal["clip", "drop"] = "clip",
        **kwargs: object,
    ) -> None:
        if outside not in ("clip", "drop"):
            raise ValueError(f"`outside` must be 'clip' or 'drop', got {outside!r}.")
        cube_half_extent = check_number(
            "cube_half_extent", cube_half_extent, 0, MAX_HALF_EXTENT, above=True
        )
        if isinstance(cube_center, str) or len(cube_center) != len("xyz"):
            raise ValueError(f"`cube_center` must be three numbers, got {cube_center!r}.")
        self.layout = TokenLayout(num_bins, num_faces, token_order)
        self.cube_center = [check_number("cube_center", c) for c in cube_center]
        self.cube_half_extent = float(cube_half_extent)
        self.outside = outside
        # The base class asks for the vocabulary while it is being built.
        self._specials = {
            self.layout.bos_token_id: "<s>",
            self.layout.eos_token_id: "</s>",
            self.layout.pad_token_id: "<pad>",
        }
        names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
        for name, fixed in names.items():
            if str(kwargs.get(name, fixed)) != fixed:
                raise ValueError(f"`{name}` must be {fixed!r}, got {kwargs[name]!r}.")
        kwargs = {**kwargs, **names}
        super().__init__(
            num_bins=num_bins,
            num_faces=num_faces,
            token_order=token_order,
            cube_center=self.cube_center,
            cube_half_extent=self.cube_half_extent,
            outside=outside,
            **kwargs,
        )

    @property
    def num_bins(self) -> int:
        """Bins per axis."""
        return self.layout.num_bins

    @property
    def num_faces(self) -> int:
        """Faces that a point may be bound to."""
        return self.layout.num_faces

    @property
    def token_order(self) -> TokenOrder:
        """Order of the four tokens of a point."""
        return self.layout.token_order

    @property
    def bin_size(self) -> float:
        """Side of a bin, metres."""
        return 2 * self.cube_half_extent / self.num_bins

    def normalize_coords(self, means: Tensor) -> Tensor:
        """Metres to the cube's coordinates in [-1, 1]. [..., 3]"""
        return (means - means.new_tensor(self.cube_center)) / self.cube_half_extent

    def encode_points(self, points: CanonicalPoints) -> Tensor:
        """Token ids of a cloud: four starts, its points in order, four ends. [4 (N + 2)]

        Raises:
            ValueError: A coordinate is not finite, or a binding is no face of the rig.
        """
        points = self._check_points(points)
        bins = quantize(self.normalize_coords(points.means), self.num_bins)
        order = point_order(bins, points.bindings, self.layout.sort_key)
        columns = dict(zip("xyz", bins[order].unbind(-1), strict=True))
        columns["b"] = points.bindings[order] + self.layout.binding_offset
        body = torch.stack([columns[name] for name in self.token_order], dim=-1).flatten()
        start = body.new_full((TOKENS_PER_POINT,), self.layout.bos_token_id)
        end = body.new_full((TOKENS_PER_POINT,), self.layout.eos_token_id)
        return torch.cat([start, body, end])

    def decode_points(self, input_ids: Tensor) -> CanonicalPoints:
        """The cloud of one sequence; a point at its end that is not complete is left out.

        Args:
            input_ids: With or without start, end and padding. [L]

        Raises:
            ValueError: A token stands in a slot that cannot hold it.
        """
        input_ids = torch.as_tensor(input_ids)
        if input_ids.is_floating_point() or input_ids.is_complex():
            raise ValueError(f"`input_ids` must be whole numbers, got {input_ids.dtype}.")
        if input_ids.ndim != 1:
            raise ValueError(
                f"`input_ids` must be one sequence of shape (L,), got {tuple(input_ids.shape)}. "
                "Decode a batch row by row."
            )
        known = (input_ids >= 0) & (input_ids < self.vocab_size)
        if not known.all():
            raise ValueError(
                f"`input_ids` must be ids 0 to {self.vocab_size - 1} of this tokenizer, got "
                f"{int(input_ids[~known][0])}."
            )
        slots = self._point_tokens(input_ids)
        bins = torch.stack([slots[:, self.layout.slot_of(axis)] for axis in "xyz"], dim=-1)
        coords = dequantize(bins, self.num_bins)
        center = coords.new_tensor(self.cube_center)
        bindings = slots[:, self.layout.slot_of("b")] - self.layout.binding_offset
        return CanonicalPoints(coords * self.cube_half_extent + center, bindings)

    def _check_points(self, points: CanonicalPoints) -> CanonicalPoints:
        if not points.means.is_floating_point():
            raise ValueError(f"`means` must be metres, floating point, got {points.means.dtype}.")
        if points.bindings.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"`bindings` must be whole numbers, got {points.bindings.dtype}.")
        check_finite("means", points.means)
        low, high = (points.bindings.min(), points.bindings.max()) if len(points) else (0, 0)
        if low < 0 or high >= self.num_faces:
            raise ValueError(
                f"`bindings` must be faces 0 to {self.num_faces - 1}, "
                f"got {int(low)} to {int(high)}."
            )
        inside = (self.normalize_coords(points.means).abs() <= 1).all(-1)
        if not inside.all():
            num_outside = int((~inside).sum())
            logger.warning("%d of %d points lie outside the cube.", num_outside, len(points))
            if self.outside == "drop":
                return CanonicalPoints(points.means[inside], points.bindings[inside])
        return points

    def _point_tokens(self, input_ids: Tensor) -> Tensor:
        """The tokens between start and end, one row per complete point. [N, 4]"""
        starts = (input_ids == self.layout.bos_token_id).long().cumprod(0).sum()
        body = input_ids[starts:]
        ends = body >= self.layout.eos_token_id
        if ends.any():
            body = body[: int(ends.long().argmax())]
        slots = body[: len(body) // TOKENS_PER_POINT * TOKENS_PER_POINT].view(-1, TOKENS_PER_POINT)
        for slot, name in enumerate(self.token_order):
            low, high = self.layout.slot_range(slot)
            wrong = (slots[:, slot] < low) | (slots[:, slot] >= high)
            if wrong.any():
                row = int(wrong.long().argmax())
                raise ValueError(
                    f"`input_ids` must hold {name} tokens {low} to {high - 1} in slot {slot}, "
                    f"got {int(slots[row, slot])} in point {row}."
                )
        return slots

    # What follows is the part of the text interface that loading and padding rely on.

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return self.layout.vocab_size

    def get_vocab(self) -> dict[str, int]:
        """Names of all ids: c12 is bin 12, f345 is face 345."""
        return {self._convert_id_to_token(i): i for i in range(self.vocab_size)}

    def _convert_id_to_token(self, index: int) -> str:
        if index in self._specials:
            return self._specials[index]
        offset = self.layout.binding_offset
        return f"c{index}" if index < offset else f"f{index - offset}"

    def _convert_token_to_id(self, token: str) -> int | None:
        for index, name in self._specials.items():
            if token == name:
                return index
        if token[1:].isdigit() and token[0] in "cf":
            return int(token[1:]) + (self.layout.binding_offset if token[0] == "f" else 0)
        return None

    def _tokenize(self, text: str, **kwargs: object) -> list[str]:
        return text.split()

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Tokens joined by spaces; for reading a sequence, not for rebuilding a cloud."""
        return " ".join(tokens)

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Nothing to write: the vocabulary follows from the numbers in the config."""
        return ()
