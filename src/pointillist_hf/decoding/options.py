# SPDX-License-Identifier: Apache-2.0
"""What a call may ask of a generation: further options work, or are refused with what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..geometry.number_checks import check_finite, check_integer, check_seed
from ..geometry.structures import check_shape
from ..models.modeling_point_generator import PointGeneratorForCausalLM

MAX_CLOUDS = 4096  # of one call
# Further arguments that every engine knows.
OWN_OPTIONS = frozenset(
    {"encoder_hidden_states", "encoder_attention_mask", "face_anchors", "streamer", "stop"}
)
# Those of transformers' `generate` that change how it computes, not what it draws.
REFERENCE_OPTIONS = frozenset(
    {"use_cache", "cache_implementation", "cache_config", "past_key_values", "compile_config",
     "disable_compile", "synced_gpus"}
)  # fmt: skip
# Words of `generate` that mean something here under another name.
SUBSTITUTES = {
    "do_sample": "`temperature=0` takes the likeliest token, any other temperature samples",
    "top_k": "tokens are cut off by `min_p`, and `temperature=0` takes the likeliest",
    "top_p": "tokens are cut off by `min_p`",
    "typical_p": "tokens are cut off by `min_p`",
    "epsilon_cutoff": "tokens are cut off by `min_p`",
    "eta_cutoff": "tokens are cut off by `min_p`",
    "num_beams": "clouds are sampled; take `num_return_sequences` and choose among them",
    "max_new_tokens": "take `max_points`",
    "max_length": "take `max_points`",
    "min_new_tokens": "take `min_points`",
    "min_length": "take `min_points`",
    "seed": "take `seeds`, one per cloud",
    "generator": "take `seeds`, one per cloud",
    "logits_processor": "the grammar and the sampling are the only ones",
    "stopping_criteria": "take `stop`, a `threading.Event`",
    "attention_mask": "take `encoder_attention_mask` for the conditioning",
    "input_ids": "clouds begin at their start",
    "output_hidden_states": "`token_hidden_states` are always returned",
}


def check_options(options: Mapping[str, object]) -> None:
    """Refuses options that would do nothing.

    Raises:
        ValueError: With what to do instead.
    """
    known = OWN_OPTIONS | REFERENCE_OPTIONS
    for name in options:
        if name not in known:
            advice = SUBSTITUTES.get(name, f"further options are {', '.join(sorted(known))}")
            raise ValueError(f"`{name}` is no option of the generation of points: {advice}.")


def check_context(model: PointGeneratorForCausalLM, states: Tensor, mask: object) -> None:
    """Refuses a conditioning of another width, or one that is not finite."""
    check_shape("encoder_hidden_states", states, (None, None, model.config.cross_attention_size))
    if not states.numel():
        raise ValueError(
            f"`encoder_hidden_states` must hold tokens, got shape {tuple(states.shape)}."
        )
    check_finite("encoder_hidden_states", states)
    if mask is not None:
        check_shape("encoder_attention_mask", mask, states.shape[:2])


def check_anchors(model: PointGeneratorForCausalLM, anchors: Tensor | None, batch: int) -> None:
    """Refuses heads for a generator that knows none, and others than it knows."""
    config = model.config
    if (anchors is None) == (config.binding_head == "free"):
        if anchors is not None:
            shape = (batch, config.num_faces, config.num_face_features)
            check_shape("face_anchors", anchors, shape)
            check_finite("face_anchors", anchors)
        return
    given = "none" if anchors is None else "some"
    raise ValueError(
        "`face_anchors` must be given with `binding_head='anchored'` and with no other, got "
        f"{given} for {config.binding_head!r}: take `rig.face_anchors(betas)`, and "
        "`append_layouts` for a generator with `layout_heights`."
    )


def list_seeds(seeds: Sequence[int] | None, count: int) -> list[int]:
    """One seed per cloud; 0, 1, 2 ... where none are given.

    Raises:
        ValueError: There are more or fewer, or one is none.
    """
    seeds = range(count) if seeds is None else seeds
    if len(seeds) != count:
        raise ValueError(f"`seeds` must hold one seed per cloud, got {len(seeds)} for {count}.")
    return [check_seed("seeds", seed) for seed in seeds]


def check_count(num_return_sequences: object) -> int:
    """How many clouds of each row of the conditioning."""
    return check_integer("num_return_sequences", num_return_sequences, 1, MAX_CLOUDS)
