# SPDX-License-Identifier: Apache-2.0
"""Layouts that the conditioner foresees and tells."""

import pytest
import torch

from pointillist_hf import AvatarConditioner
from pointillist_hf.models.layout_reader import LayoutReader, layout_losses
from pointillist_hf.training.recipes import build_conditioner_config

SIZE = 4  # of "nano-anchored"


@pytest.fixture(scope="module")
def conditioner(tiny_tokenizer):
    torch.manual_seed(0)
    config = build_conditioner_config("nano-anchored", tiny_tokenizer)
    return AvatarConditioner(config).eval()


@pytest.fixture
def inputs():
    return torch.randn(2, 3, 56, 56), torch.randn(2, 64, 6)


def test_losses_are_those_of_torch_less_what_knowing_would_cost():
    layouts = torch.poisson(torch.full((3, SIZE, SIZE**2), 2.0))
    log_rates = torch.randn(3, SIZE, SIZE**2)

    def nats(rates):
        loss = torch.nn.functional.poisson_nll_loss(rates, layouts, reduction="none")
        return loss.sum((1, 2))

    best = layouts.clamp_min(1e-30).log()
    torch.testing.assert_close(layout_losses(log_rates, layouts), nats(log_rates) - nats(best))
    assert layout_losses(best, layouts).abs().max() < 1e-3


@torch.no_grad()
def test_the_layout_foreseen_is_told_and_a_true_one_in_its_place(conditioner, inputs):
    pixels, points = inputs
    context = conditioner(pixels, points)
    assert context.shape == (2, 1 + 16 + SIZE + 8, 32)
    layouts = torch.poisson(torch.full((2, SIZE, SIZE**2), 3.0))
    told, log_rates = conditioner(pixels, points, layouts=layouts, layout_shares=torch.zeros(2))
    torch.testing.assert_close(told, context)
    torch.testing.assert_close(log_rates, conditioner.layout_reader(conditioner.look_at(pixels)))
    told, _ = conditioner(pixels, points, layouts=layouts, layout_shares=torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(told[0], context[0])
    others = conditioner(-pixels, points, layouts=layouts, layout_shares=torch.ones(2))[0]
    slices = slice(17, 17 + SIZE)
    torch.testing.assert_close(others[1, slices], told[1, slices])
    assert not torch.allclose(others[1, :17], told[1, :17], atol=1e-5)
    assert not torch.allclose(told[1, slices], context[1, slices], atol=1e-5)


@torch.no_grad()
def test_who_sees_no_portrait_is_told_no_layout(conditioner, inputs):
    pixels, points = inputs
    hidden = torch.tensor([True, True])
    assert torch.equal(conditioner(pixels, points, hidden), conditioner(-pixels, points, hidden))


def test_what_is_told_does_not_teach_the_reader(conditioner, inputs):
    """Else the generator would make the layout a message of its own."""
    conditioner.zero_grad()
    layouts, shares = torch.ones(2, SIZE, SIZE**2), torch.full((2,), 0.5)
    context, log_rates = conditioner(*inputs, layouts=layouts, layout_shares=shares)
    context.square().sum().backward(retain_graph=True)
    assert conditioner.layout_reader.head.weight.grad is None
    layout_losses(log_rates, layouts).sum().backward()
    assert conditioner.layout_reader.head.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_saved_and_loaded_it_foresees_the_same(conditioner, inputs, tmp_path):
    conditioner.save_pretrained(tmp_path)
    loaded = AvatarConditioner.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(*inputs), conditioner(*inputs))
    plain = conditioner.config.to_dict()
    assert plain["layout_size"] == SIZE


@pytest.mark.parametrize("width", [32, 200, 1000])
def test_any_width_can_be_shared_among_heads(width):
    assert LayoutReader(2, width, 16)(torch.randn(1, 3, 16)).shape == (1, 2, 4)


@pytest.mark.parametrize("size", [0, -1, 65, 2.5])
def test_sizes_that_no_layout_has_are_refused(conditioner, tmp_path, size):
    conditioner.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace(f'"layout_size": {SIZE}', f'"layout_size": {size}'))
    with pytest.raises(ValueError, match="layout_size"):
        AvatarConditioner.from_pretrained(tmp_path)
