# SPDX-License-Identifier: Apache-2.0
"""The compiled CPU engine beside the reference: the same tokens, whatever runs them."""

import copy
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from test_ring_cache import build_model
from torch import nn

from pointillist_hf import PointTokenizer
from pointillist_hf.decoding.cpu import decoder, weights
from pointillist_hf.decoding.cpu.arithmetic import wait
from pointillist_hf.decoding.cpu.decoder import CompiledDecoder, build_rules, seed_twister
from pointillist_hf.decoding.cpu.sampling import Draws, find_words, uniform
from pointillist_hf.decoding.cpu.weights import quantize_rows
from pointillist_hf.decoding.generation import WEIGHT_FORMATS, choose_engine, generate_points
from pointillist_hf.decoding.grammar import PointGrammar
from pointillist_hf.decoding.sampling import SeededSampling
from pointillist_hf.rendering.cpu.compilation import compile_kernel

TIE = 1e-4  # scores closer than this are decided by rounding
HEADS = {
    "flat": {},
    "depth": {
        "point_head": "depth",
        "loss_head": "typed",
        "depth_num_hidden_layers": 2,
        "depth_hidden_size": 48,  # wider than the large transformer
        "depth_num_attention_heads": 3,
        "depth_intermediate_size": 72,
    },
}
each_head = pytest.mark.parametrize("head", HEADS)
each_format = pytest.mark.parametrize("engine", WEIGHT_FORMATS)


@pytest.fixture(autouse=True)
def many_threads(monkeypatch):
    """As many threads as asked for, however little there is to do."""
    monkeypatch.setattr(decoder, "WEIGHTS_PER_THREAD", 1)


@pytest.fixture(scope="module", params=HEADS)
def model(request):
    return build_model(**HEADS[request.param])


@pytest.fixture
def context():
    return torch.randn(3, 5, 24)


@torch.no_grad()
def runner_up_gap(model, context, ids, seed, place, **options):
    """How far the reference's draw at a place was from another outcome."""
    rules = {k: options[k] for k in ("min_points", "max_points") if k in options}
    grammar = PointGrammar(model.config.layout, level=options.get("grammar", "types"), **rules)
    draw = {"temperature": options.get("temperature", 1.0), "min_p": options.get("min_p", 0.05)}
    sampling = SeededSampling([torch.Generator().manual_seed(seed)], **draw)
    logits = model(ids[None, :place], context[None], use_cache=False).logits
    for length in range(4, place + 1):
        scores = sampling(None, grammar(ids[None, :length], logits[:, length - 1]))
    best = scores[0].topk(2).values
    return float(best[0] - best[1])


def count_ties(model, context, seeds, **options):
    """Rows that part ways where rounding decides; any other difference fails."""
    expected = generate_points(model, context, seeds=seeds, engine="reference", **options)
    found = generate_points(model, context, seeds=seeds, engine="compiled", **options)
    assert (expected.is_finished & found.is_finished).all()
    ties = 0
    for row, seed in enumerate(seeds):
        first, second = expected.input_ids[row], found.input_ids[row]
        length = min(len(first), len(second))
        differing = (first[:length] != second[:length]).nonzero().flatten()
        if len(differing):
            place = int(differing[0])
            gap = runner_up_gap(model, context[row], first, seed, place, **options)
            assert gap < TIE, f"row {row} differs at {place}, by {gap}"
            ties += 1
            continue
        count = int(expected.num_points[row])
        assert count == found.num_points[row]
        torch.testing.assert_close(
            found.token_hidden_states[row, :count],
            expected.token_hidden_states[row, :count],
            atol=1e-4,  # of float64, the reference is up to 3e-5 off and the kernels 1.5e-5
            rtol=1e-4,
        )
    return ties


@pytest.mark.parametrize("grammar", ["types", "full"])
@pytest.mark.parametrize("order", ["xyzb", "yzxb"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 0.6},
        {"temperature": 1.7, "min_p": 0.0},
        {"min_p": 0.3},
        {"min_points": 12, "max_points": 12},
    ],
)
@each_head
def test_the_same_tokens(head, order, grammar, options, context):
    model = build_model(token_order=order, **HEADS[head])
    options = {"max_points": 14, "grammar": grammar, **options}
    assert count_ties(model, context, [1, 2, 3], **options) == 0


@pytest.mark.slow
@pytest.mark.parametrize("order", ["xyzb", "yzxb"])
@each_head
def test_the_same_tokens_at_the_size_of_the_paper_s_vocabulary(head, order):
    sizes = {"num_bins": 1024, "num_faces": 10144, "hidden_size": 128, "num_attention_heads": 4}
    model = build_model(
        token_order=order, window=256, intermediate_size=352, **sizes, **HEADS[head]
    )
    context = torch.randn(8, 20, 24)
    for grammar in ("types", "full"):
        options = {"min_points": 100, "max_points": 100, "grammar": grammar}
        assert count_ties(model, context, range(8), **options) <= 1


@pytest.mark.parametrize("num_heads", [1, 8])
@pytest.mark.parametrize("size", [48, 80])
@each_head
def test_sizes_that_fill_no_vector(head, size, num_heads, context):
    sizes = {"hidden_size": size, "num_attention_heads": num_heads, "intermediate_size": 72}
    sizes |= HEADS[head]
    if head == "depth":
        sizes |= {"depth_hidden_size": 40, "depth_num_attention_heads": num_heads}
    model = build_model(**sizes, num_hidden_layers=3)
    assert count_ties(model, context, [1, 2, 3], max_points=8) == 0


@pytest.mark.parametrize(("head", "window", "points"), [("flat", 600, 170), ("depth", 1200, 310)])
def test_windows_longer_than_a_chunk(head, window, points, context):
    model = build_model(window=window, num_hidden_layers=1, **HEADS[head])
    assert count_ties(model, context[:1], [1], min_points=points, max_points=points) == 0


def test_padded_conditioning_is_not_seen(model, context):
    mask = torch.tensor([[1] * 5, [1] * 3 + [0] * 2, [0, 1, 0, 1, 1]])
    options = {"seeds": [1, 2, 3], "encoder_attention_mask": mask, "max_points": 9}
    expected = generate_points(model, context, engine="reference", **options)
    found = generate_points(model, context, engine="compiled", **options)
    assert torch.equal(found.input_ids, expected.input_ids)
    alone = generate_points(model, context[2:, [1, 3, 4]], seeds=[3], max_points=9)
    count = 4 * int(alone.num_points)
    assert torch.equal(alone.input_ids[0, :count], found.input_ids[2, :count])


@each_format
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


@each_format
def test_rows_of_a_batch_have_the_bits_that_they_have_alone(model, engine):
    context = torch.randn(7, 5, 24)  # by fours, by twos, and alone
    options = {"max_points": 9, "engine": engine}
    batch = generate_points(model, context, seeds=range(7), **options)
    assert len(batch.num_points.unique()) > 2
    for row in range(7):
        alone = generate_points(model, context[row : row + 1], seeds=[row], **options)
        count = int(alone.num_points)
        assert torch.equal(batch.token_hidden_states[row, :count], alone.token_hidden_states[0])


def test_return_sequences_are_rows(model, context):
    for engine in ("reference", "compiled"):
        several = generate_points(
            model, context[:2], num_return_sequences=2, max_points=9, engine=engine
        )
        rows = generate_points(model, context[[0, 0, 1, 1]], max_points=9, engine=engine)
        assert torch.equal(several.input_ids, rows.input_ids)


def test_nothing_left_of_the_conditioning(model, context):
    """Of all rows, and of one beside others."""
    for kept in ([0, 0, 0], [5, 0, 3]):
        mask = torch.arange(5) < torch.tensor(kept)[:, None]
        options = {"encoder_attention_mask": mask.long(), "max_points": 9}
        expected = generate_points(model, context, engine="reference", **options)
        found = generate_points(model, context, engine="compiled", **options)
        assert torch.equal(found.input_ids, expected.input_ids)


def test_more_faces_than_the_twister_has_words():
    model, context = build_model(num_faces=20_908), torch.randn(2, 5, 24)
    options = {"max_points": 12, "seeds": [1, 2]}
    expected = generate_points(model, context, engine="reference", **options)
    found = generate_points(model, context, engine="compiled", **options)
    assert (expected.input_ids > 18_000).any()
    assert torch.equal(found.input_ids, expected.input_ids)


def test_equal_conditioning_is_kept_once(model, context):
    contexts = context[[2, 0, 2, 1]]
    grammar = PointGrammar(model.config.layout, max_points=9)
    rules = build_rules(model.config.layout, grammar, SeededSampling([]))
    generation = CompiledDecoder(model, contexts, rules=rules, seeds=[1, 2, 3, 4])
    assert generation.memory.cross.rows.tolist() == [0, 1, 0, 2]
    assert generation.memory.cross.num_rows == 3
    found = generate_points(model, contexts, seeds=[1, 2, 3, 4], max_points=9)
    for row, seed in enumerate([1, 2, 3, 4]):
        alone = generate_points(model, contexts[[row]], seeds=[seed], max_points=9)
        count = int(alone.num_points)
        assert torch.equal(found.token_hidden_states[row, :count], alone.token_hidden_states[0])


@pytest.mark.parametrize("vocabulary", [39, 624, 1001])
def test_the_noise_is_that_of_torch(vocabulary):
    draws = Draws(None, None, np.zeros(2 * 624, np.uint32), np.zeros((2, 2), np.int64))
    draws.twister[:624], draws.twister[624:] = seed_twister(5), seed_twister(2**40 + 3)
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 2**40 + 3)]
    for _ in range(4):
        for row, generator in enumerate(generators):
            expected = torch.rand(vocabulary, dtype=torch.float64, generator=generator)
            asked = range(row, vocabulary, 7)
            found = [uniform(draws.twister, find_words(draws, row, token)[0]) for token in asked]
            assert found == expected[asked].tolist()
            draws.words[row, 0] += 2 * vocabulary


def rounded(model):
    """The model with weights that bfloat16 holds."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    return model


def test_weights_that_bfloat16_holds_are_read_as_such(model, context, monkeypatch):
    model = rounded(model)
    halved = generate_points(model, context, max_points=9, engine="compiled")
    assert weights.prepare_weights(model, "exact").matrices.dtype == np.uint16
    monkeypatch.setattr(weights, "_fits_bfloat16", lambda matrix: False)
    model = copy.deepcopy(model)
    whole = generate_points(model, context, max_points=9, engine="compiled")
    assert weights.prepare_weights(model, "exact").matrices.dtype == np.float32
    assert torch.equal(halved.token_hidden_states, whole.token_hidden_states)


def test_a_bfloat16_model_is_decoded_in_float32(model, context):
    half = copy.deepcopy(model).bfloat16()
    found = generate_points(half, context.bfloat16(), max_points=9)
    expected = generate_points(
        copy.deepcopy(half).float(),
        context.bfloat16().float(),
        max_points=9,
        engine="reference",
    )
    assert found.token_hidden_states.dtype == torch.bfloat16
    assert torch.equal(found.input_ids, expected.input_ids)


def test_changed_weights_are_noticed(model, context):
    model = copy.deepcopy(model)
    before = generate_points(model, context, max_points=9, engine="compiled")
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(-1)
    assert count_ties(model, context, [0, 1, 2], max_points=9) == 0
    after = generate_points(model, context, max_points=9, engine="compiled")
    assert not torch.equal(after.token_hidden_states[:, 0], before.token_hidden_states[:, 0])


def test_changes_that_torch_does_not_count_are_noticed(model, context):
    model = copy.deepcopy(model)
    before = weights.prepare_weights(model, "exact")
    assert weights.prepare_weights(model, "exact") is before
    model.model.embed_tokens.weight.data.add_(0.01)
    assert weights.prepare_weights(model, "exact") is not before


def test_rows_of_int8():
    matrix = torch.randn(50, 33) * torch.logspace(-6, 3, 50)[:, None]
    matrix[7] = 0
    numbers, scales = quantize_rows(matrix)
    error = (torch.from_numpy(numbers * scales[:, None]) - matrix).abs()
    assert (error <= torch.from_numpy(scales)[:, None] * 0.5001).all()
    assert abs(numbers).max(1).tolist() == [127] * 7 + [0] + [127] * 42


@pytest.mark.parametrize(
    ("engine", "least", "most"),
    [("compiled-bfloat16", 1e-8, 1e-4), ("compiled-int8", 1e-6, 1e-3)],
)
def test_rounded_engines_are_near_and_valid(model, context, engine, least, most):
    options = {"min_points": 12, "max_points": 12, "temperature": 0.0}
    near = generate_points(model, context, engine=engine, **options)
    with torch.no_grad():
        states = model.model(near.input_ids, context, use_cache=False).last_hidden_state
    forced = states[:, 4:-4].unflatten(1, (12, 4))
    error = (near.token_hidden_states - forced).square().mean() / forced.square().mean()
    assert least < error < most


@pytest.mark.slow
def test_kernels_from_the_cache_have_the_bits_of_fresh_ones(tmp_path):
    script = (
        "import hashlib, torch, test_compiled_engine as t\n"
        "sizes = {'hidden_size': 192, 'num_attention_heads': 3, 'intermediate_size': 512}\n"
        "model = t.build_model(**sizes, **t.HEADS['depth'])\n"
        "for engine in t.WEIGHT_FORMATS:\n"
        "    options = {'min_points': 90, 'max_points': 90, 'engine': engine}\n"
        "    cloud = t.generate_points(model, torch.randn(3, 300, 24), **options)\n"
        "    states = cloud.token_hidden_states.numpy().tobytes()\n"
        "    print(hashlib.sha256(states).hexdigest())\n"
    )
    path = os.pathsep.join([*sys.path, os.path.dirname(__file__)])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}
    found = [
        subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
        for _ in range(2)
    ]
    assert found[0].stdout.count(b"\n") == 3, found[0].stderr
    assert found[0].stdout == found[1].stdout


def test_auto_takes_what_can_serve(model):
    assert choose_engine(model, "auto") == "compiled"
    assert choose_engine(copy.deepcopy(model).double(), "auto") == "reference"


def test_caches_of_generate_want_the_reference(context):
    model = build_model()
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
    model = build_model(attention_dropout=0.1)
    assert choose_engine(model, "auto") == "compiled"
    assert choose_engine(model.train(), "auto") == "reference"


def test_wrong_engines_and_options_are_refused(model, context):
    with pytest.raises(ValueError, match=r"`engine` must be one of .*'auto'.* got 'fast'"):
        generate_points(model, context, engine="fast")
    with pytest.raises(ValueError, match=r"cannot serve.*`cache_implementation` is for `generate`"):
        generate_points(model, context, engine="compiled", cache_implementation="static")


def test_a_failing_thread_does_not_leave_the_others_waiting():
    barrier = np.zeros(2, np.int64)

    def fail():
        raise RuntimeError("before the kernel")

    @compile_kernel()  # which lets go of the GIL
    def come(barrier):
        wait(barrier, 2)
        return 0

    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="before the kernel"):
        decoder._run_together(pool, [fail, lambda: come(barrier)], barrier)


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


@pytest.mark.parametrize("grammar", ["types", "full"])
@pytest.mark.parametrize("order", ["xyzb", "yzxb"])
def test_a_thousand_clouds_of_an_untrained_model_are_valid(order, grammar):
    tokenizer = PointTokenizer(num_bins=16, num_faces=20, token_order=order)
    model = build_model(token_order=order, initializer_range=0.05)
    context = torch.randn(1000, 2, 24)
    output = generate_points(
        model, context, grammar=grammar, min_points=1, max_points=16, min_p=0.0
    )
    assert len(output.num_points.unique()) > 8
    for ids, count in zip(output.input_ids, output.num_points.tolist(), strict=True):
        points = tokenizer.decode_points(ids)  # refuses a token in a wrong slot
        assert len(points) == count
        if grammar == "full":
            assert torch.equal(tokenizer.encode_points(points), ids[: 4 * (count + 2)])
