# SPDX-License-Identifier: Apache-2.0
"""Threads and processes of the compiled engine: the same bits, nobody left waiting."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from engine_agreement import each_engine

from pointillist_hf.decoding.cpu import decoder
from pointillist_hf.decoding.cpu.arithmetic import wait
from pointillist_hf.decoding.generation import generate_points
from pointillist_hf.kernels.compilation import compile_kernel


@each_engine
def test_any_number_of_threads_gives_the_same_bits(model, engine):
    context = torch.randn(3, 300, 24)  # two chunks of conditioning
    options = {"min_points": 20, "max_points": 20, "engine": engine}
    outputs = []
    for num_threads in (1, 2, 3, 7):
        torch.set_num_threads(num_threads)
        outputs.append(generate_points(model, context, **options))
    torch.set_num_threads(1)
    for output in outputs[1:]:
        assert torch.equal(output.input_ids, outputs[0].input_ids)
        assert torch.equal(output.token_hidden_states, outputs[0].token_hidden_states)


def test_a_failing_thread_does_not_leave_the_others_waiting():
    barrier = np.zeros(2, np.int64)

    def fail():
        raise RuntimeError("before the kernel")

    @compile_kernel()  # which lets go of the GIL
    def come(barrier):
        wait(barrier, 2)
        return 0

    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="before the kernel"):
        decoder.run_together(pool, [fail, lambda: come(barrier)], barrier)


@pytest.mark.parametrize(("most", "best"), [(1, 1), (2, 1), (2, 2), (8, 1), (8, 4), (6, 6)])
def test_as_many_threads_as_help(most, best):
    threads, used = decoder.ThreadCount(most), []
    for _ in range(400):
        count, is_trial = threads.choose()
        assert 1 <= count <= most
        threads.learn(count, 1.0 + abs(np.log2(count / best)))
        used.append((count, is_trial))
    assert used[0] == (most, False)
    assert {count for count, is_trial in used[200:] if not is_trial} == {best}
    assert sum(is_trial for _, is_trial in used[200:]) < 10
    # What helped before need not help for ever.
    for _ in range(400):
        count, _ = threads.choose()
        threads.learn(count, 1.0 + np.log2(most / count))
    assert threads.count == most


def test_two_generations_at_a_time(model, context):
    torch.set_num_threads(2)
    with ThreadPoolExecutor(4) as pool:
        runs = [
            pool.submit(generate_points, model, context, seeds=[s, s, s], max_points=9)
            for s in range(8)
        ]
    torch.set_num_threads(1)
    for seed, run in enumerate(runs):
        alone = generate_points(model, context, seeds=[seed] * 3, max_points=9)
        assert torch.equal(run.result().input_ids, alone.input_ids)


def generate_in_child(queue, model, context):
    # Threads of torch's own pool do not survive a fork; those of the engine are not torch's.
    torch.set_num_threads(1)
    torch.get_num_threads = lambda: 3
    queue.put(generate_points(model, context, max_points=9, engine="compiled").input_ids.tolist())


def test_a_forked_child_can_decode(model, context):
    torch.set_num_threads(2)
    expected = generate_points(model, context, max_points=9, engine="compiled").input_ids.tolist()
    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    child = fork.Process(target=generate_in_child, args=(queue, model, context))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join(60)
    assert child.exitcode == 0
