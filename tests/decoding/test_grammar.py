# SPDX-License-Identifier: Apache-2.0
"""Which token may follow, and how it is drawn."""

import itertools
from collections import defaultdict

import pytest
import torch

from pointillist_hf.avatar import Avatar
from pointillist_hf.decoding.generation import collect_points
from pointillist_hf.decoding.grammar import PointGrammar
from pointillist_hf.decoding.sampling import SeededSampling
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.models.tokenization_points import TokenLayout

ORDERS = ("xyzb", "yzxb", "byzx")
# The tiny vocabulary: bins 0, 1, 2, faces 3 and 4, then start, end, padding.
BINS, FACES, START, END, PAD = (0, 1, 2), (3, 4), 5, 6, 7
WIDE = TokenLayout(num_bins=64, num_faces=3466)


def tiny_layout(order):
    return TokenLayout(num_bins=3, num_faces=2, token_order=order)


def every_cloud(order, *, is_sorted, sizes=(0, 1, 2)):
    """All token sequences of clouds with so many points, by brute force."""
    points = list(itertools.product(*(FACES if name == "b" else BINS for name in order)))
    sort_key = {"xyzb": "yzxb", "yzxb": "yzxb", "byzx": "byzx"}[order]

    def key(point):
        named = dict(zip(order, point, strict=True))
        return [named[name] for name in sort_key]

    for size in sizes:
        for cloud in itertools.product(points, repeat=size):
            if not is_sorted or list(cloud) == sorted(cloud, key=key):
                yield (START,) * 4 + tuple(itertools.chain(*cloud)) + (END,)


def clouds_by_faces(sizes, *, has_every_face, most=9):
    """As `every_cloud`: two bins, three faces that come in their order, all of them if wished."""
    points = list(itertools.product((2, 3, 4), (0, 1), (0, 1), (0, 1)))
    for size in sizes:
        for cloud in itertools.product(points, repeat=size):
            faces = [point[0] for point in cloud]
            is_fair = max(map(faces.count, faces), default=0) <= most
            is_whole = not has_every_face or set(faces) == {2, 3, 4}
            if faces == sorted(faces) and is_fair and is_whole:
                yield (START,) * 4 + tuple(itertools.chain(*cloud)) + (END,)


def continuations(sequences):
    """What may follow each prefix of the sequences, from the start tokens on."""
    following = defaultdict(set)
    for sequence in sequences:
        for length in range(4, len(sequence)):
            following[sequence[:length]].add(sequence[length])
        following[sequence] = {PAD}
    return following


def check_exhaustively(grammar, following):
    by_length = defaultdict(list)
    for prefix in following:
        by_length[len(prefix)].append(prefix)
    for prefixes in by_length.values():
        expected = torch.zeros(len(prefixes), 8, dtype=torch.bool)
        for row, prefix in enumerate(prefixes):
            expected[row, list(following[prefix])] = True
        allowed = grammar.allowed(torch.tensor(prefixes))
        wrong = (allowed != expected).any(1).nonzero().flatten().tolist()
        assert not wrong, [(prefixes[i], allowed[i].tolist()) for i in wrong[:3]]


def walk(grammar, seed, *, limit, end_share=0.1):
    """A random sequence of allowed tokens: until the end, or until the limit of points."""
    g = torch.Generator().manual_seed(seed)
    layout = grammar.layout
    ids = torch.full((1, 4), layout.bos_token_id)
    while ids[0, -1] != layout.eos_token_id and ids.shape[1] < 4 * (limit + 1) + 1:
        weights = grammar.allowed(ids)[0].float()
        assert weights.any()
        # Leaps to the far end of the allowed interval, short steps, and ends now and then.
        chosen = weights.nonzero().flatten()
        near = torch.rand((), generator=g) < 0.6
        weights[chosen[3:]] *= 1e-3 if near else 1
        if weights[layout.eos_token_id]:
            weights[layout.eos_token_id] = end_share * weights.sum()
        token = torch.multinomial(weights, 1, generator=g)
        ids = torch.cat([ids, token[None]], dim=1)
    return ids[0]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("is_sorted", [True, False])
def test_allowed_is_exactly_what_can_be_completed(order, is_sorted):
    following = continuations(every_cloud(order, is_sorted=is_sorted))
    level = "full" if is_sorted else "types"
    grammar = PointGrammar(tiny_layout(order), level=level, min_points=0, max_points=2)
    check_exhaustively(grammar, following)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("is_sorted", [True, False])
@pytest.mark.parametrize("sizes", [(1,), (2,), (1, 2)])
def test_numbers_of_points_are_respected(order, is_sorted, sizes):
    following = continuations(every_cloud(order, is_sorted=is_sorted, sizes=sizes))
    grammar = PointGrammar(
        tiny_layout(order),
        level="full" if is_sorted else "types",
        min_points=sizes[0],
        max_points=sizes[-1],
    )
    check_exhaustively(grammar, following)


@pytest.mark.parametrize(
    ("level", "sizes"),
    [("faces", (0, 1, 2)), ("faces", (2,)), ("faces", (3,)), ("every_face", (3,))],
)
def test_faces_come_in_their_order(level, sizes):
    layout = TokenLayout(num_bins=2, num_faces=3, token_order="byzx")
    following = continuations(clouds_by_faces(sizes, has_every_face=level == "every_face"))
    grammar = PointGrammar(layout, level=level, min_points=sizes[0], max_points=sizes[-1])
    check_exhaustively(grammar, following)


@pytest.mark.parametrize(
    ("level", "sizes", "most"),
    [("faces", (0, 1, 2), 1), ("faces", (1, 2, 3), 2), ("every_face", (3,), 1)],
)
def test_a_face_has_no_more_points_than_it_may(level, sizes, most):
    layout = TokenLayout(num_bins=2, num_faces=3, token_order="byzx")
    is_whole = level == "every_face"
    clouds = clouds_by_faces(sizes, has_every_face=is_whole, most=most)
    options = {"min_points": sizes[0], "max_points": sizes[-1], "max_points_per_face": most}
    check_exhaustively(PointGrammar(layout, level=level, **options), continuations(clouds))


@pytest.mark.parametrize("seed", range(3))
def test_full_faces_are_left_and_none_is_left_out(seed):
    layout = TokenLayout(num_bins=4, num_faces=10, token_order="byzx")
    options = {"min_points": 20, "max_points": 40, "max_points_per_face": 3}
    ids = walk(PointGrammar(layout, level="every_face", **options), seed, limit=40, end_share=0.02)
    counts = (ids[4:-1:4] - layout.binding_offset).bincount(minlength=10)
    assert counts.min() >= 1
    assert counts.max() <= 3


def test_points_in_no_order_know_no_full_faces():
    layout = TokenLayout(num_bins=4, num_faces=3, token_order="byzx")
    bounded = PointGrammar(layout, level="types", max_points_per_face=1)
    ids = walk(bounded, 0, limit=6)
    assert torch.equal(bounded.allowed(ids[None]), PointGrammar(layout).allowed(ids[None]))


@pytest.mark.parametrize(("least", "most"), [(1, 10), (11, 13), (12, 40)])
@pytest.mark.parametrize("seed", range(5))
def test_no_face_is_left_out(least, most, seed):
    layout = TokenLayout(num_bins=4, num_faces=10, token_order="byzx")
    grammar = PointGrammar(layout, level="every_face", min_points=least, max_points=most)
    ids = walk(grammar, seed, limit=most, end_share=0.02)
    faces = ids[4:-1:4] - layout.binding_offset
    assert faces.unique_consecutive().tolist() == list(range(10))
    assert least <= len(faces) <= most


def test_a_cloud_ends_in_the_middle_when_it_may_not_be_longer():
    layout = TokenLayout(num_bins=4, num_faces=10, token_order="byzx")
    ids = walk(PointGrammar(layout, level="every_face", max_points=6), 0, limit=6)
    assert (ids[4:-1:4] - layout.binding_offset).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("order", ORDERS)
def test_only_the_previous_point_matters(order):
    """Longer clouds: the rule for the third point is the rule for the second."""
    grammar = PointGrammar(tiny_layout(order), level="full", min_points=0)
    pairs = [s[4:-1] for s in every_cloud(order, is_sorted=True, sizes=(2,))]
    for slot in range(4):
        short = torch.tensor([(START,) * 4 + pair[: 4 + slot] for pair in pairs])
        earlier = torch.tensor([(START,) * 4 + pair[:4] + pair[: 4 + slot] for pair in pairs])
        assert torch.equal(grammar.allowed(short), grammar.allowed(earlier))


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_but_the_last_point_follows_the_last_point(order):
    last = tuple(2 if name != "b" else 4 for name in order)
    grammar = PointGrammar(tiny_layout(order), level="full", max_points=3)
    ids = (START,) * 4 + last
    for slot, value in enumerate(last):
        allowed = grammar.allowed(torch.tensor([ids + last[:slot]]))[0].nonzero().flatten()
        assert allowed.tolist() == ([value, END] if slot == 0 else [value])


@pytest.mark.parametrize("level", ["types", "full"])
def test_rows_are_judged_apart(level):
    grammar = PointGrammar(tiny_layout("yzxb"), level=level, min_points=0, max_points=3)
    rows = torch.tensor(
        [[5, 5, 5, 5, 2, 2, 2, 4, 2], [5, 5, 5, 5, 0, 0, 0, 3, 1], [5, 5, 5, 5] + [6] + [7] * 4]
    )
    together = grammar.allowed(rows)
    assert torch.equal(together, torch.cat([grammar.allowed(row[None]) for row in rows]))
    assert together[2].nonzero().flatten().tolist() == [PAD]


def test_scores_of_allowed_tokens_are_not_touched():
    grammar = PointGrammar(tiny_layout("xyzb"))
    ids, scores = torch.tensor([[5, 5, 5, 5, 1]]), torch.randn(1, 8)
    masked = grammar(ids, scores)
    assert torch.equal(masked[0, :3], scores[0, :3])
    assert (masked[0, 3:] == -torch.inf).all()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("level", ["types", "full"])
def test_random_walks_decode_and_so_does_every_truncation(tiny_tokenizer, order, level):
    tokenizer = type(tiny_tokenizer)(num_bins=64, num_faces=3466, token_order=order)
    for seed in range(10):
        grammar = PointGrammar(tokenizer.layout, level=level, max_points=6)
        ids = walk(grammar, seed, limit=6)
        assert ids[-1] == tokenizer.eos_token_id
        points = tokenizer.decode_points(ids)
        assert 1 <= len(points) <= 6
        for length in range(len(ids)):
            cut = tokenizer.decode_points(ids[:length])
            assert torch.equal(cut.means, points.means[: len(cut)])
        if level == "full":
            again = tokenizer.encode_points(points)
            assert torch.equal(again[: len(ids)], ids)


@pytest.mark.parametrize("seed", range(4))
def test_random_walks_become_avatars_that_render(tiny_tokenizer, tiny_decoder, tiny_rig, seed):
    level = "full" if seed % 2 else "types"
    grammar = PointGrammar(tiny_tokenizer.layout, level=level, max_points=20)
    ids = walk(grammar, seed, limit=20, end_share=0.02)
    cut = int(torch.randint(8, len(ids) + 1, ()))
    points = tiny_tokenizer.decode_points(ids[:cut])
    states = torch.randn(1, len(points), 4, tiny_decoder.config.generator_hidden_size)
    context = torch.randn(1, 5, tiny_decoder.config.cross_attention_size)
    with torch.no_grad():
        output = tiny_decoder(points.means[None], states, encoder_hidden_states=context)
    splats = output.gaussians(0, len(points))
    avatar = Avatar(splats, points.bindings, tiny_rig, torch.randn(tiny_rig.num_betas))
    params = avatar.rig_params({"mouthSmile": 1.0}, jaw_pose=[0.3, 0.0, 0.0])
    image = avatar.animate(params).render(orbit_cameras([20.0], width=32, height=32))
    assert torch.isfinite(image).all()
    assert image.min() >= 0
    assert image.max() <= 1 + 1e-5


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"level": "none"}, "`grammar` must be one of types, full, .* got 'none'"),
        ({"level": "faces"}, "`grammar` 'faces' wants .* `token_order` is 'xyzb'"),
        ({"level": "every_face"}, "`grammar` 'every_face' wants points that are sorted by"),
        ({"max_points": 0}, "`max_points` must be a whole number, 1 to"),
        ({"min_points": 5, "max_points": 4}, "at least `min_points`, got 4 and 5"),
        ({"min_points": -1}, "`min_points`"),
        ({"max_points_per_face": 0}, "`max_points_per_face` must be a whole number, 1 to"),
    ],
)
def test_impossible_grammars_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PointGrammar(WIDE, **kwargs)


def draw(logits, *, seed=0, count=4000, **kwargs):
    """Frequencies of the draws."""
    sampling = SeededSampling([torch.Generator().manual_seed(seed)], **kwargs)
    counts = torch.zeros(len(logits))
    for _ in range(count):
        counts[sampling(None, logits[None]).argmax()] += 1
    return counts / count


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_draws_follow_the_softmax(temperature):
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, -torch.inf])
    expected = (logits / temperature).softmax(-1)
    found = draw(logits, temperature=temperature)
    assert found[5] == 0
    chi_square = 4000 * ((found - expected).square() / expected)[:5].sum()
    assert chi_square < 18.5  # four degrees of freedom, one in a thousand


def test_unlikely_tokens_are_cut():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    found = draw(logits, min_p=0.2)
    assert found[3] == 0
    expected = torch.tensor([0.5, 0.3, 0.15]) / 0.95
    torch.testing.assert_close(found[:3], expected, atol=0.03, rtol=0)
    assert draw(logits, min_p=1.0, count=50)[0] == 1


def test_plain_slots_are_drawn_as_the_scores_say():
    logits = torch.tensor([[0.96, 0.04]]).log()
    options = {"temperature": 0.5, "min_p": 0.1, "num_plain_slots": 2}
    for length, expected in ((8, 0.04), (9, 0.04), (10, 0.0), (11, 0.0)):
        sampling = SeededSampling([torch.Generator().manual_seed(0)], **options)
        ids = torch.zeros(1, length)
        share = sum(float(sampling(ids, logits).argmax()) for _ in range(4000)) / 4000
        assert share == pytest.approx(expected, abs=0.01)
    options["temperature"] = 0.0
    assert torch.equal(SeededSampling([], **options)(torch.zeros(1, 8), logits), logits)


def test_zero_temperature_is_greedy():
    scores = torch.randn(3, 20)
    generators = [torch.Generator().manual_seed(i) for i in range(3)]
    sampled = SeededSampling(generators, temperature=0.0)(None, scores)
    assert torch.equal(sampled.argmax(-1), scores.argmax(-1))


def test_rows_draw_from_their_own_streams():
    scores = torch.zeros(2, 50)

    def stream(seed):
        return torch.Generator().manual_seed(seed)

    both = SeededSampling([stream(1), stream(2)])(None, scores)
    alone = SeededSampling([stream(2)])(None, scores[1:])
    assert torch.equal(both[1], alone[0])
    assert not torch.equal(both[0], both[1])


def test_draws_leave_the_global_random_state_alone():
    state = torch.random.get_rng_state()
    draw(torch.zeros(4), count=3)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": "1"},
        {"min_p": 1.5},
        {"min_p": -0.1},
        {"min_p": float("nan")},
    ],
)
def test_impossible_samplings_are_refused(kwargs):
    (name,) = kwargs
    with pytest.raises(ValueError, match=f"`{name}` must be a finite number, at least 0"):
        SeededSampling([], **kwargs)


def test_sequences_are_completed_to_the_tokenizers_form():
    layout = tiny_layout("xyzb")
    # Three rows: two points, one point, and one that was stopped within its second point.
    sequences = torch.tensor(
        [
            [5, 5, 5, 5, 0, 0, 0, 3, 1, 1, 1, 4, 6],
            [5, 5, 5, 5, 2, 2, 2, 4, 6, 7, 7, 7, 7],
            [5, 5, 5, 5, 1, 2, 0, 3, 2, 2, 2, 6, 7],
        ]
    )
    states = torch.arange(12.0).view(1, 12, 1).expand(3, 12, 2)
    output = collect_points(sequences, states, layout)
    assert output.num_points.tolist() == [2, 1, 1]
    assert output.input_ids.tolist() == [
        [5, 5, 5, 5, 0, 0, 0, 3, 1, 1, 1, 4, 6, 6, 6, 6],
        [5, 5, 5, 5, 2, 2, 2, 4, 6, 6, 6, 6, 7, 7, 7, 7],
        [5, 5, 5, 5, 1, 2, 0, 3, 6, 6, 6, 6, 7, 7, 7, 7],
    ]
    assert output.token_hidden_states[0, :, :, 0].tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert output.token_hidden_states[1, 1].abs().max() == 0
    assert output.token_hidden_states[2, 0, :, 0].tolist() == [4, 5, 6, 7]


def test_empty_clouds_are_collected_too():
    sequences = torch.tensor([[5, 5, 5, 5, 6]])
    output = collect_points(sequences, torch.zeros(1, 4, 2), tiny_layout("xyzb"))
    assert output.num_points.tolist() == [0]
    assert output.input_ids.tolist() == [[5] * 4 + [6] * 4]
    assert output.token_hidden_states.shape == (1, 0, 4, 2)
