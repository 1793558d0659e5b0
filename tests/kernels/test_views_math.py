"""The maths of views: csrc/views.h and cutmix_cuda/reference_augment.py against each other and the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cutmix_cuda import reference, reference_augment
from cutmix_cuda._ops import ViewChoices, ViewParameters

from ..oracle_augment import DrawnViews, oracle_coloured, oracle_noise, oracle_view, packed_views, words_at
from .test_math import MAX, any_floats, as_tensor, assert_twins, edge_floats, random_words, seeds, sorted_table, words


@given(seeds, words, st.integers(0, 5), words, words)
def test_philox_at_any_counter(cxx, seed, index, stream, position, group):
    expected = words_at(seed, index, stream, position, group)
    assert cxx.philox_at(seed % 2**64, index, stream, position, group, np.arange(4)).tolist() == expected
    twin = reference.philox(torch.tensor([seed]), torch.tensor([index]), stream, position, group)
    assert [int(word) for word in twin] == expected


@given(st.integers(0, 2**31 - 1), st.lists(words, min_size=1, max_size=8))
@example(2**31 - 1, [0, MAX])
@example(0, [0, MAX])
def test_offset_within(cxx, most, words):
    expected = [(word * (2 * most + 1) >> 32) - most for word in words]
    assert cxx.offset_within(most, np.array(words, dtype=np.uint32)).tolist() == expected
    assert reference_augment.offset_within(most, torch.tensor(words)).tolist() == expected
    assert all(-most <= offset <= most for offset in expected)


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("offset", [-9, -1, 0, 3])
def test_sources(cxx, flip, offset):
    """The source of a crop of a padded row is a slice of it."""
    width, pad = 7, 9
    padded = np.arange(-pad, width + pad)
    crop = padded[pad + offset : pad + offset + width]
    expected = (crop[::-1] if flip else crop).tolist()
    assert cxx.source_x(flip, offset, np.arange(width), width).tolist() == expected
    one = torch.tensor([offset])
    assert reference_augment.source_x(torch.tensor([flip]), one, width).tolist() == [expected]
    assert cxx.source_y(offset, np.arange(width)).tolist() == crop.tolist()
    assert reference_augment.source_y(one, width).tolist() == [crop.tolist()]


@given(st.lists(any_floats, min_size=1, max_size=8))
@example([0.5, 1.5, 2.5, 0.49999997, 2.0**30, 2.0**31, 2.0**23 - 0.5, 3.4e38, *edge_floats])
def test_nearest_int(cxx, numbers):
    numbers = np.array(numbers, dtype=np.float32)
    expected = [0 if not number > 0 else round(min(float(number), 2.0**30)) for number in numbers]
    assert cxx.nearest_int(numbers).tolist() == expected
    assert reference_augment.nearest_int(torch.from_numpy(numbers)).tolist() == expected


# ---- Drawing


@st.composite
def drawn_views(draw):
    low, high = sorted(draw(st.tuples(*[st.floats(0, 1, width=32)] * 2)))
    least, most = sorted(draw(st.tuples(*[st.integers(0, 3)] * 2)))
    probability = st.floats(0, 1) | st.sampled_from([0.0, 1.0])
    translate = st.integers(0, 9) | st.just(2**31 - 1)
    factors = st.tuples(*[st.floats(0, 4, width=32)] * 2)
    return DrawnViews(
        flip=draw(probability),
        erase=draw(probability),
        area=(low, high),
        max_aspect=draw(st.floats(0.125, 64, width=32)),
        translate=(draw(translate), draw(translate)),
        boxes=(least, most),
        first_erased=draw(st.integers(0, 3)),
        brightness=draw(factors),
        contrast=draw(factors),
        saturation=draw(factors),
        grey=draw(probability),
        coloured=draw(st.integers(0, 1)),
    )


def draw_twins(cxx, seed: int, batch: int, height: int, width: int, table: np.ndarray, how: DrawnViews) -> torch.Tensor:
    mine = cxx.sample_views(seed % 2**64, batch, height, width, table[None], how.parameters, how.choices)
    tables = torch.from_numpy(table)[None]
    twin = reference_augment.sample_views(
        torch.tensor([seed]), batch, height, width, tables, None, how.parameters, how.choices
    )
    np.testing.assert_array_equal(mine, twin.numpy())
    others, colours = reference_augment.parted(twin, bool(how.coloured))
    assert reference_augment.valid_views(others, height, width).all()
    assert (colours is None) == (not how.coloured)
    return twin


@given(seeds, st.integers(0, 9), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99), drawn_views())
@example(1, 9, 32, 32, 0, DrawnViews(0.5, 0.7, (0.02, 0.33), 3.3, (4, 2), (1, 3), 2))
@example(1, 3, 5, 7, 0, DrawnViews(0.5, 1.0, (1.0, 1.0), 1.0, (9, 9), (1, 1)))
def test_drawn_views_are_the_oracles(cxx, seed, batch, height, width, table_seed, how):
    table = sorted_table(table_seed)
    table = np.maximum(table, np.float32(0.1))
    twin = draw_twins(cxx, seed, batch, height, width, table, how)
    expected = [oracle_view(how, table, height, width, seed, i) for i in range(batch)]
    assert twin.tolist() == packed_views(expected, how.boxes[1]).tolist()


@pytest.mark.parametrize("extent", [(0, 5), (6, 0), (1, 1), (7, 4), (1, 2**31 - 1), (2**15, 2**15)])
@given(seeds, st.lists(any_floats, min_size=1, max_size=8), drawn_views(), any_floats)
@example(0, edge_floats, DrawnViews(0.5, 1.0, (0.0, 1.0), 1.0, (1, 1), (2, 2)), 1.0)
@settings(max_examples=15)
def test_views_of_any_table_stay_in_the_image(cxx, extent, seed, knots, how, max_aspect):
    table = np.random.default_rng(0).choice(np.array(knots, dtype=np.float32), 4097)
    draw_twins(cxx, seed, 3, *extent, table, how._replace(max_aspect=max_aspect))


def test_a_box_takes_the_first_try_that_fits(cxx):
    """Of an area of which about half of the aspects fit, so that several tries are needed now and then."""
    how = DrawnViews(erase=1.0, area=(0.5, 0.5), max_aspect=10.0, boxes=(1, 1))
    table = (np.geomspace(0.1, 10, 4097) / 10).astype(np.float32)
    views = draw_twins(cxx, 3, 300, 20, 20, table, how)
    attempts = []
    drawn_by = ViewParameters(*how.parameters), torch.from_numpy(table), 20, 20, torch.tensor([3]), torch.arange(300)
    fits, boxes = zip(
        *(reference_augment.try_box(*drawn_by, attempt, torch.ones(300)) for attempt in range(10)), strict=True
    )
    for i in range(300):
        first = next((attempt for attempt in range(10) if fits[attempt][i]), None)
        attempts.append(first)
        assert views[i, 1].tolist() == ([0, 0, 0, 0] if first is None else boxes[first][i].tolist())
    assert {0, 1, 2, 3} <= set(attempts)


near = st.integers(-3, 8) | st.sampled_from([-(2**31), 2**31 - 1])


@given(st.lists(st.tuples(*[near] * 8), min_size=1, max_size=6), st.integers(0, 6), st.integers(0, 6))
@example([(0, -3, 4, 9, 0, 0, 3, 4), (1, 3, -4, 0, 3, 4, 3, 4), (2, 0, 0, 0, 0, 0, 0, 0)], 3, 4)
@example([(0, -4, 0, 0, 0, 0, 0, 0), (0, 0, 5, 0, 0, 0, 0, 0), (0, 0, 0, 0, 2, 0, 1, 0)], 3, 4)
def test_valid_views(cxx, rows, height, width):
    def valid(flip, dy, dx, _, y0, x0, y1, x1):
        inside = 0 <= y0 <= y1 <= height and 0 <= x0 <= x1 <= width
        return flip in (0, 1) and -height <= dy <= height and -width <= dx <= width and inside

    views = torch.tensor(rows, dtype=torch.int32).reshape(-1, 2, 4)
    expected = [valid(*row) for row in rows]
    assert reference_augment.valid_views(views, height, width).tolist() == expected
    flip, dy, dx, _, *box = np.array(rows, dtype=np.int64).T
    mine = cxx.valid_view(flip, dy, dx, height, width) & cxx.valid_box(*box, height, width)
    assert np.atleast_1d(mine).tolist() == expected


# ---- Values


@given(st.lists(st.tuples(*[any_floats] * 3), min_size=1, max_size=8), st.tuples(*[any_floats] * 4))
@example([(255.0, 0.0, 124.0), (0.0, 0.0, 0.0)], (1.0, 0.0, 0.0, 0.0))
@example([(255.0, 0.0, 124.0)], (-1.0, 0.0, 0.0, 0.0))
@example([(255.0, 0.0, 124.0)], (float("nan"), float("inf"), -float("inf"), 0.0))
@pytest.mark.parametrize("white", [1.0, 255.0])
def test_coloured_value(cxx, white, pixels, row):
    """In 0..white, whatever the matrix, and exactly what it was by that of the identity."""
    raw = np.array(pixels, dtype=np.float32).T
    with np.errstate(all="ignore"):
        expected = oracle_coloured(np.ascontiguousarray(raw), np.array([row] * 3, dtype=np.float32), white)[0]
    mine = np.atleast_1d(cxx.coloured_value(*np.array(row, dtype=np.float32), *raw, white))
    twin = reference_augment.coloured_value(torch.tensor(row), *torch.from_numpy(raw), white).numpy()
    for value in (mine, twin):
        assert ((value >= 0) & (value <= white)).all()
        assert not np.signbit(value).any()
        np.testing.assert_array_equal(value, expected)


def test_factors_of_one_leave_every_byte(cxx):
    matrix = reference_augment.colour_matrix(*torch.ones(3, 2))
    assert torch.equal(matrix, torch.eye(3, 4).expand(2, 3, 4))
    every = np.arange(256, dtype=np.float32)
    assert cxx.coloured_value(1.0, 0.0, 0.0, 0.0, every, every[::-1], 7.0, 255.0).tolist() == every.tolist()


@given(st.lists(any_floats, min_size=1, max_size=8), any_floats, any_floats)
@example([255.0, 0.0, 124.0], 123.675, 0.017124753)
def test_normalized(cxx, raw, mean, scale):
    raw = np.array(raw, dtype=np.float32)
    with np.errstate(all="ignore"):
        expected = (raw - np.float32(mean)) * np.float32(scale)
    for twin in (
        np.atleast_1d(cxx.normalized(raw, mean, scale)),
        reference_augment.normalized(torch.from_numpy(raw), *map(torch.tensor, (mean, scale))).numpy(),
    ):
        np.testing.assert_array_equal(twin, expected)


def test_noise_is_the_oracles(cxx):
    index, position, channel = np.meshgrid([0, 3, 7], [0, 1, 2**31 - 1], np.arange(9), indexing="ij")
    mine = cxx.noise(5, index, position, channel)
    expected = [
        oracle_noise(5, int(i), int(p), int(c)) for i, p, c in zip(index.flat, position.flat, channel.flat, strict=True)
    ]
    assert mine.ravel().tolist() == [float(number) for number in expected]
    twin = reference_augment.noise(torch.tensor([5]), as_tensor(index[..., 0]), as_tensor(position[..., 0]), 9)
    assert_twins(mine, twin)


def test_noise_is_nearly_normal(cxx):
    """Against every value of the sum of four bytes with its exact probability, and the normal distribution."""
    ways = np.ones(1, dtype=object)
    for _ in range(4):
        ways = np.convolve(ways, np.ones(256, dtype=object))
    probability = np.array(ways, dtype=np.float64) / 2.0**32
    values = (np.arange(1021) - 510) / math.sqrt(21845)
    assert abs(probability @ values) < 1e-12 and abs(probability @ values**2 - 1) < 1e-12
    normal = np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in values])
    distances = np.abs(np.stack([probability.cumsum(), probability.cumsum() - probability]) - normal)
    assert distances.max() < 0.0084 and values.max() < 3.4507

    word = random_words(2, 1 << 16)
    numbers = cxx.noise_of(word)
    assert_twins(numbers, reference_augment.noise_of(as_tensor(word)))
    assert set(np.round(numbers.astype(np.float64) * math.sqrt(21845)).astype(int)) <= set(range(-510, 511))
    assert abs(numbers.mean()) < 4 / 256 and abs(numbers.std() - 1) < 4 / 256 / math.sqrt(2)


def test_the_lists_have_the_lengths_of_their_names(cxx):
    assert len(DrawnViews().parameters) == len(ViewParameters._fields)
    assert len(DrawnViews().choices) == len(ViewChoices._fields)
    with pytest.raises(ValueError, match="12 parameters"):
        cxx.sample_views(0, 1, 4, 4, np.zeros((1, 4097), np.float32), [0.0] * 11, [0] * 6)
