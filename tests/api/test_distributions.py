"""The law of lambda: tables against scipy, and drawn values against the law."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import scipy.special
import torch

import cutmix_cuda
from cutmix_cuda import reference
from cutmix_cuda.distributions import Beta, Constant, Distribution, Uniform, as_distribution, quantiles

ALPHAS = (0.01, 0.2, 0.5, 1.0, 2.0, 8.0)
LAWS: dict[str, Distribution] = {f"alpha={alpha}": Beta(alpha, alpha) for alpha in ALPHAS}
LAWS |= {"Beta(2, 5)": Beta(2, 5), "Beta(30, 1)": Beta(30, 1)}
LAWS |= {"Uniform()": Uniform(), "Uniform(0.2, 0.7)": Uniform(0.2, 0.7)}

every_law = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)


def cdf(law: Distribution, x: np.ndarray) -> np.ndarray:
    """The exact distribution function; for a beta law scipy's forward function, where the package uses the inverse."""
    x = np.clip(x.astype(np.float64), 0, 1)
    if isinstance(law, Beta):
        return scipy.special.betainc(law.a, law.b, x)
    assert isinstance(law, Uniform)
    return np.clip((x - law.lo) / (law.hi - law.lo), 0, 1)


def next_float(x: np.ndarray, to: float, steps: int = 1) -> np.ndarray:
    for _ in range(steps):
        x = np.nextafter(x, np.float32(to))
    return x


def tables_of(*distributions: float | Distribution | None) -> np.ndarray:
    """Of cutmix, mixup and cutout, in this order."""
    return quantiles(distributions, torch.device("cpu")).numpy()


def table_of(law: Distribution) -> np.ndarray:
    return tables_of(law)[0]


@every_law
def test_table_is_exact_at_its_knots(law):
    """Each knot is the float32 nearest to the quantile, or its neighbour: the law says so, not another inverse."""
    table, probability = table_of(law), np.arange(4097) / 4096
    assert table.dtype == np.float32 and table.shape == (4097,)
    rounding = 1e-9  # of scipy's betainc, relative to 1
    assert (cdf(law, next_float(table, -1)) <= probability + rounding).all()
    assert (cdf(law, next_float(table, 2)) >= probability - rounding).all()


@pytest.mark.parametrize("a", [1e-300, 1e-3, 0.1, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("b", [1e-300, 1e-3, 0.1, 1.0, 10.0, 1e3])
def test_table_of_any_beta_law_rises_from_share_to_share(a, b):
    table = table_of(Beta(a, b))
    assert ((table >= 0) & (table <= 1)).all()
    assert (np.diff(table) >= 0).all()


def test_uniform_table_has_no_rounding():
    np.testing.assert_array_equal(table_of(Beta(1, 1)), np.arange(4097, dtype=np.float32) / 4096)
    np.testing.assert_array_equal(table_of(Uniform()), table_of(Beta(1, 1)))


@every_law
def test_between_knots_the_cdf_is_off_by_less_than_one_interval(law):
    word = np.random.default_rng(0).integers(0, 2**32, 1 << 16)
    value = reference.quantile(torch.from_numpy(table_of(law)), torch.from_numpy(word)).numpy()
    # A float32 stands for all reals that round to it, and three roundings make it: two neighbours either way.
    probability = word / 2**32
    assert (cdf(law, next_float(value, -1, steps=2)) <= probability + 1 / 4096).all()
    assert (cdf(law, next_float(value, 2, steps=2)) >= probability - 1 / 4096).all()


def test_a_uniform_law_is_exact_between_knots_too():
    word = np.random.default_rng(0).integers(0, 2**32, 1 << 16)
    value = reference.quantile(torch.from_numpy(table_of(Beta(1, 1))), torch.from_numpy(word)).numpy()
    assert np.abs(value - word / 2**32).max() <= 2.0**-24


def drawn_lambdas(alpha, count: int = 1 << 18, seed: int = 2026) -> np.ndarray:
    """lambda before any correction, from one big batch."""
    plan = cutmix_cuda.sample_plan(count, 4, 4, alpha=alpha, partner="roll", correct_lam=False, seed=seed)
    assert (plan.kind == 1).all()
    return plan.lam.numpy()


def distance(law: Distribution, sample: np.ndarray) -> float:
    """The Kolmogorov-Smirnov distance to the law rounded to float32: a small alpha has heavy atoms at 0 and 1."""
    value, count = np.unique(sample, return_counts=True)
    midpoint = (value.astype(np.float64) + next_float(value, 2).astype(np.float64)) / 2
    return float(np.abs(np.cumsum(count) / len(sample) - cdf(law, midpoint)).max())


# Dvoretzky, Kiefer, Wolfowitz and Massart: a right sampler is farther from its law than this once in a million seeds.
# The table may add one interval.
SAMPLES = 1 << 18
THRESHOLD = math.sqrt(math.log(2 / 1e-6) / (2 * SAMPLES)) + 1 / 4096


@every_law
def test_drawn_lambda_follows_the_law(law):
    assert distance(law, drawn_lambdas(law, SAMPLES)) < THRESHOLD


@pytest.mark.parametrize(("alpha", "percent"), [(0.2, 1.6), (0.1, 9.0), (0.05, 21), (0.01, 42)])
def test_rounding_to_float32_makes_ones_of_what_is_nearly_one(alpha, percent):
    """As many as documented: 1 - 2^-25 is halfway between 1 and the float32 below it."""
    expected = 1 - scipy.special.betainc(alpha, alpha, 1 - 2.0**-25)
    assert round(100 * expected, 1 if percent < 10 else None) == percent
    words = torch.arange(0, 2**32, 2**12 + 1)  # of every interval of the table, at every place in it
    quantiles_of_words = reference.quantile(torch.from_numpy(table_of(Beta(alpha, alpha))), words)
    assert abs((quantiles_of_words == 1).double().mean() - expected) < 1 / 4096
    plan = cutmix_cuda.sample_plan(SAMPLES, 64, 64, alpha=alpha, partner="roll", correct_lam=False, seed=2026)
    ones = plan.lam == 1
    assert abs(ones.double().mean() - expected) < THRESHOLD
    y0, x0, y1, x1 = plan.boxes[ones].unbind(1)
    assert ((y0 == y1) | (x0 == x1)).all()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_number_means_symmetric_beta(alpha):
    assert as_distribution(alpha) == Beta(alpha, alpha)
    np.testing.assert_array_equal(drawn_lambdas(alpha, 1000), drawn_lambdas(Beta(alpha, alpha), 1000))


def test_distance_tells_neighbouring_laws_apart():
    """The threshold is tight enough: alpha off by a twentieth is seen."""
    for alpha in ALPHAS:
        assert distance(Beta(alpha * 1.05, alpha), drawn_lambdas(alpha, SAMPLES)) > THRESHOLD


@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_constant(x):
    assert (drawn_lambdas(Constant(x), 1000) == np.float32(x)).all()


def test_uniform_keeps_to_its_bounds():
    lam = drawn_lambdas(Uniform(0.25, 0.5))
    assert 0.25 <= lam.min() < 0.2501 and 0.4999 < lam.max() <= 0.5


def test_own_distribution():
    class Square(Distribution):
        """P(lambda <= x) = sqrt(x)."""

        def inverse_cdf(self, probability):
            return probability**2

    lam = np.sort(drawn_lambdas(Square(), SAMPLES))
    assert np.abs(np.sqrt(lam) - np.arange(SAMPLES) / SAMPLES).max() < THRESHOLD


def quantiles_as(function) -> Distribution:
    """A distribution whose inverse_cdf is a function, right or wrong."""

    class Own(Distribution):
        def inverse_cdf(self, probability):
            return function(probability)

        def __repr__(self):
            return "Own()"

    return Own()


WRONG_QUANTILES = {
    "a scalar": (lambda p: 0.5, r"return an array of the shape of its argument, \(4097,\), got \(\)"),
    "too few": (lambda p: p[1:], r"return an array of the shape of its argument, \(4097,\), got \(4096,\)"),
    "a column": (lambda p: p[:, None], r"return an array of the shape of its argument, \(4097,\), got \(4097, 1\)"),
    "NaN": (lambda p: np.where(p == 0.5, math.nan, p), "be finite, got nan at probability 0.5"),
    "infinite": (lambda p: np.where(p == 1, math.inf, p), "be finite, got inf at probability 1.0"),
    "below 0": (lambda p: p - 0.25, r"stay in \[0, 1\], got -0.25 at probability 0.0"),
    "above 1": (lambda p: 1.5 * p, r"stay in \[0, 1\], got 1.00012\d* at probability 0.6667"),
    "falling": (lambda p: 1 - p, r"not decrease, got 0.99975\d* at probability 0.00024"),
    "a dent": (lambda p: np.where(p == 0.5, 0.25, p), "not decrease, got 0.25 at probability 0.5"),
}


@pytest.mark.parametrize(("function", "message"), WRONG_QUANTILES.values(), ids=WRONG_QUANTILES)
def test_own_distribution_must_be_one(function, message):
    for how in ({"cutmix_alpha": quantiles_as(function)}, {"cutout": 1.0, "cutout_area": quantiles_as(function)}):
        with pytest.raises(ValueError, match=rf"^inverse_cdf of Own\(\) must {message}"):
            cutmix_cuda.mix(torch.zeros(2, 4, 4), seed=0, **how)


def test_own_distribution_may_round():
    """What float64 arithmetic leaves of [0, 1] is put back; a list, a float32 array or a tensor will do."""
    for function in (
        lambda p: p * (1 + 2.0**-52),
        lambda p: p.tolist(),
        lambda p: p.astype(np.float32),
        lambda p: torch.from_numpy(p),
    ):
        np.testing.assert_array_equal(table_of(quantiles_as(function)), table_of(Uniform()))


def test_own_distribution_must_be_hashable():
    @dataclass  # eq without frozen
    class Own(Distribution):
        x: float = 0.5

        def inverse_cdf(self, probability):
            return np.full_like(probability, self.x)

    with pytest.raises(TypeError, match="^alpha must be hashable, .* a frozen dataclass, got .*Own"):
        cutmix_cuda.CutMix(alpha=Own())


def test_table_is_built_once():
    def tables(*distributions):
        return quantiles(distributions, torch.device("cpu"))

    assert tables(Beta(0.3, 0.4)) is tables(Beta(0.3, 0.4))
    assert tables(Beta(0.3, 0.4)) is not tables(Beta(0.4, 0.3))
    assert tables(Beta(0.3, 0.4)) is not tables(None, Beta(0.3, 0.4))


def test_each_kind_has_its_own_table():
    """Of cutmix, mixup and cutout, in this order; what is not drawn has lambda 1."""
    tables = tables_of(0.3, Uniform(0.2, 0.7), Beta(2.0, 5.0))
    assert tables.dtype == np.float32 and tables.shape == (3, 4097)
    np.testing.assert_array_equal(tables[0], table_of(Beta(0.3, 0.3)))
    np.testing.assert_array_equal(tables[1], table_of(Uniform(0.2, 0.7)))
    for row in range(3):
        alone = tables_of(*[None] * row, 0.5)
        assert (np.delete(alone, row, axis=0) == 1).all() and not (alone[row] == 1).all()


def test_cutouts_lambda_is_one_less_its_area():
    """1 - A of A ~ Beta(2, 5) is Beta(5, 2); a number is the area itself, and not the parameter of a law."""
    np.testing.assert_allclose(tables_of(None, None, Beta(2.0, 5.0))[2], table_of(Beta(5.0, 2.0)), rtol=0, atol=2**-23)
    assert (tables_of(None, None, 0.3)[2] == np.float32(0.7)).all()


@pytest.mark.parametrize(
    "value", [0.0, -1.0, math.inf, math.nan, 10**400, Fraction(1, 10**400)], ids=lambda value: f"{value}"[:9]
)
def test_beta_wants_positive_finite_numbers(value):
    for make in (as_distribution, lambda x: Beta(x, 1.0), lambda x: Beta(1.0, x)):
        with pytest.raises(ValueError, match="positive and finite"):
            make(value)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_uniform_and_constant_want_shares(value):
    for name, make in {"lo": Uniform, "hi": lambda x: Uniform(0.0, x), "x": Constant}.items():
        with pytest.raises(ValueError, match=rf"^{name} must be in \[0, 1\]"):
            make(value)


def test_uniform_wants_ordered_bounds():
    with pytest.raises(ValueError, match="lo must not be greater than hi"):
        Uniform(0.7, 0.2)


@pytest.mark.parametrize("value", ["1", None, True, [1.0]])
def test_numbers_are_wanted(value):
    for make in (as_distribution, lambda x: Beta(1.0, x), Uniform, Constant):
        with pytest.raises(TypeError, match="number"):
            make(value)
