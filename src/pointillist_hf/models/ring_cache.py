# SPDX-License-Identifier: Apache-2.0
"""A cache for windows that slide over long sequences: keys and values stay where they were put.

The caches of transformers that know a window copy all of it for every token. Here a token takes the
place of the one that leaves the window, so a step copies one key and one value whatever the window.
Softmax does not ask for the order of the keys, and rotary positions are baked into them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin


class RingCacheLayer(CacheLayerMixin):
    """Keys and values of the last tokens, the token at position p in place p modulo the capacity.

    Args:
        capacity: Tokens that are kept; a token sees itself and `capacity - 1` before it.
    """

    is_sliding = True

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.cumulative_length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Takes the memory of the whole window; on CPUs pages are paid for when first written."""
        self.dtype, self.device = key_states.dtype, key_states.device
        batch, heads, _, key_size = key_states.shape
        value_size = value_states.shape[-1]
        self.keys = key_states.new_empty(batch, heads, self.capacity, key_size)
        self.values = value_states.new_empty(batch, heads, self.capacity, value_size)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Keeps the new tokens; all keys and values that one of them may see.

        A single token gets views of the ring, in no particular order once it is full. Several get
        copies in the order of the sequence, because each of them sees others.

        Args:
            key_states: [B, heads, L, head_dim]
            value_states: [B, heads, L, head_dim]
            *args: Not used.
            **kwargs: Not used.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        count, start = key_states.shape[2], self.cumulative_length
        self.cumulative_length += count
        if count == 1:
            self._put(start, key_states, value_states)
            filled = min(start + 1, self.capacity)
            return self.keys[:, :, :filled], self.values[:, :, :filled]
        past = torch.arange(max(start - self.capacity + 1, 0), start, device=self.device)
        places = past % self.capacity
        keys = torch.cat([self.keys[:, :, places], key_states], dim=2)
        values = torch.cat([self.values[:, :, places], value_states], dim=2)
        kept = min(count, self.capacity)
        self._put(start + count - kept, key_states[:, :, -kept:], value_states[:, :, -kept:])
        return keys, values

    def _put(self, start: int, keys: Tensor, values: Tensor) -> None:
        """Writes tokens to the places of their positions, in at most two pieces."""
        count, place = keys.shape[2], start % self.capacity
        ahead = min(count, self.capacity - place)
        self.keys[:, :, place : place + ahead] = keys[:, :, :ahead]
        self.values[:, :, place : place + ahead] = values[:, :, :ahead]
        self.keys[:, :, : count - ahead] = keys[:, :, ahead:]
        self.values[:, :, : count - ahead] = values[:, :, ahead:]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys that an update with so many tokens returns, and the position of the first."""
        past = min(self.cumulative_length, self.capacity - 1)
        return past + query_length, self.cumulative_length - past

    def get_seq_length(self) -> int:
        """Tokens seen so far, those included that have left the window."""
        return self.cumulative_length

    def get_max_length(self) -> int:
        """Tokens that are kept at most."""
        return self.capacity


class RingCache(Cache):
    """One ring per layer, as wide as the window of the configuration.

    Args:
        config: With `num_hidden_layers` and `sliding_window`.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(
            [RingCacheLayer(config.sliding_window) for _ in range(config.num_hidden_layers)]
        )

    def align_mask(self, mask: Tensor | None, query_length: int) -> Tensor | None:
        """A mask over the keys in their sequence's order, for the keys as `update` returns them.

        Args:
            mask: Of the tokens that come next. [B, 1, L, keys]
            query_length: L.
        """
        layer = self.layers[0]
        if mask is None or query_length > 1 or layer.cumulative_length < layer.capacity:
            return mask
        return mask.roll((layer.cumulative_length + 1) % layer.capacity, dims=-1)
