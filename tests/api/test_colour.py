"""Colour: values against torchvision's functions and formulas in float64, how factors are distributed, what follows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torchvision.transforms.v2 import functional

import cutmix_cuda
from cutmix_cuda import Augment, Colour, CutMix, Erase, Views

from ..helpers import assert_same_bits, every_backend, random_images

SHAPE = (9, 3, 11, 14)
images = random_images(SHAPE, torch.uint8)
floats = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
every_factor = pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])

# ---- Values


def coloured(given: torch.Tensor, backend, **factors: float) -> torch.Tensor:
    """With factors that are certain."""
    how = Colour(**{name: (factor, factor) for name, factor in factors.items()})  # type: ignore[arg-type]
    return cutmix_cuda.augment(given.to(backend.device), colour=how, seed=1, backend=backend.name)[0].cpu()


@every_backend
@every_factor
def test_brightness_is_torchvisions(backend, factor):
    """Of bytes within 1, because torchvision cuts what this rounds."""
    expected = functional.adjust_brightness(floats, factor)
    torch.testing.assert_close(coloured(floats, backend, brightness=factor), expected, rtol=0, atol=2e-7)
    of_bytes = coloured(images, backend, brightness=factor).int()
    assert (of_bytes - functional.adjust_brightness(images, factor).int()).abs().max() <= 1
    assert (of_bytes - (images * factor).clamp(0, 255)).abs().max() <= 0.5 + 1e-4


@every_backend
@every_factor
def test_saturation_is_torchvisions(backend, factor):
    """But for the weight of red in grey, which torchvision rounds to 0.2989."""
    expected = functional.adjust_saturation(floats, factor)
    ours = coloured(floats, backend, saturation=factor)
    torch.testing.assert_close(ours, expected, rtol=0, atol=abs(1 - factor) * 1e-4 + 1e-6)


@every_backend
def test_greyscale_is_torchvisions(backend):
    grey = cutmix_cuda.augment(floats.to(backend.device), colour=Colour(greyscale=1.0), seed=1, backend=backend.name)[
        0
    ].cpu()
    torch.testing.assert_close(grey, functional.rgb_to_grayscale(floats, 3), rtol=0, atol=1.01e-4)
    torch.testing.assert_close(grey[:, 0], grey[:, 2], rtol=0, atol=0)


@every_backend
@every_factor
def test_contrast_is_around_mid_grey(backend, factor):
    expected = ((floats.double() - 0.5) * factor + 0.5).clamp(0, 1)
    torch.testing.assert_close(coloured(floats, backend, contrast=factor).double(), expected, rtol=0, atol=3e-7)


@every_backend
def test_all_of_it_is_a_chain_that_is_clamped_once(backend):
    """Of bytes, normalised."""
    raw = images.double() / 255
    value = (raw * 1.2 - 0.5) * 1.5 + 0.5
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]
    grey = (value * weights).sum(1, keepdim=True)
    expected = ((grey + 0.3 * (value - grey)).clamp(0, 1) - 0.4) / 0.25
    how = Colour(brightness=(1.2, 1.2), contrast=(1.5, 1.5), saturation=(0.3, 0.3))
    ours = cutmix_cuda.augment(images.to(backend.device), mean=0.4, std=0.25, colour=how, seed=1, backend=backend.name)[
        0
    ]
    torch.testing.assert_close(ours.cpu().double(), expected, rtol=0, atol=4e-6)


@every_backend
def test_a_given_matrix_turns_hue(backend):
    """A rotation around the grey axis by a third of a turn swaps the channels, and leaves grey as it is."""
    turn = torch.zeros(3, 4)
    turn[0, 2] = turn[1, 0] = turn[2, 1] = 1.0
    matrices = torch.eye(3, 4).repeat(9, 1, 1)
    matrices[4] = turn
    out = cutmix_cuda.augment(images.to(backend.device), colour=matrices.to(backend.device), backend=backend.name)[
        0
    ].cpu()
    expected = images.clone()
    expected[4] = images[4, [2, 0, 1]]
    assert_same_bits(out, expected)


# ---- Draws


def factors_of(matrices: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Brightness, contrast and saturation of matrices."""
    matrices = matrices.double()
    contrast = 1 - 2 * matrices[:, 0, 3]
    gain = matrices[:, 0, :3].sum(1)
    own = matrices[:, 0, 0] - matrices[:, 1, 0]
    return (gain / contrast).numpy(), contrast.numpy(), (own / gain).numpy()


def test_factors_are_uniform_and_independent():
    how = Colour(brightness=0.4, contrast=(0.5, 0.75), saturation=1.5, greyscale=0.2)
    matrices = cutmix_cuda.sample_views(20_000, 8, 8, colour=how, seed=3).colour
    assert matrices is not None
    brightness, contrast, saturation = factors_of(matrices)
    grey = np.abs(saturation) < 1e-6
    assert scipy.stats.binomtest(int(grey.sum()), len(grey), 0.2).pvalue > 1e-3
    drawn = {"brightness": (brightness, 0.6, 1.4), "contrast": (contrast, 0.5, 0.75)}
    for values, least, most in (*drawn.values(), (saturation[~grey], 0.0, 2.5)):
        assert values.min() > least - 1e-5 and values.max() < most + 1e-5
        assert scipy.stats.kstest(values, scipy.stats.uniform(least, most - least).cdf).pvalue > 1e-3
    for one, other in ((brightness, contrast), (brightness, grey), (contrast[~grey], saturation[~grey])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(len(one))


@every_backend
def test_other_draws_do_not_depend_on_colour(backend):
    how = {"flip": 0.5, "translate": 3, "erase": Erase(0.7), "mean": 0.5, "std": 0.25, "seed": 5, "return_plan": True}
    given = images.to(backend.device)
    *_, plan, views = cutmix_cuda.augment(given, None, CutMix(), **how, backend=backend.name)
    *_, coloured_plan, coloured_views = cutmix_cuda.augment(
        given, None, CutMix(), **how, colour=Colour(0.4, 0.4, 0.4), backend=backend.name
    )
    assert_same_bits(coloured_plan.packed, plan.packed.cpu())
    assert views.colour is None and coloured_views.colour is not None
    for part in ("flip", "offset", "erased"):
        assert torch.equal(getattr(coloured_views, part), getattr(views, part))


def test_no_colour_draws_none():
    for how in (None, Colour(), Colour(greyscale=0)):
        *_, views = cutmix_cuda.augment(images, flip=0.5, colour=how, seed=5, return_plan=True)
        assert not views.coloured and views.colour is None


# ---- What follows


@every_backend
def test_views_bring_their_colours_along(backend):
    """Drawn, sampled alone, made by hand of their parts, and for a second camera of floats."""
    how = {"flip": 0.5, "erase": Erase(0.5, value=0.25), "colour": Colour(0.4, 0.4, 0.4, 0.1)}
    augment = Augment(CutMix(), mean=0.5, std=0.25, **how, seed=5, backend=backend.name)
    given = images.to(backend.device)
    out, _, plan, views = augment(given, return_plan=True)
    assert views.colour is not None and views.colour.shape == (9, 3, 4)
    for same in (
        views,
        views.to(backend.device),
        Views.make(
            *given.shape[::2], 14, flip=views.flip, offset=views.offset, colour=views.colour, erased=views.erased
        ),
    ):
        assert_same_bits(same.packed, views.packed.cpu())
        assert_same_bits(augment.apply_plan(given, None, plan, same)[0], out.cpu())
    plain = Views.make(*given.shape[::2], 14, flip=views.flip, offset=views.offset, erased=views.erased)
    assert not torch.equal(augment.apply_plan(given, None, plan, plain)[0], out)
    second = augment.apply_plan(given.float() / 255, None, plan, views)[0]
    torch.testing.assert_close(second, out, rtol=0, atol=1e-5)
    masks = torch.arange(9 * 11 * 14, device=backend.device).reshape(9, 11, 14)
    assert torch.equal(views.apply(masks), plain.apply(masks))


def test_sampled_views_are_those_of_a_call():
    how = {"flip": 0.5, "colour": Colour(0.4, greyscale=0.5), "erase": Erase(0.5), "seed": 7}
    *_, views = cutmix_cuda.augment(images, **how, return_plan=True)
    drawn = cutmix_cuda.sample_views(9, 11, 14, **how)
    assert drawn.coloured and torch.equal(drawn.packed, views.packed)


def test_evaluation_does_not_colour():
    augment = Augment(CutMix(), mean=0.5, std=0.25, colour=Colour(0.4, 0.4, 0.4)).eval()
    assert_same_bits(augment(images)[0], cutmix_cuda.normalize_images(images, 0.5, 0.25))


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_whole_graphs(given):
    torch._dynamo.reset()

    def step(images, matrices):
        colour = matrices if given else Colour(0.4, (0.5, 1.5), 0.4, 0.1)
        return cutmix_cuda.augment(images, None, CutMix(), mean=0.5, std=0.25, colour=colour, seed=3)[0]

    matrices = torch.randn(9, 3, 4, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert_same_bits(compiled(images, matrices), step(images, matrices))
    torch._dynamo.reset()
