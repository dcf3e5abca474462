# SPDX-License-Identifier: Apache-2.0
"""Points while they are decoded, and generations that end early."""

import io
import signal
import threading

import pytest
import torch
from tiny_generators import HEADS, build_generator
from transformers.generation.streamers import BaseStreamer

from pointillist_hf import PointTokenizer
from pointillist_hf.decoding.generation import generate_points
from pointillist_hf.decoding.streamers import PointIterator, PointStreamer, stop_on_interrupt

engines = pytest.mark.parametrize("engine", ["reference", "compiled"])


@pytest.fixture(scope="module", params=HEADS)
def model(request):
    return build_generator(sliding_window=64, **HEADS[request.param])


@pytest.fixture(scope="module")
def tokenizer():
    return PointTokenizer(num_bins=16, num_faces=20)


def check_partial(output, model, tokenizer, context):
    """A cloud that was stopped is a cloud, with the states that its tokens have."""
    for row, count in enumerate(output.num_points.tolist()):
        ids = output.input_ids[row, : 4 * (count + 2)]
        assert (ids[-4:] == model.config.eos_token_id).all()
        assert len(tokenizer.decode_points(ids)) == count
        with torch.no_grad():
            states = model.model(ids[None], context[row : row + 1]).last_hidden_state
        expected = states[0, 4:-4].unflatten(0, (count, 4))
        found = output.token_hidden_states[row, :count]
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@engines
def test_streamed_points_are_the_clouds(model, tokenizer, engine):
    context, found = torch.randn(3, 5, 24), [[], [], []]
    streamer = PointStreamer(tokenizer, lambda row, point: found[row].append(point))
    output = generate_points(model, context, max_points=30, engine=engine, streamer=streamer)
    assert len(output.num_points.unique()) > 1
    assert output.is_finished.all()
    for ids, points in zip(output.input_ids, found, strict=True):
        cloud = tokenizer.decode_points(ids)
        assert torch.equal(torch.cat([p.means for p in points]), cloud.means)
        assert torch.equal(torch.cat([p.bindings for p in points]), cloud.bindings)


@engines
def test_points_can_be_iterated_over(model, tokenizer, engine):
    context, points = torch.randn(1, 5, 24), PointIterator(tokenizer, timeout=60)
    options = {"min_points": 30, "max_points": 30, "engine": engine, "streamer": points}
    thread = threading.Thread(target=generate_points, args=(model, context), kwargs=options)
    thread.start()
    received = list(points)
    thread.join()
    assert [row for row, _ in received] == [0] * 30


@engines
def test_a_stop_leaves_a_valid_cloud(model, tokenizer, engine):
    context, stop = torch.randn(2, 5, 24), threading.Event()
    seen = []

    def look(row, point):
        seen.append(row)
        if len(seen) == 10:
            stop.set()

    output = generate_points(
        model,
        context,
        min_points=5000,
        max_points=5000,
        engine=engine,
        streamer=PointStreamer(tokenizer, look),
        stop=stop,
    )
    assert 5 <= output.num_points.min() < 5000
    assert output.num_points.tolist() == [seen.count(0), seen.count(1)]
    assert not output.is_finished.any()
    check_partial(output, model, tokenizer, context)


@engines
def test_an_interrupt_leaves_a_valid_cloud(model, tokenizer, engine, caplog):
    context, handler = torch.randn(1, 5, 24), signal.getsignal(signal.SIGINT)
    seen = []

    def look(row, point):
        seen.append(row)
        if len(seen) == 7:
            signal.raise_signal(signal.SIGINT)

    output = generate_points(
        model,
        context,
        min_points=5000,
        max_points=5000,
        engine=engine,
        streamer=PointStreamer(tokenizer, look),
    )
    assert 7 <= int(output.num_points) == len(seen) < 5000
    assert not output.is_finished.any()
    assert "the points so far are kept" in caplog.text
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_interrupt_before_the_first_point_is_one(model):
    class Impatient(BaseStreamer):
        def put(self, value):
            if value.ndim == 2:
                signal.raise_signal(signal.SIGINT)

        def end(self):
            pass

    with pytest.raises(KeyboardInterrupt):
        generate_points(model, torch.randn(1, 5, 24), engine="reference", streamer=Impatient())


def test_the_second_interrupt_is_one():
    with pytest.raises(KeyboardInterrupt), stop_on_interrupt(threading.Event()):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_a_handler_of_the_users_own_stays():
    calls = []
    before = signal.signal(signal.SIGINT, lambda *args: calls.append(1))
    try:
        with stop_on_interrupt(threading.Event()) as interruption:
            signal.raise_signal(signal.SIGINT)
        assert calls == [1]
        assert not interruption.is_set()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_get_no_handler():
    failures = []

    def run():
        try:
            with stop_on_interrupt(threading.Event()):
                pass
        except ValueError as error:  # signal works in the main thread only
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failures


PLAIN = {"detect_face": False, "remove_background": False}


def test_the_pipeline_counts_points(tiny_pipeline, portrait):
    bar = io.StringIO()
    tiny_pipeline.set_progress_bar_config(file=bar)
    found = []
    streamer = PointStreamer(tiny_pipeline.tokenizer, lambda row, point: found.append(row))
    output = tiny_pipeline([portrait] * 2, seed=[1, 2], streamer=streamer, **PLAIN)
    tiny_pipeline.set_progress_bar_config()
    total = sum(map(len, output.clouds))
    assert f"{total}/{total}" in bar.getvalue()
    assert len(found) == total


def test_engines_of_the_pipeline_agree(tiny_pipeline, portrait):
    reference, compiled, *rounded = (
        tiny_pipeline(portrait, seed=3, engine=engine, **PLAIN)
        for engine in ("reference", "compiled", "compiled-bfloat16", "compiled-int8")
    )
    assert torch.equal(reference.input_ids, compiled.input_ids)
    assert all(1 <= len(output.avatar) <= 6 for output in rounded)
    with pytest.raises(ValueError, match="`engine` must be one of"):
        tiny_pipeline(portrait, engine="quick", **PLAIN)


def test_several_avatars_of_a_portrait(tiny_pipeline, portrait):
    several = tiny_pipeline([portrait] * 2, seed=[3, 8], num_return_sequences=2, **PLAIN)
    assert len(several.avatars) == len(several.rig_params) == 4
    for avatar, seed in zip(several.avatars, [3, 4, 8, 9], strict=True):
        alone = tiny_pipeline(portrait, seed=seed, **PLAIN).avatar
        torch.testing.assert_close(avatar.gaussians.means, alone.gaussians.means)
    with pytest.raises(
        ValueError, match="`num_return_sequences` must be a whole number, 1 to 4096, got 0"
    ):
        tiny_pipeline(portrait, num_return_sequences=0, **PLAIN)
