"""The shared maths: csrc/*.h and cutmix_cuda/reference.py against each other and against the oracle, bit for bit."""

import importlib.util
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from cutmix_cuda import reference
from cutmix_cuda._ops import KINDS, Kind, Partner, Placement, Sampling, Scope

from .. import helpers

MAX = 2**32 - 1
EDGE_WORDS = np.array([0, 1, 255, 256, (1 << 20) - 1, 1 << 20, 2**31 - 1, 2**31, MAX - 1, MAX], dtype=np.uint32)

seeds = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, -1, 2**32, 2**63 - 1, -(2**63)])
words = st.integers(0, MAX) | st.sampled_from(EDGE_WORDS.tolist())
shares = st.floats(0, 1, width=32) | st.sampled_from([0.0, 2.0**-149, 0.25, 1 - 2.0**-24, 1.0])
edge_floats = [0.0, -0.0, -1.0, 2.0, 1e-45, float("nan"), float("inf"), float("-inf")]
any_floats = st.floats(width=32) | st.sampled_from(edge_floats)


@st.composite
def extents(draw):
    """Height and width of an image of less than 2^31 pixels."""
    height = draw(st.integers(1, 300) | st.integers(1, 2**31 - 1))
    width = draw(st.integers(1, min(300, (2**31 - 1) // height)) | st.integers(1, (2**31 - 1) // height))
    return draw(st.permutations([height, width]))


def random_words(seed: int, count: int = 4096) -> np.ndarray:
    """Words, those at the edges among them."""
    return np.concatenate([EDGE_WORDS, np.random.default_rng(seed).integers(0, 2**32, count, dtype=np.uint32)])


def as_tensor(array) -> torch.Tensor:
    """As the reference holds words: int64."""
    return torch.from_numpy(np.atleast_1d(np.asarray(array)).astype(np.int64))


def assert_twins(from_cxx, from_reference: torch.Tensor) -> None:
    mine = np.atleast_1d(from_cxx)
    twin = from_reference.numpy()
    if mine.dtype.kind == "f":
        assert mine.dtype == twin.dtype
        mine, twin = (array.view(np.uint32 if array.itemsize == 4 else np.uint64) for array in (mine, twin))
    np.testing.assert_array_equal(mine.astype(np.int64), twin.astype(np.int64))


# ---- Random words


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [  # Random123's known answers for philox4x32 with 10 rounds
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_oracle_gives_published_philox_answers(counter, key, answer):
    numbers = [[int(word, 16) for word in text.split()] for text in (counter, key, answer)]
    assert helpers.philox4x32(*numbers[:2]) == numbers[2]


def test_all_zero_philox_answer(cxx):
    answer = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert cxx.philox(0, 0, 0, np.arange(4)).tolist() == answer
    zero = torch.zeros(1, dtype=torch.int64)
    assert [int(word) for word in reference.philox(zero, zero, 0)] == answer


@given(seeds, st.lists(words, min_size=1, max_size=8), st.integers(0, 1))
def test_philox(cxx, seed, indices, stream):
    expected = [helpers.draw_words(seed, index, stream) for index in indices]
    index = np.array(indices, dtype=np.uint32)
    mine = cxx.philox(np.uint64(seed % 2**64), index[:, None], stream, np.arange(4))
    assert mine.tolist() == expected
    twin = reference.philox(torch.tensor([seed]), as_tensor(index), stream)
    assert torch.stack(twin, dim=1).tolist() == expected


@given(words, words)
@example(MAX, MAX)
def test_mulhi(cxx, a, b):
    assert cxx.mulhi(a, b) == a * b >> 32
    # The reference has 63 bits for the product of a word and a length, which is below 2^31.
    assert int(reference.mulhi(torch.tensor(a), b >> 1)) == a * (b >> 1) >> 32


def test_unit_float(cxx):
    word = random_words(1)
    exact = (word >> 8).astype(np.float64) / 2**24
    mine = cxx.unit_float(word)
    np.testing.assert_array_equal(mine.astype(np.float64), exact)
    assert mine.min() == 0 and mine.max() == 1 - 2.0**-24
    assert_twins(mine, reference.unit_float(as_tensor(word)))


# ---- Lambda


def sorted_table(seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).random(4097, dtype=np.float32))


@given(st.integers(0, 2**32))
def test_quantile_interpolates_the_table(cxx, seed):
    table, word = sorted_table(seed), random_words(seed, 256)
    mine = cxx.quantile(table, word)
    assert mine.tolist() == [helpers.oracle_lambda(table, int(w)) for w in word]
    assert_twins(mine, reference.quantile(torch.from_numpy(table), as_tensor(word)))


@given(st.lists(any_floats, min_size=1, max_size=12), st.integers(0, 2**32))
@example(edge_floats, 0)
def test_quantile_of_any_table_is_a_share(cxx, knots, seed):
    rng = np.random.default_rng(seed)
    table = rng.choice(np.array(knots, dtype=np.float32), 4097)
    word = random_words(seed)
    mine = cxx.quantile(table, word)
    assert ((mine >= 0) & (mine <= 1)).all()
    assert_twins(mine, reference.quantile(torch.from_numpy(table), as_tensor(word)))


def test_quantile_wants_a_whole_table(cxx):
    with pytest.raises(ValueError, match="4097 knots"):
        cxx.quantile(np.zeros(4096, dtype=np.float32), np.uint32(0))


# ---- Boxes


def test_square_root_is_rounded_to_nearest(cxx):
    x = np.random.default_rng(0).random(1 << 16, dtype=np.float32)
    x[: 1 << 15] *= np.float32(2.0**-60)
    mine = cxx.sqrt_rn(x)
    # Halfway to the neighbours is 25 bits long, and its square of 50 bits is exact in float64.
    below, above = ((mine.astype(np.float64) + np.nextafter(mine, np.float32(to))) / 2 for to in (0, 2))
    assert ((below**2 <= x) & (x <= above**2)).all()
    assert_twins(mine, reference.sqrt_rn(torch.from_numpy(x)))


@pytest.mark.parametrize("placement", helpers.PLACEMENTS)
@pytest.mark.parametrize("extent", [(224, 224), (1, 2**31 - 1), (46341, 46340)])
def test_many_boxes_at_once(cxx, placement, extent):
    """Long tensors take other paths through torch than short ones."""
    words = np.random.default_rng(0).integers(0, 2**32, (2, 1 << 14), dtype=np.uint32)
    lam = np.random.default_rng(1).random(1 << 14, dtype=np.float32)
    name = {"clip": "clipped_box", "inside": "inside_box"}[placement]
    twin = getattr(reference, name)(torch.from_numpy(lam), *map(as_tensor, words), *extent)
    for edge in range(4):
        assert_twins(getattr(cxx, name)(lam, *words, *extent, edge), twin[edge])


@pytest.mark.parametrize("placement", helpers.PLACEMENTS)
@given(shares, words, words, extents())
@example(0.0, MAX, MAX, [1, 2**31 - 1])
@example(0.0, MAX, MAX, [2**31 - 1, 1])
@example(0.0, MAX, MAX, [1, 2**24 + 3])
def test_box_lies_in_the_image(cxx, placement, lam, word_x, word_y, extent):
    height, width = extent
    box_in_cxx, box_in_reference = {
        "clip": (cxx.clipped_box, reference.clipped_box),
        "inside": (cxx.inside_box, reference.inside_box),
    }[placement]
    mine = tuple(box_in_cxx(lam, word_x, word_y, height, width, np.arange(4)).tolist())
    expected = helpers.oracle_box(np.float32(lam), word_x, word_y, height, width, placement)
    assert mine == expected
    y0, x0, y1, x1 = mine
    assert 0 <= y0 <= y1 <= height and 0 <= x0 <= x1 <= width
    twin = box_in_reference(torch.tensor([lam]), as_tensor(word_x), as_tensor(word_y), height, width)
    assert tuple(int(edge) for edge in twin) == expected


@given(st.data(), extents())
def test_share_outside(cxx, data, extent):
    height, width = extent
    y0, y1 = sorted(data.draw(st.tuples(*[st.integers(0, height)] * 2)))
    x0, x1 = sorted(data.draw(st.tuples(*[st.integers(0, width)] * 2)))
    box = y0, x0, y1, x1
    mine = cxx.share_outside(*box, height, width)
    assert mine == helpers.share_left(box, height, width)
    assert 0 <= mine <= 1
    assert_twins(np.float32(mine), reference.share_outside(tuple(as_tensor(edge) for edge in box), height, width))


# ---- Partners


@pytest.mark.parametrize("rule", helpers.PARTNERS)
@given(seeds, st.integers(1, 70))
@example(0, 1)
@example(0, 2)
def test_partners(cxx, rule, seed, batch):
    reflects, shift = cxx.partner_map(Partner[rule], seed % 2**64, batch)
    index = np.arange(batch)
    mine = cxx.partner_of(reflects, shift, index, batch)
    assert np.atleast_1d(mine).tolist() == helpers.oracle_partners(rule, seed, batch)
    mapping = reference.partner_map(Partner[rule], torch.tensor([seed]), batch)
    assert_twins(mine, reference.partner_of(mapping, as_tensor(index), batch))


@pytest.mark.parametrize("batch", [*range(1, 10), 100, 101])
def test_mirror_is_uniform_over_the_others(cxx, batch):
    """Over the shifts, which are drawn uniformly, each sample meets every other once and, of an odd batch, itself."""
    shifts = batch if batch % 2 == 1 else batch - 1
    shift, index = np.indices((shifts, batch))
    for partner in (
        cxx.partner_of(True, shift, index, batch),
        reference.partner_of((True, as_tensor(shift)), as_tensor(index), batch).numpy(),
    ):
        np.testing.assert_array_equal(np.take_along_axis(np.atleast_2d(partner), partner, axis=1), index)
        met = [sorted(partner[:, i]) for i in range(batch)]
        assert met == [[j for j in range(batch) if j != i or batch % 2 == 1] for i in range(batch)]
    words = np.linspace(0, 2**32 - 1, 1000).astype(np.uint64)
    drawn = words * shifts >> 32
    assert {cxx.partner_map(Partner.mirror, seed, batch)[1] for seed in range(1000)} == set(drawn.tolist())


@pytest.mark.parametrize("rule", helpers.PARTNERS)
@given(seeds, st.integers(1, 2**30), st.lists(st.floats(0, 1), min_size=1, max_size=8))
@example(-1, 2**30, [0.0, 0.5, 1.0])
def test_partners_in_a_huge_batch(cxx, rule, seed, batch, places):
    index = np.array([round(place * (batch - 1)) for place in places])
    mine = cxx.partner_of(*cxx.partner_map(Partner[rule], seed % 2**64, batch), index, batch)
    mapping = reference.partner_map(Partner[rule], torch.tensor([seed]), batch)
    twin = reference.partner_of(mapping, as_tensor(index), batch)
    assert_twins(mine, twin)
    assert 0 <= twin.min() <= twin.max() < batch
    if rule in ("flip", "mirror"):
        assert reference.partner_of(mapping, twin, batch).tolist() == index.tolist()
        assert batch % 2 == 1 or (twin.numpy() != index).all()


@pytest.mark.parametrize("scope", helpers.SCOPES)
def test_draw_index(cxx, scope):
    index, partner = np.indices((5, 5)).reshape(2, -1)
    expected = {"sample": index, "pair": np.minimum(index, partner), "batch": 0 * index}[scope]
    np.testing.assert_array_equal(cxx.draw_index(Scope[scope], index, partner), expected)
    twin = reference.draw_index(Scope[scope], as_tensor(index), as_tensor(partner))
    np.testing.assert_array_equal(twin.numpy(), expected)


# ---- Kinds

NEEDS = {  # of each kind, in words: has_partner, has_box, reads_own, blends, mixes_target
    Kind.keep: (),
    Kind.cutmix: ("has_partner", "has_box", "mixes_target"),
    Kind.mixup: ("has_partner", "reads_own", "blends", "mixes_target"),
    Kind.cutout: ("has_box",),
}


@pytest.mark.parametrize("need", ["has_partner", "has_box", "reads_own", "blends", "mixes_target"])
def test_what_a_kind_needs(cxx, need):
    assert (cxx.kinds, len(NEEDS)) == (KINDS, KINDS + 1)
    kinds = np.arange(-1, KINDS + 2)
    expected = [kind in NEEDS and need in NEEDS[Kind(kind)] for kind in kinds.tolist()]
    assert getattr(cxx, need)(kinds).tolist() == expected
    assert getattr(reference, need)(torch.from_numpy(kinds)).tolist() == expected
    assert [getattr(reference, need)(kind) for kind in kinds.tolist()] == expected


@pytest.mark.parametrize("need", ["has_partner", "has_box", "reads_own", "blends", "mixes_target"])
def test_what_a_kind_needs_in_triton(need):
    twins = pytest.importorskip("cutmix_cuda.triton_kernels.kinds")
    assert [bool(getattr(twins, need).fn(kind)) for kind in Kind] == [need in NEEDS[kind] for kind in Kind]


@pytest.mark.parametrize("need", ["pastes", "fills"])
def test_whose_pixels_a_kind_takes(cxx, need, monkeypatch):
    """What follows from the needs above."""
    twins = pytest.importorskip("cutmix_cuda.triton_kernels.kinds")
    monkeypatch.setattr(twins, "has_partner", twins.has_partner.fn)
    monkeypatch.setattr(twins, "reads_own", twins.reads_own.fn)
    expected = [
        kind != Kind.keep and "reads_own" not in needs and ("has_partner" in needs) == (need == "pastes")
        for kind, needs in NEEDS.items()
    ]
    assert getattr(cxx, need)(np.arange(KINDS + 1)).tolist() == expected
    assert [bool(getattr(twins, need).fn(kind)) for kind in Kind] == expected


def test_which_kinds_there_are(cxx):
    kinds = np.array([-(2**31), -1, *Kind, KINDS + 1, 2**31 - 1], dtype=np.int32)
    expected = [kind in list(Kind) for kind in kinds.tolist()]
    assert cxx.is_kind(kinds).tolist() == expected
    assert reference.is_kind(torch.from_numpy(kinds)).tolist() == expected


# ---- The plan


@st.composite
def bounds(draw):
    """What a random number has to be below, in any order: bounds that do not rise give a kind no room."""
    return draw(st.tuples(shares, shares, shares) | st.floats(0, 1).map(lambda prob: (prob,) * 3))


@given(bounds(), st.lists(words, min_size=1, max_size=20))
@example((0.25, 0.5, 0.75), [0, (1 << 30) - 256, 1 << 30, (1 << 31) - 1, 1 << 31, 3 << 30, MAX])
@example((1 / 3, 1 / 3, 1 / 3), [0x55555500, 0x555555FF, 0x55555600])  # 1/3 is rounded up to float32
@example((0.0, 0.0, 1.0), [0, MAX])
def test_first_below(bounds, words):
    expected = [helpers.KINDS.index(helpers.oracle_kind(word, bounds)) for word in words]
    assert reference.first_below(bounds, torch.tensor(words)).tolist() == expected


@given(bounds(), st.integers(0, 2**32))
@example((0.25, 0.25, 1.0), 0)
@example((0.0, 0.0, 0.0), 0)
def test_can_draw(cxx, bounds, seed):
    """A kind that the bounds leave room for is drawn by some number, and no other kind is by any."""
    near = [round(bound * 2**24) + step for bound in bounds for step in (-1, 0)]
    numbers = [0, *(number for number in near if 0 <= number < 2**24)]
    drawn = {helpers.oracle_kind(number << 8, bounds) for number in numbers}
    for kind in range(1, KINDS + 1):
        room = reference.can_draw(kind, bounds)
        assert room or Kind(kind).name not in drawn
        assert cxx.can_draw(kind, bounds) == reference.can_draw(kind, np.float32(bounds).tolist())
    assert reference.may_blend(bounds) == reference.can_draw(Kind.mixup, bounds)


@st.composite
def sampling(draw):
    """The arguments of sample_plan after the tables."""
    height, width = draw(st.just([0, 7]) | st.just([7, 0]) | extents())
    choices = [draw(st.sampled_from(enum)) for enum in (Scope, Partner, Placement)]
    return draw(bounds()), Sampling(*choices, draw(st.booleans())), draw(st.integers(0, 20)), height, width


@given(seeds, st.lists(any_floats, min_size=1, max_size=12), sampling())
def test_plan_of_any_table_stays_in_the_image(cxx, seed, knots, arguments):
    tables = np.random.default_rng(0).choice(np.array(knots, dtype=np.float32), (3, 4097))
    mine = cxx.sample_plan(seed % 2**64, tables, *arguments)
    twin = reference.sample_plan(torch.tensor([seed]), torch.from_numpy(tables), *arguments)
    np.testing.assert_array_equal(mine, twin.numpy())
    *_, batch, height, width = arguments
    assert cxx.valid_rows(mine, height, width, True).all()
    lam = mine[:, 5].view(np.float32) if batch else np.zeros(0)
    assert ((lam >= 0) & (lam <= 1)).all()


@given(seeds, st.integers(0, 2**32), sampling())
@example(3, 0, ((0.3, 0.6, 0.9), Sampling(Scope.sample, Partner.mirror, Placement.clip, 1), 20, 30, 40))
@example(3, 0, ((0.3, 0.6, 0.9), Sampling(Scope.pair, Partner.flip, Placement.inside, 0), 19, 30, 40))
def test_plan_is_the_oracles(cxx, seed, table_seed, arguments):
    tables = np.stack([sorted_table(table_seed + kind) for kind in range(3)])
    bounds, sampling, batch, height, width = arguments
    scope, partner, placement, correct_lam = sampling
    names = {"scope": scope.name, "partner": partner.name, "placement": placement.name}
    plan = helpers.oracle_plan(
        seed, tables, batch, height, width, bounds=bounds, correct_lam=bool(correct_lam), **names
    )
    mine = torch.from_numpy(cxx.sample_plan(seed % 2**64, tables, *arguments))
    helpers.assert_same_bits(mine, helpers.packed(plan))


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_a_number_at_its_bound_is_not_below_it(cxx, kind):
    """Where cutmix, mixup and cutout end, each at the very number that a sample draws."""
    tables = np.stack([sorted_table(kind) for kind in range(3)])
    sampling = Sampling(Scope.sample, Partner.roll, Placement.clip, 1)
    for index in range(8):
        number = (helpers.draw_words(5, index, 1)[3] >> 8) / 2**24
        bounds = [0.0 if each < kind else number for each in (1, 2, 3)]
        plan = cxx.sample_plan(5, tables, bounds, sampling, 8, 30, 40)
        assert plan[index, 6] == 0
        bounds[kind - 1] = number + 2.0**-24
        plan = cxx.sample_plan(5, tables, bounds, sampling, 8, 30, 40)
        assert plan[index, 6] == kind


def test_the_examples_draw_every_kind(cxx):
    tables = np.stack([sorted_table(kind) for kind in range(3)])
    plan = cxx.sample_plan(3, tables, (0.3, 0.6, 0.9), (0, Partner.mirror, 0, 1), 20, 30, 40)
    assert set(plan[:, 6].tolist()) == {0, 1, 2, 3}


near = st.integers(-2, 8) | st.sampled_from([-(2**31), 2**31 - 1])
EDGE_LAMS = [0.0, -0.0, 1.0, -(2.0**-149), 1 + 2.0**-23, float("nan"), float("inf"), float("-inf")]
rows_near = st.tuples(*[near] * 5, st.floats(0, 1, width=32) | st.sampled_from(EDGE_LAMS), near, near)


@given(st.lists(rows_near, min_size=1, max_size=8), st.integers(0, 6), st.integers(0, 6))
@example([(0, 0, 0, 3, 4, 0.0, 1, 0), (2, 0, 0, 0, 0, 0.0, 0, 0)], 3, 4)
@example([(0, 0, 0, 3, 4, 0.5, 2, 0), (0, 0, 0, 4, 4, 0.0, 1, 0)], 3, 4)
@example([(0, 0, 0, 0, 0, lam, 1, 0) for lam in EDGE_LAMS], 3, 4)
@example([(0, 0, 0, 3, 4, 1.0, kind, 0) for kind in range(-1, 5)], 3, 4)
def test_valid_rows(cxx, rows, height, width):
    plan = np.array([[*row[:5], np.float32(row[5]).view(np.int32), *row[6:]] for row in rows], dtype=np.int32)
    for can_blend in (False, True):
        expected = [
            0 <= partner < len(rows)
            and 0 <= y0 <= y1 <= height
            and 0 <= x0 <= x1 <= width
            and 0 <= lam <= 1
            and kind in ((0, 1, 2, 3) if can_blend else (0, 1, 3))
            for partner, y0, x0, y1, x1, lam, kind, _ in rows
        ]
        assert cxx.valid_rows(plan, height, width, can_blend).tolist() == expected
        assert reference.valid_rows(torch.from_numpy(plan), height, width, can_blend).tolist() == expected


# ---- Targets


@given(st.floats(0, 1), st.integers(0, 2**40))
def test_smoothing(cxx, smoothing, num_classes):
    scale, off, on = cxx.smoothing_of(smoothing, num_classes)
    assert (scale, off, on) == reference.smoothing_of(smoothing, num_classes)
    assert scale == 1 - smoothing
    assert off == (smoothing / num_classes if num_classes else 0)
    assert on == 1 - smoothing + off


# ---- Mixed values


@pytest.mark.parametrize("real", [np.float32, np.float64])
@given(st.lists(st.tuples(shares, any_floats, any_floats), min_size=1, max_size=20))
@example([(0.0, 2.0, 3.0), (1.0, 2.0, 3.0), (0.1, 0.1, 0.2), (0.5, 3e38, 3e38), (0.3, -0.0, 0.0)])
def test_mixed_value(cxx, real, values):
    lam, own, partner = np.array(values).T
    lam, own, partner = lam.astype(np.float32), own.astype(real), partner.astype(real)
    mine = getattr(cxx, f"mixed_value_{real.__name__}")(lam, own, partner)
    weight = lam.astype(real)
    with np.errstate(all="ignore"):
        expected = weight * own + (real(1) - weight) * partner
    assert mine.dtype == real
    np.testing.assert_array_equal(mine, expected)
    np.testing.assert_array_equal(np.signbit(mine)[mine == 0], np.signbit(expected)[expected == 0])
    twin = reference.mixed_value(*(torch.from_numpy(array) for array in (weight, own, partner)))
    np.testing.assert_array_equal(twin.numpy(), expected)


def test_float_to_uint8(cxx):
    """To nearest, ties to even, for all that a blend of bytes can give."""
    halves = np.arange(511, dtype=np.float32) / 2
    around = [np.nextafter(halves, np.float32(to)) for to in (0, 255)]
    value = np.concatenate([halves, *around, np.random.default_rng(0).random(1 << 14, dtype=np.float32) * 255])
    np.testing.assert_array_equal(cxx.float_to_uint8(value), np.rint(value))


BLENDED = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", BLENDED, ids=str)
@given(shares, st.integers(0, 2**32))
def test_computed(dtype, lam, seed):
    own, partner = (helpers.random_images((64,), dtype, seed=seed + k) for k in range(2))
    mine = reference.computed(Kind.mixup, torch.tensor([lam]), own, partner)
    expected = helpers.oracle_blend(np.float32(lam), own, partner)
    torch.testing.assert_close(mine, expected, rtol=0, atol=0, equal_nan=True)
    assert mine.dtype == dtype


# ---- Half precision


def same_numbers(mine: np.ndarray, expected: torch.Tensor) -> bool:
    """Bits are equal, except those of NaNs."""
    bits = {2: np.uint16, 4: np.uint32}[expected.element_size()]
    both_nan = np.isnan(mine_as_float(mine, expected.dtype)) & expected.isnan().numpy()
    integer = {2: torch.int16, 4: torch.int32}[expected.element_size()]
    return bool(((mine.view(bits) == expected.view(integer).numpy().view(bits)) | both_nan).all())


def mine_as_float(mine: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    return torch.from_numpy(mine.view(np.int16 if dtype.itemsize == 2 else np.int32)).view(dtype).float().numpy()


HALVES = [("half", torch.float16), ("bfloat16", torch.bfloat16)]


@pytest.mark.parametrize(("name", "dtype"), HALVES)
def test_every_half_as_float(cxx, name, dtype):
    every = np.arange(1 << 16, dtype=np.uint16)
    expected = torch.from_numpy(every.view(np.int16)).view(dtype).float()
    mine = getattr(cxx, f"{name}_to_float")(every)
    assert same_numbers(mine, expected)
    back = getattr(cxx, f"float_to_{name}")(mine)
    assert (back == every)[~np.isnan(mine)].all()


@pytest.mark.parametrize(("name", "dtype"), HALVES)
def test_float_rounds_to_half_as_in_torch(cxx, name, dtype):
    # Every half, the midpoint to the next one, and the floats on either side of both: all places where rounding turns.
    halves = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype).float().numpy()
    halves = np.sort(halves[np.isfinite(halves)])
    beyond = 2 * np.abs(halves).max().astype(np.float64) - np.unique(np.abs(halves))[-2]  # where infinity begins
    ladder = np.concatenate([[-beyond], halves, [beyond]])
    with np.errstate(over="ignore"):
        turns = np.concatenate([ladder, (ladder[1:] + ladder[:-1]) / 2]).astype(np.float32)
    around = [np.nextafter(turns, np.float32(to)) for to in (-np.inf, np.inf)]
    anything = np.random.default_rng(0).integers(0, 2**32, 1 << 16, dtype=np.uint32).view(np.float32)
    value = np.concatenate([turns, *around, anything, np.array(edge_floats, dtype=np.float32)])
    mine = getattr(cxx, f"float_to_{name}")(value)
    assert same_numbers(mine, torch.from_numpy(value).to(dtype))
    assert set(mine[np.isnan(value)]) == {{"half": 0x7E00, "bfloat16": 0x7FC0}[name]}, "one NaN for all of them"


# ---- Rows


@st.composite
def views(draw):
    """A view of a tensor whose elements are their own addresses: permuted, sliced, stepped, expanded."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=3, max_size=6))
    view = torch.arange(int(np.prod(sizes))).reshape(sizes).permute(draw(st.permutations(range(len(sizes)))))
    for dim, size in enumerate(view.shape):
        if size == 1 and draw(st.booleans()):
            view = view.expand([draw(st.integers(1, 3)) if d == dim else -1 for d in range(view.dim())])
        elif draw(st.integers(0, 3)) == 0:
            start = draw(st.integers(0, size - 1))
            view = view.narrow(dim, start, draw(st.integers(1, size - start)))
    return view


LAYOUTS = {
    "NCHW": torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5),
    "channels-last": torch.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3).permute(0, 3, 1, 2),
    "masks": torch.arange(2 * 4 * 5).reshape(2, 4, 5),
    "video": torch.arange(2 * 2 * 3 * 4 * 5).reshape(2, 2, 3, 4, 5),
    "video, channels first": torch.arange(2 * 3 * 2 * 4 * 5).reshape(2, 3, 2, 4, 5).transpose(1, 2),
    "volumes, channels-last": torch.arange(2 * 2 * 4 * 5 * 3).reshape(2, 2, 4, 5, 3).permute(0, 4, 1, 2, 3),
    "video, channels-last": torch.arange(2 * 2 * 4 * 5 * 3).reshape(2, 2, 4, 5, 3).permute(0, 1, 4, 2, 3),
    "a crop": torch.arange(2 * 3 * 9 * 9).reshape(2, 3, 9, 9)[..., 2:6, 3:8],
    "a crop, channels-last": torch.arange(2 * 9 * 9 * 3).reshape(2, 9, 9, 3).permute(0, 3, 1, 2)[..., 2:6, 3:8],
    "every other sample": torch.arange(4 * 3 * 4 * 5).reshape(4, 3, 4, 5)[::2],
    "one channel": torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)[:, 1:2],
    "one sample for all": torch.arange(3 * 4 * 5).reshape(1, 3, 4, 5).expand(6, 3, 4, 5),
    "one pixel wide": torch.arange(2 * 3 * 4).reshape(2, 3, 4, 1),
    "upside down rows": torch.arange(2 * 3 * 4 * 5).reshape(2, 4, 3, 5).transpose(1, 2),
}


def grid_of(steps: Iterable[tuple[int, int]]) -> np.ndarray:
    """The address at each index of a grid, of (count, stride) a dimension."""
    grid = np.zeros((), dtype=np.int64)
    for count, stride in steps:
        grid = grid[..., None] + np.arange(count) * stride
    return grid


def row_addresses(rows: dict, element_bytes: int) -> np.ndarray:
    """The address, in elements, of (sample, slice, row, pixel, element of the pixel)."""
    steps = [
        (rows["batch"], rows["sample_stride"]),
        (rows["slices"], rows["slice_stride"]),
        (rows["height"], rows["row_stride"]),
        (rows["width"], rows["pixel_bytes"]),
        (rows["pixel_bytes"] // element_bytes, element_bytes),
    ]
    grid = grid_of(steps)
    assert (grid % element_bytes == 0).all()
    return grid // element_bytes


def by_pixel(tensor: torch.Tensor) -> np.ndarray:
    """(batch, ..., height, width) as (batch, height, width, everything between), sorted along the last."""
    batch, *_, height, width = tensor.shape
    return np.sort(tensor.reshape(batch, -1, height, width).permute(0, 2, 3, 1).numpy(), axis=-1)


def assert_rows_cover(rows: dict, view: torch.Tensor, element_bytes: int) -> None:
    """Every pixel of the rows is made of the elements of that pixel of the view."""
    start = int(view.flatten()[0])
    grid = row_addresses(rows, element_bytes)
    batch, _, height, width, _ = grid.shape
    pixels = np.sort(grid.transpose(0, 2, 3, 1, 4).reshape(batch, height, width, -1), axis=-1)
    np.testing.assert_array_equal(pixels, by_pixel(view) - start)
    run = grid[0].reshape(-1)
    assert rows["dense"] == bool((run == np.arange(run.size)).all())
    assert not rows["empty"]


@pytest.mark.parametrize("view", LAYOUTS.values(), ids=LAYOUTS)
def test_common_layouts_are_rows(cxx, view):
    rows = cxx.rows_of(view.shape, view.stride(), 2)
    assert rows is not None
    assert_rows_cover(rows, view, 2)


@given(views(), st.sampled_from([1, 2, 4, 8, 16]))
def test_rows_of_any_view(cxx, view, element_bytes):
    rows = cxx.rows_of(view.shape, view.stride(), element_bytes)
    if rows is not None:
        assert_rows_cover(rows, view, element_bytes)
    elif view.is_contiguous():
        raise AssertionError("contiguous images are rows")


@given(views(), st.sampled_from([1, 2, 4, 8, 16]))
@example(LAYOUTS["upside down rows"], 4)
def test_channels_of_any_view(cxx, view, element_bytes):
    """Their place among rows says which of them an element is of, in C++ and in Triton's twin."""
    rows = cxx.rows_of(view.shape, view.stride(), element_bytes) if view.dim() >= 4 else None
    if rows is None or len(view.unique()) != view.numel():  # an element of several channels
        return
    in_pixel, step = cxx.channel_place(view.shape, view.stride(), element_bytes)
    channels = view.shape[1]
    of_address = np.zeros(int(view.max()) + 1, dtype=np.int64)
    of_address[view.numpy()] = np.arange(channels).reshape(1, -1, *[1] * (view.dim() - 2))
    grid = row_addresses(rows, element_bytes) + int(view.flatten()[0])
    of_slice, of_byte = np.arange(grid.shape[1])[:, None], np.arange(grid.shape[4])[None] * element_bytes
    found = (of_byte if in_pixel else of_slice) // step % channels
    np.testing.assert_array_equal(of_address[grid], np.broadcast_to(found[:, None, None], grid.shape))
    if importlib.util.find_spec("triton") is not None:
        from cutmix_cuda.triton_kernels.rows import channel_place, rows_of

        dtype = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}[element_bytes]
        tensor = torch.empty_strided(view.shape, view.stride(), dtype=dtype)
        there = rows_of(tensor)
        assert there is not None and channel_place(tensor, there) == (in_pixel, step)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)])
def test_rows_of_nothing(cxx, shape):
    rows = cxx.rows_of(shape, torch.empty(shape).stride(), 4)
    assert rows["empty"]
    assert (rows["batch"], rows["height"], rows["width"]) == (shape[0], *shape[-2:])


@pytest.mark.parametrize("dims", [2, 9])
def test_rows_have_three_to_eight_dimensions(cxx, dims):
    assert cxx.rows_of([1] * dims, [1] * dims, 4) is None


@given(st.lists(st.integers(1, 3), min_size=4, max_size=6), st.data())
@example([2, 2, 3, 4, 5], None)
def test_same_order_means_the_same_elements(cxx, sizes, data):
    dims = len(sizes)

    def drawn(order):
        """A dense tensor of these sizes whose dimensions lie in memory in this order."""
        return torch.empty([sizes[d] for d in order]).permute(np.argsort(order).tolist())

    if data is None:
        orders = [[0, 1, 2, 3, 4], [0, 2, 1, 3, 4]]
    else:
        orders = [data.draw(st.permutations(range(dims))) for _ in range(2)]
    tensors = [drawn(order) for order in orders]
    rows = [cxx.rows_of(tensor.shape, tensor.stride(), 1) for tensor in tensors]
    shape = ("batch", "slices", "height", "width", "pixel_bytes")
    if None in rows or any(rows[0][name] != rows[1][name] for name in shape):
        return

    def elements(tensor, row):
        """Which element, counted in logical order, each place of the rows holds."""
        held = np.empty(tensor.numel(), dtype=np.int64)
        held[grid_of(zip(tensor.shape, tensor.stride(), strict=True)).reshape(-1)] = np.arange(tensor.numel())
        return held[row_addresses(row, 1)]

    same = bool((elements(tensors[0], rows[0]) == elements(tensors[1], rows[1])).all())
    assert cxx.same_order(sizes, tensors[0].stride(), tensors[1].stride()) == same
