# SPDX-License-Identifier: Apache-2.0
"""Which engine serves a model and its options, and what is refused."""

import copy

import pytest
import torch
from tiny_generators import build_generator
from torch import nn

from pointillist_hf.decoding.generation import WEIGHT_FORMATS, choose_engine, generate_points


def test_auto_takes_what_can_serve(model):
    assert choose_engine(model, "auto") == "compiled"
    assert choose_engine(copy.deepcopy(model).double(), "auto") == "reference"


def test_caches_of_generate_want_the_reference(context):
    model = build_generator()
    assert choose_engine(model, "auto", {"cache_implementation": "static"}) == "reference"
    output = generate_points(model, context, max_points=5, cache_implementation="static")
    expected = generate_points(model, context, max_points=5)
    assert torch.equal(output.input_ids, expected.input_ids)


def replace_matrix(model):
    model.model.layers[0].mlp.up_proj = nn.Sequential(model.model.layers[0].mlp.up_proj)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.double(), "`model.embed_tokens.weight` is of torch.float64"),
        (lambda m: m.to("meta"), "`model.embed_tokens.weight` is on meta"),
        (replace_matrix, "matrices have been replaced"),
        (lambda m: setattr(m.config, "hidden_act", "gelu"), "`hidden_act` is 'gelu', not 'silu'"),
    ],
)
def test_what_the_kernels_cannot_do_is_refused(model, change, message):
    model = copy.deepcopy(model)
    change(model)
    assert choose_engine(model, "auto") == "reference"
    for engine in WEIGHT_FORMATS:
        with pytest.raises(ValueError, match=f"`engine` '{engine}' cannot serve.*{message}"):
            choose_engine(model, engine)


def test_dropout_is_not_left_out_in_silence():
    model = build_generator(attention_dropout=0.1)
    assert choose_engine(model, "auto") == "compiled"
    assert choose_engine(model.train(), "auto") == "reference"


def test_wrong_engines_and_options_are_refused(model, context):
    with pytest.raises(ValueError, match=r"`engine` must be one of .*'auto'.* got 'fast'"):
        generate_points(model, context, engine="fast")
    with pytest.raises(ValueError, match=r"cannot serve.*`cache_implementation` is for `generate`"):
        generate_points(model, context, engine="compiled", cache_implementation="static")
