# SPDX-License-Identifier: Apache-2.0
"""Bookkeeping of a fit: bindings, statistics and moments follow the splats."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pointillist_hf.data.fitting.config import FitConfig
from pointillist_hf.data.fitting.densification import (
    is_best_of_face,
    most_contributing,
    plan_growth,
    survivors,
)
from pointillist_hf.data.fitting.optimisation import initial_values
from pointillist_hf.data.fitting.state import MOMENTS, SPLAT_NAMES, FitState
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig

seeds = st.integers(0, 10**6)


def random_state(seed, *, num_faces=12, num_splats=40, sh_degree=1):
    """A state whose every splat can be told from the others, with moments."""
    g = torch.Generator().manual_seed(seed)
    config = FitConfig(sh_degree=sh_degree, max_points=60)
    rig = ProceduralHeadRig("low")
    first = initial_values(num_splats, config)
    values = {name: torch.randn(v.shape, generator=g) for name, v in first.items()}
    extra = torch.randint(num_faces, (num_splats - num_faces,), generator=g)
    bindings = torch.cat([torch.arange(num_faces), extra])
    state = FitState(values, bindings, rig.neutral(2), config, 1.0)
    loss = sum(value.square().sum() for value in state.values.values())
    loss.backward()
    state.optimizer.step()
    state.note_gradients(torch.randn(num_splats, 2, generator=g), torch.rand(num_splats) > 0.3)
    return state, g


def moments(state, name):
    return [state.optimizer.state[state.values[name]][moment] for moment in MOMENTS]


@settings(max_examples=12, deadline=None)
@given(seeds)
def test_everything_follows_the_splats(seed):
    state, g = random_state(seed)
    old = {name: state.values[name].detach().clone() for name in SPLAT_NAMES}
    old_moments = {name: [m.clone() for m in moments(state, name)] for name in SPLAT_NAMES}
    old_bindings = state.bindings.clone()
    count = len(state)
    gradients = torch.rand(count, generator=g) * 4e-4
    plan = plan_growth(gradients, torch.rand(count, generator=g) * 0.02, 1.0, state.config)
    doomed = torch.rand(len(plan), generator=g) < 0.5
    kept = survivors(doomed, old_bindings[plan.sources], torch.rand(len(plan)), "all_or_nothing")
    plan = plan.keep(kept)
    shifts = torch.randn(len(plan), 3, generator=g)
    state.apply(plan, shifts)
    assert {len(state.values[name]) for name in SPLAT_NAMES} == {len(plan)} == {len(state)}
    assert len(state.gradient_sums) == len(state.num_seen) == len(plan)
    # No face was ever left empty.
    assert torch.equal(state.bindings.unique(), old_bindings.unique())
    for row, source in enumerate(plan.sources.tolist()):
        assert state.bindings[row] == old_bindings[source]
        for name in SPLAT_NAMES:
            expected = old[name][source].clone()
            if plan.is_child[row] and name == "means":
                expected += shifts[row]
            if plan.is_child[row] and name == "log_scales":
                expected -= torch.tensor(1.6).log()
            assert torch.equal(state.values[name][row], expected)
            for now, before in zip(moments(state, name), old_moments[name], strict=True):
                wanted = torch.zeros_like(before[source]) if plan.is_new[row] else before[source]
                assert torch.equal(now[row], wanted)
    # The optimiser moves the splats there are now.
    before = state.values["means"].detach().clone()
    state.values["means"].sum().backward()
    state.optimizer.step()
    assert not torch.equal(state.values["means"], before)


def test_growth_clones_small_splats_and_splits_large_ones():
    config = FitConfig()
    gradients = torch.tensor([0.0, 3e-4, 3e-4, 1e-4])
    plan = plan_growth(gradients, torch.tensor([1.0, 0.005, 0.02, 0.02]), 1.0, config)
    assert plan.sources.tolist() == [0, 1, 3, 1, 2, 2]
    assert plan.is_new.tolist() == [False] * 3 + [True] * 3
    assert plan.is_child.tolist() == [False] * 4 + [True] * 2


def test_pruning_empties_no_face():
    # Face 0 has three splats of which two go; face 1 has two that both would go.
    bindings = torch.tensor([0, 0, 0, 1, 1])
    doomed = torch.tensor([True, False, True, True, True])
    opacities = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    kept = survivors(doomed, bindings, opacities, "all_or_nothing")
    assert kept.tolist() == [False, True, False, True, True]
    kept = survivors(doomed, bindings, opacities, "keep_best")
    assert kept.tolist() == [False, True, False, False, True]


@given(seeds)
@settings(deadline=None)
def test_a_limit_keeps_the_best_and_every_face(seed):
    g = torch.Generator().manual_seed(seed)
    bindings = torch.randint(7, (30,), generator=g)
    contributions = torch.rand(30, generator=g)
    num_faces = len(bindings.unique())
    limit = num_faces + seed % 10
    kept = most_contributing(contributions, bindings, limit)
    assert int(kept.sum()) == limit
    assert torch.equal(bindings[kept].unique(), bindings.unique())
    best = {int(b): float(contributions[bindings == b].max()) for b in bindings.unique()}
    spare = kept & ~is_best_of_face(bindings, contributions)
    for row in torch.nonzero(~kept).flatten().tolist():
        assert contributions[row] < best[int(bindings[row])]
        assert not spare.any() or contributions[row] <= contributions[spare].min()
    with pytest.raises(ValueError, match="`max_points` must be at least the number of faces"):
        most_contributing(contributions, bindings, num_faces - 1)


def test_the_best_of_a_face_by_a_loop():
    g = torch.Generator().manual_seed(0)
    bindings, values = (
        torch.randint(9, (50,), generator=g),
        torch.rand(50, generator=g).round(decimals=1),
    )
    expected = torch.zeros(50, dtype=torch.bool)
    for face in bindings.unique():
        rows = torch.nonzero(bindings == face).flatten()
        expected[rows[values[rows].argmax()]] = True
    assert torch.equal(is_best_of_face(bindings, values), expected)


def test_a_reset_lowers_opacities_and_forgets():
    state, _ = random_state(1)
    before = state.values["opacity_logits"].detach().clone()
    state.reset_opacities(0.01)
    now = state.values["opacity_logits"].detach()
    assert float(now.sigmoid().max()) <= 0.01 + 1e-6
    low = before.sigmoid() < 0.01
    assert torch.equal(now[low], before[low])
    assert all(not moment.any() for moment in moments(state, "opacity_logits"))
    assert any(moment.any() for moment in moments(state, "means"))


def test_a_restored_state_goes_on_as_the_saved_one(tmp_path):
    state, _ = random_state(3)
    other, _ = random_state(4)
    state.step = 7
    state.save(tmp_path / "state.safetensors")
    other.restore(tmp_path / "state.safetensors")
    for one in (state, other):
        one.set_learning_rates()
        one.optimizer.zero_grad()
        sum(value.sin().sum() for value in one.values.values()).backward()
        one.optimizer.step()
    assert other.step == 7
    for name, value in state.values.items():
        assert torch.equal(value, other.values[name]), name
    assert torch.equal(state.bindings, other.bindings)
    assert torch.equal(state.gradient_sums, other.gradient_sums)


def test_a_checkpoint_of_another_fit_is_refused(tmp_path):
    state, _ = random_state(0)
    state.save(tmp_path / "state.safetensors")
    other, _ = random_state(0)
    other.origin = {"config": {}}
    with pytest.raises(ValueError, match="another capture or with other settings"):
        other.restore(tmp_path / "state.safetensors")
    (tmp_path / "state.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="is damaged"):
        state.restore(tmp_path / "state.safetensors")
