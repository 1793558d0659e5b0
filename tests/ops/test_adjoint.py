"""The adjoint of mixing: gradients of mixed samples -> those of the samples, on every backend, against an oracle."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

import cutmix_cuda
from cutmix_cuda._backends import ops_for

from ..helpers import (
    KINDS,
    PARTNERS,
    Backend,
    PlannedSample,
    assert_same_bits,
    every_backend,
    generator,
    oracle_partners,
    packed,
    planned,
    share_left,
)
from .test_ops import BAD_ROWS, keep

SEED = 20190513
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def oracle_adjoint(gradients: Tensor, plan: list[PlannedSample]) -> Tensor:
    """Each mixed sample gives its gradient back to those that it is made of: to itself first, then to the partner.

    Sums in float32, or float64 for float64, rounded once; 0 where nobody gives anything.
    """
    real = np.float64 if gradients.dtype == torch.float64 else np.float32
    given = gradients.to(torch.float64).contiguous().numpy().astype(real)
    height, width = given.shape[-2:]

    def inside(sample: PlannedSample) -> np.ndarray:
        mask = np.full((height, width), sample.kind == "mixup")
        if sample.kind in ("cutmix", "cutout"):
            y0, x0, y1, x1 = sample.box
            mask[y0:y1, x0:x1] = True
        return np.broadcast_to(mask, given.shape[1:])

    total, there = np.empty_like(given), np.empty(given.shape, dtype=bool)
    for i, sample in enumerate(plan):
        weight = real(sample.lam) if sample.kind == "mixup" else None
        total[i] = given[i] if weight is None else weight * given[i]
        there[i] = True if weight is not None else ~inside(sample)
    for i, sample in enumerate(plan):
        if sample.kind not in ("cutmix", "mixup"):
            continue
        part = (real(1) - real(sample.lam)) * given[i] if sample.kind == "mixup" else given[i]
        there_is, gives, j = there[sample.partner], inside(sample), sample.partner
        total[j] = np.where(gives, np.where(there_is, total[j] + part, part), total[j])
        there[j] |= gives
    return torch.from_numpy(np.where(there, total, real(0))).to(gradients.dtype)


def adjoint(backend: Backend, gradients: Tensor, rows: Tensor) -> Tensor:
    out = torch.full_like(gradients, 77.0)
    op = ops_for(backend.name, torch.device(backend.device)).apply_adjoint_out
    assert op(gradients, rows.to(backend.device), out) is None
    return out


def some_gradients(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Finite ones, of both zeros and of both signs."""
    drawn = torch.randn(shape, generator=generator(seed)).to(dtype)
    return torch.where(torch.rand(shape, generator=generator(seed + 1)) < 0.1, torch.zeros_like(drawn) * drawn, drawn)


def some_plan(partners: list[int], height: int, width: int, seed: int = 0) -> list[PlannedSample]:
    """Every kind, with boxes of every size."""
    rng = np.random.default_rng(seed)
    plan = []
    for i, partner in enumerate(partners):
        y0, y1 = sorted(rng.integers(0, height + 1, 2).tolist())
        x0, x1 = sorted(rng.integers(0, width + 1, 2).tolist())
        kind = KINDS[(i + seed) % 4] if i % 5 else "cutmix"
        lam = np.float32(rng.random()) if kind == "mixup" else share_left((y0, x0, y1, x1), height, width)
        plan.append(PlannedSample(partner, (y0, x0, y1, x1), lam, kind))
    return plan


PARTNER_MAPS = {
    **{rule: oracle_partners(rule, SEED, 9) for rule in PARTNERS},
    "all of one": [4] * 9,
    "of themselves": list(range(9)),
    "some of one": [0, 0, 1, 1, 1, 8, 8, 8, 8],
    "chain": [1, 2, 3, 4, 5, 6, 7, 8, 8],
}


@every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("partners", PARTNER_MAPS.values(), ids=PARTNER_MAPS.keys())
def test_every_kind_and_partner_map_is_the_oracle(backend, partners, dtype):
    for seed, (channels, height, width) in enumerate([(3, 6, 9), (8, 4, 16), (1, 7, 7), (16, 7, 7)]):
        plan = some_plan(partners, height, width, seed)
        gradients = some_gradients((9, channels, height, width), dtype, seed)
        assert_same_bits(adjoint(backend, gradients.to(backend.device), packed(plan)), oracle_adjoint(gradients, plan))


@every_backend
@given(st.data())
def test_any_plan_is_the_oracle(backend, data):
    batch, height, width = (data.draw(st.integers(1, most)) for most in (12, 9, 40))
    inner = tuple(data.draw(st.lists(st.integers(1, 5), max_size=2)))
    partners = data.draw(st.lists(st.integers(0, batch - 1), min_size=batch, max_size=batch))
    plan = some_plan(partners, height, width, data.draw(st.integers(0, 99)))
    gradients = some_gradients((batch, *inner, height, width), data.draw(st.sampled_from(DTYPES)))
    assert_same_bits(adjoint(backend, gradients.to(backend.device), packed(plan)), oracle_adjoint(gradients, plan))


@every_backend
@pytest.mark.parametrize("batch", [1, 2, 33, 257, 1100])
def test_batches_of_every_size(backend, batch):
    """Those who take from a sample are found wherever they are."""
    rng = np.random.default_rng(batch)
    for partners in (rng.permutation(batch).tolist(), rng.integers(0, batch, batch).tolist()):
        plan = some_plan(partners, 2, 4, batch)
        gradients = some_gradients((batch, 1, 2, 4))
        assert_same_bits(adjoint(backend, gradients.to(backend.device), packed(plan)), oracle_adjoint(gradients, plan))


@every_backend
@pytest.mark.parametrize("partners", PARTNER_MAPS.values(), ids=PARTNER_MAPS.keys())
def test_it_is_the_transposed_jacobian(backend, partners):
    """Of mixing itself, column by column."""
    height, width = 3, 4
    plan = packed(some_plan(partners, height, width)).to(backend.device)
    pixels = 9 * height * width
    mix = ops_for(backend.name, torch.device(backend.device)).apply
    columns = torch.eye(pixels, dtype=torch.float64).reshape(pixels, 9, 1, height, width).to(backend.device)
    jacobian = torch.stack([mix(column, None, plan, 0, 0.0, torch.float32)[0].flatten() for column in columns], dim=1)
    gradients = some_gradients((9, 1, height, width), torch.float64).to(backend.device)
    expected = (jacobian.t() @ gradients.flatten()).view_as(gradients)
    torch.testing.assert_close(adjoint(backend, gradients, plan), expected, rtol=1e-12, atol=1e-12)


@every_backend
@pytest.mark.parametrize("scope", ["pair", "batch"])
@pytest.mark.parametrize("partner", ["flip", "mirror"])
def test_of_pairs_that_share_their_draw_it_is_mixing_itself(backend, scope, partner):
    mix = cutmix_cuda.Mix(mixup_alpha=1.0, prob=0.9, scope=scope, partner=partner)
    for batch in (8, 9):
        plan = mix.sample_plan(batch, 6, 9, seed=SEED, device=backend.device)
        gradients = some_gradients((batch, 3, 6, 9), torch.float16).to(backend.device)
        expected = cutmix_cuda.mix_images(gradients, plan, backend=backend.name)
        assert_same_bits(adjoint(backend, gradients, plan.packed), expected)


LAYOUTS = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "rows apart": lambda x: torch.nn.functional.pad(x, (0, 0, 0, 2))[..., :-2, :],
    "sliced": lambda x: torch.nn.functional.pad(x, (1, 2))[..., 1:-2],
    "samples apart": lambda x: torch.stack([x, x], 1)[:, 0],
    "channels reversed in memory": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "not aligned": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
}


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_any_layout_in_and_out(backend, layout, dtype):
    plan = some_plan(oracle_partners("mirror", 3, 6), 4, 8)
    gradients = some_gradients((6, 4, 4, 8), dtype)
    expected, rows = oracle_adjoint(gradients, plan), packed(plan).to(backend.device)
    op = ops_for(backend.name, torch.device(backend.device)).apply_adjoint_out
    gradients = gradients.to(backend.device)
    for laid_out, out in ((layout(gradients), torch.zeros_like(gradients)), (gradients, layout(gradients * 0))):
        op(laid_out, rows, out)
        assert_same_bits(out, expected)


@every_backend
def test_nothing_beside_the_output_is_written(backend):
    plan = some_plan(oracle_partners("shift", 3, 5), 3, 5)
    gradients = some_gradients((5, 7, 3, 5), torch.float16)
    around = torch.full((gradients.numel() + 16,), 77.0, dtype=torch.float16, device=backend.device)
    for offset in range(9):
        around.fill_(77.0)
        out = around[offset : offset + gradients.numel()].view(gradients.shape)
        op = ops_for(backend.name, torch.device(backend.device)).apply_adjoint_out
        op(gradients.to(backend.device), packed(plan).to(backend.device), out)
        assert_same_bits(out, oracle_adjoint(gradients, plan))
        assert (around[:offset] == 77).all() and (around[offset + gradients.numel() :] == 77).all()


@every_backend
def test_gradients_of_one_number(backend):
    """As sum() gives them: one element in memory."""
    plan = some_plan(oracle_partners("roll", 3, 6), 4, 6)
    gradients = torch.ones((), device=backend.device).expand(6, 3, 4, 6)
    out = torch.zeros(6, 3, 4, 6, device=backend.device)
    ops_for(backend.name, torch.device(backend.device)).apply_adjoint_out(
        gradients, packed(plan).to(backend.device), out
    )
    assert_same_bits(out, oracle_adjoint(gradients.cpu(), plan))


@every_backend
@pytest.mark.parametrize(
    "shape", [(0, 3, 4, 6), (5, 0, 4, 6), (5, 3, 0, 6), (5, 3, 4, 0), (4, 5, 7), (2, 2, 3, 2, 5, 7)], ids=str
)
def test_every_shape(backend, shape):
    partners = oracle_partners("mirror", SEED, shape[0])
    plan = some_plan(partners, *shape[-2:])
    gradients = some_gradients(shape)
    assert_same_bits(adjoint(backend, gradients.to(backend.device), packed(plan)), oracle_adjoint(gradients, plan))


@every_backend
@pytest.mark.parametrize("edit", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_keeps_its_gradient(backend, edit):
    plan = some_plan([5, 4, 3, 2, 1, 0], 6, 9, seed=3)
    plan[2] = plan[2]._replace(kind="cutmix", box=(1, 2, 5, 8))
    rows = packed(plan)
    for column, value in edit.items():
        rows[2, column] = value
    plan[2] = keep(plan[2])
    gradients = some_gradients((6, 3, 6, 9))
    assert_same_bits(adjoint(backend, gradients.to(backend.device), rows), oracle_adjoint(gradients, plan))


@every_backend
def test_infinite_gradients_stay_where_they_are(backend):
    """What lies in a box is not multiplied by 0."""
    sampled = cutmix_cuda.sample_plan(6, 6, 9, seed=SEED)
    gradients = torch.full((6, 3, 6, 9), torch.inf)
    out = adjoint(backend, gradients.to(backend.device), sampled.packed)
    assert_same_bits(out, oracle_adjoint(gradients, planned(sampled)))
    assert not out.isnan().any()


@every_backend
def test_wrong_arguments_are_refused(backend):
    """As a direct call of the op may give them."""
    plan, gradients = packed(some_plan([1, 0], 4, 6)).to(backend.device), torch.zeros(2, 3, 4, 6, device=backend.device)
    op = ops_for(backend.name, torch.device(backend.device)).apply_adjoint_out
    wrong = [
        (gradients, plan[:1], gradients.clone()),
        (gradients, plan.long(), gradients.clone()),
        (gradients, plan, gradients[:1].clone()),
        (gradients, plan, gradients.half()),
        (gradients.long(), plan, gradients.long()),
        (gradients[0, 0], plan, gradients[0, 0].clone()),
    ]
    if backend.name == "reference":
        pytest.skip("the reference trusts its caller")
    for arguments in wrong:
        with pytest.raises(RuntimeError):
            op(*arguments)
