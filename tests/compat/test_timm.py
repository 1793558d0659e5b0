"""Instead of timm's Mixup and FastCollateMixup: the same batches go through both, with the same lambdas and boxes."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import cutmix_cuda
from cutmix_cuda import MixPlan
from cutmix_cuda.compat import timm as compat

from ..api.test_seed import oracle as counted_seed
from ..helpers import assert_same_bits, every_backend, generator, random_labels, soft_labels

timm_mixup = pytest.importorskip("timm.data.mixup")

BATCH, CLASSES, SIZE = 6, 7, (15, 22)
MODES = ("batch", "pair", "elem")
KEEP, CUTMIX, MIXUP = 0, 1, 2
every_mode = pytest.mark.parametrize("mode", MODES)
LAWS: dict[str, dict[str, Any]] = {
    "mixup": {},
    "cutmix": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
    "both": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0},
    "not always": {"mixup_alpha": 0.3, "cutmix_alpha": 0.7, "prob": 0.5, "switch_prob": 0.3},
    "lambda as drawn": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "correct_lam": False},
    "minmax": {"mixup_alpha": 0.0, "cutmix_minmax": (0.2, 0.8)},
    "minmax or mixup": {"cutmix_minmax": [0.3, 0.6], "prob": 0.8},
    "minmax, lambda as drawn": {"mixup_alpha": 0.0, "cutmix_minmax": (0.2, 0.8), "correct_lam": False},
}
every_law = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)


def images_of(batch: int = BATCH, size: tuple[int, int] = SIZE, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images of the range of uint8, so that the same can be had of each dtype."""
    return (torch.randn(batch, 3, *size, generator=generator(1)) * 60 + 128).clamp(0, 255).to(dtype)


IMAGES, LABELS = images_of(), random_labels(BATCH, CLASSES)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def plans(monkeypatch) -> list[MixPlan]:
    """The plans that the calls follow, as they follow them."""
    followed: list[MixPlan] = []
    run, apply_plan_ = compat.mixup.run, compat.mixup.apply_plan_

    def recorded_run(images, *args, **kwargs):
        mixed, targets, packed = run(images, *args, **kwargs)
        followed.append(MixPlan(packed.cpu(), *images.shape[-2:]))
        return mixed, targets, packed

    def recorded_apply(images, labels, plan, *args, **kwargs):
        followed.append(plan.to("cpu"))
        return apply_plan_(images, labels, plan, *args, **kwargs)

    monkeypatch.setattr(compat.mixup, "run", recorded_run)
    monkeypatch.setattr(compat.mixup, "apply_plan_", recorded_apply)
    return followed


def theirs(plan: MixPlan, monkeypatch, x: Tensor, target: Tensor, **arguments) -> tuple[Tensor, Tensor]:
    """What timm's Mixup makes of a batch where it draws a plan of ours."""
    return drawing(plan, monkeypatch, timm_mixup.Mixup(**arguments), x.clone(), target)


def drawing(plan: MixPlan, monkeypatch, mixup, *batch) -> tuple[Tensor, Tensor]:
    """What a mixup of timm's makes of a batch where it draws a plan of ours."""
    half = (len(plan) + 1) // 2
    draws = {"batch": 1, "pair": half, "elem": len(plan), "half": half}[mixup.mode]
    kind, lam = plan.kind[:draws].numpy(), plan.lam[:draws].numpy()
    boxes = iter([box for box, each in zip(plan.boxes.tolist(), kind, strict=False) if each == CUTMIX])
    corrected = iter([float(each) for each in lam[kind == CUTMIX]])
    # 1 is timm's mark of what is kept, so it is not told yet what becomes of lambda where a box is pasted.
    drawn = np.where(kind == CUTMIX, np.float32(0.5), lam).astype(np.float32)

    def bbox_and_lam(*_, **__):
        y0, x0, y1, x1 = next(boxes)
        return (y0, y1, x0, x1), next(corrected)

    monkeypatch.setattr(mixup, "_params_per_elem", lambda _: (drawn, kind == CUTMIX))
    monkeypatch.setattr(mixup, "_params_per_batch", lambda: (float(drawn[0]), bool(kind[0] == CUTMIX)))
    monkeypatch.setattr(timm_mixup, "cutmix_bbox_and_lam", bbox_and_lam)
    result = mixup(*batch)
    assert next(boxes, None) is None
    return result


# ---- Values


@every_backend
@every_mode
@every_law
@pytest.mark.parametrize("size", [SIZE, (1, 2)], ids=str)
def test_mixes_as_timm(backend, mode, law, size, plans, monkeypatch):
    images = images_of(size=size)
    arguments = {**law, "mode": mode, "num_classes": CLASSES}
    mixup = compat.Mixup(**arguments, backend=backend.name)
    for _ in range(4):
        x = images.to(backend.device, copy=True)
        mixed, targets = mixup(x, LABELS.to(backend.device))
        assert mixed is x
        expected, expected_targets = theirs(plans[-1], monkeypatch, images, LABELS, **arguments)
        assert_same_bits(mixed, expected)
        assert_same_bits(targets, expected_targets)


@every_mode
@pytest.mark.parametrize("law", [LAWS["mixup"], LAWS["cutmix"], LAWS["both"]], ids=["mixup", "cutmix", "both"])
def test_mixes_by_what_timm_drew(mode, law, monkeypatch):
    """Its boxes of odd sides as well. On 2^k pixels, where its doubles are float32; a drawn one is made one."""
    size = (16, 32)
    images = images_of(size=size)
    peer = timm_mixup.Mixup(**law, mode=mode, num_classes=CLASSES)
    draws, boxes = [], []
    for name in ("_params_per_batch", "_params_per_elem"):
        params = getattr(peer, name)
        monkeypatch.setattr(peer, name, lambda *args, params=params: draws.append(params(*args)) or draws[-1])
    beta, bbox_and_lam = np.random.beta, timm_mixup.cutmix_bbox_and_lam
    monkeypatch.setattr(np.random, "beta", lambda *args, **size: np.float32(beta(*args, **size)))
    monkeypatch.setattr(
        timm_mixup, "cutmix_bbox_and_lam", lambda *args, **how: boxes.append(bbox_and_lam(*args, **how)) or boxes[-1]
    )

    def plan() -> MixPlan:
        drawn = iter(boxes)
        rows = []
        for lam, cuts in zip(*map(np.atleast_1d, draws[-1]), strict=True):
            if cuts and lam != 1:
                (y0, y1, x0, x1), lam = next(drawn)
                rows.append(([int(edge) for edge in (y0, x0, y1, x1)], float(lam), CUTMIX))
            else:
                rows.append(([0] * 4, float(lam), MIXUP))
        rows = {"batch": rows * BATCH, "pair": rows + rows[::-1], "elem": rows}[mode]
        edges, lams, kinds = zip(*rows, strict=True)
        return MixPlan.from_boxes(
            torch.arange(BATCH).flip(0),
            torch.tensor(edges),
            *size,
            lam=torch.tensor(lams, dtype=torch.float32),
            kind=torch.tensor(kinds),
        )

    def follow(images, labels, num_classes, settings, *, backend, **_):
        smoothing = settings.label_smoothing
        mixed = cutmix_cuda.apply_plan_(images, labels, plan(), num_classes, label_smoothing=smoothing, backend=backend)
        return *mixed, plan().packed

    monkeypatch.setattr(compat.mixup, "run", follow)
    for _ in range(10):
        boxes.clear()
        expected, expected_targets = peer(images.clone(), LABELS)
        mixed, targets = compat.Mixup(**law, mode=mode, num_classes=CLASSES)(images.clone(), LABELS)
        assert_same_bits(mixed, expected)
        assert_same_bits(targets, expected_targets)


@every_backend
@every_mode
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("batch", [6, 5, 1, 0])
def test_mixes_by_the_formula(backend, mode, dtype, batch, plans):
    """Dtypes in which timm's lambda is rounded, and batches that it refuses: each sample from its row of the plan."""
    images, labels = images_of(batch, dtype=dtype), random_labels(batch, CLASSES)
    mixup = compat.Mixup(0.8, 1.0, prob=0.9, mode=mode, num_classes=CLASSES, backend=backend.name)
    smooth = torch.full((batch, CLASSES), 0.1 / CLASSES)
    smooth[torch.arange(batch), labels] = 1 - 0.1 + 0.1 / CLASSES
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for _ in range(3):
        mixed, targets = mixup(images.to(backend.device, copy=True), labels.to(backend.device))
        for i in range(batch):
            lam, partner, kind = plans[-1].lam[i], batch - 1 - i, int(plans[-1].kind[i])
            assert int(plans[-1].partner[i]) == partner
            expected = images[i].clone()
            y0, x0, y1, x1 = plans[-1].boxes[i].tolist()
            expected[:, y0:y1, x0:x1] = images[partner, :, y0:y1, x0:x1]
            if kind == MIXUP:
                own, other = images[i].to(wide), images[partner].to(wide)
                exact = lam.to(wide) * own + (1 - lam.to(wide)) * other
                expected = (exact.round() if dtype == torch.uint8 else exact).to(dtype)
            assert_same_bits(mixed[i], expected)
            target = smooth[i] if kind == KEEP else lam * smooth[i] + (1 - lam) * smooth[partner]
            assert_same_bits(targets[i], target)
            if i == partner:
                assert kind == KEEP


@every_mode
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool], ids=str)
def test_multi_label(mode, smoothing, dtype, plans, monkeypatch):
    """Several classes at once, each smoothed towards a half."""
    target = (soft_labels(BATCH, CLASSES) * 4).to(dtype)
    arguments = {
        "cutmix_alpha": 1.0,
        "mode": mode,
        "label_smoothing": smoothing,
        "num_classes": CLASSES,
        "multi_label": True,
    }
    mixed, targets = compat.Mixup(**arguments)(IMAGES.clone(), target)
    expected, expected_targets = theirs(plans[0], monkeypatch, IMAGES, target, **arguments)
    assert_same_bits(mixed, expected)
    assert_same_bits(targets, expected_targets)


@every_law
@every_mode
def test_switched_off_it_still_smooths(law, mode):
    arguments = {**law, "mode": mode, "num_classes": CLASSES}
    mixup, peer = compat.Mixup(**arguments), timm_mixup.Mixup(**arguments)
    mixup.mixup_enabled = peer.mixup_enabled = False
    mixed, targets = mixup(IMAGES.clone(), LABELS)
    assert_same_bits(mixed, IMAGES)
    assert_same_bits(targets, peer(IMAGES.clone(), LABELS)[1])
    mixup.mixup_enabled = True
    assert any(not torch.equal(mixup(IMAGES.clone(), LABELS)[0], IMAGES) for _ in range(10))


@pytest.mark.parametrize("switch", [{"mixup_enabled": False}, {"mix_prob": 0.0}], ids=str)
def test_switched_off_it_needs_no_law(switch):
    """A training script without mixing that is left its label smoothing."""
    mixup = compat.Mixup(0.0, 0.0, num_classes=CLASSES)
    with pytest.raises(ValueError, match=r"^One of mixup_alpha > 0\., cutmix_alpha > 0\., cutmix_minmax not None"):
        mixup(IMAGES.clone(), LABELS)
    for name, value in switch.items():
        setattr(mixup, name, value)
    mixed, targets = mixup(IMAGES.clone(), LABELS)
    assert_same_bits(mixed, IMAGES)
    assert_same_bits(targets, timm_mixup.mixup_target(LABELS, CLASSES, smoothing=0.1))


def test_targets_of_other_forms():
    """Class indices of any integer dtype, also in a column; soft labels, smoothed as all soft labels here are."""
    mixup = compat.Mixup(num_classes=CLASSES)
    expected = mixup(IMAGES.clone(), LABELS)[1]
    for dtype in (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.uint64):
        torch.manual_seed(0)
        assert_same_bits(mixup(IMAGES.clone(), LABELS.to(dtype))[1], expected)
    torch.manual_seed(0)
    assert_same_bits(mixup(IMAGES.clone(), LABELS[:, None])[1], expected)
    torch.manual_seed(0)
    one_hot = torch.eye(CLASSES)[LABELS]
    torch.testing.assert_close(mixup(IMAGES.clone(), one_hot)[1], expected, rtol=0, atol=1e-6)


# ---- Collating


def samples_of(images: Tensor, labels: Tensor, arrays: bool = False) -> list[tuple]:
    """Copies, for timm's writes to the samples it is given."""
    parts = zip(images.clone().numpy() if arrays else images.clone(), labels, strict=True)
    return [(image, label if label.ndim else int(label)) for image, label in parts]


@pytest.mark.parametrize("arrays", [True, False], ids=["arrays", "tensors"])
@pytest.mark.parametrize("mode", [*MODES, "half"])
@every_law
def test_collates_as_timm(law, mode, arrays, plans, monkeypatch):
    """Pixels rounded as timm's, and targets."""
    images = images_of(dtype=torch.uint8)
    arguments = {**law, "mode": mode, "num_classes": CLASSES}
    collate = compat.FastCollateMixup(**arguments)
    for _ in range(4):
        mixed, targets = collate(samples_of(images, LABELS, arrays))
        peer, samples = timm_mixup.FastCollateMixup(**arguments), samples_of(images, LABELS, arrays)
        expected, expected_targets = drawing(plans[-1], monkeypatch, peer, samples)
        assert_same_bits(mixed, expected)
        assert_same_bits(targets, expected_targets)


@pytest.mark.parametrize("mode", [*MODES, "half"])
def test_blends_every_byte_with_every_other_as_timm(mode, plans, monkeypatch):
    byte = torch.arange(256, dtype=torch.uint8)
    images = torch.stack([byte.expand(256, 256), byte[:, None].expand(256, 256)])[:, None].contiguous()
    labels = torch.tensor([0, 1])
    collate = compat.FastCollateMixup(1.0, mode=mode, num_classes=2)
    for _ in range(8):
        mixed, targets = collate(samples_of(images, labels))
        peer = timm_mixup.FastCollateMixup(1.0, mode=mode, num_classes=2)
        expected, expected_targets = drawing(plans[-1], monkeypatch, peer, samples_of(images, labels))
        assert_same_bits(mixed, expected)
        assert_same_bits(targets, expected_targets)


@pytest.mark.parametrize("mode", ["batch", "half"])
def test_collates_dense_labels(mode, plans, monkeypatch):
    images, labels = images_of(dtype=torch.uint8), soft_labels(BATCH, CLASSES)
    arguments = {"mode": mode, "num_classes": CLASSES, "multi_label": True}
    mixed, targets = compat.FastCollateMixup(**arguments)(samples_of(images, labels))
    peer = timm_mixup.FastCollateMixup(**arguments)
    expected, expected_targets = drawing(plans[-1], monkeypatch, peer, samples_of(images, labels))
    assert_same_bits(mixed, expected)
    assert_same_bits(targets, expected_targets)


def test_half_of_an_odd_batch_has_the_one_in_the_middle():
    images, labels = images_of(5, dtype=torch.uint8), random_labels(5, CLASSES)
    mixed, targets = compat.FastCollateMixup(mode="half", num_classes=CLASSES)(samples_of(images, labels))
    assert mixed.shape[0] == len(targets) == 3
    assert_same_bits(mixed[2], images[2])


def test_labels_of_any_number_type_are_class_indices():
    """As timm's, which makes indices of bools and floats."""
    images = images_of(2, dtype=torch.uint8)
    for labels in ((1, 0), (True, False), (1.0, 0.0), (np.int32(1), np.int32(0))):
        _, targets = compat.FastCollateMixup(prob=0.0, label_smoothing=0.0, num_classes=2)(
            list(zip(images, labels, strict=True))
        )
        assert targets.tolist() == [[0, 1], [1, 0]]


def test_collates_in_workers_that_draw_apart():
    images = images_of(dtype=torch.uint8).repeat(4, 1, 1, 1)
    dataset = torch.utils.data.TensorDataset(images, LABELS.repeat(4))
    for seed in (None, 3):
        collate = compat.FastCollateMixup(mode="elem", num_classes=CLASSES, seed=seed)
        batches = list(torch.utils.data.DataLoader(dataset, BATCH, num_workers=2, collate_fn=collate))
        assert len({tuple(targets.flatten().tolist()) for _, targets in batches}) == len(batches) == 4
        assert all(mixed.dtype == torch.uint8 and mixed.shape == (BATCH, 3, *SIZE) for mixed, _ in batches)


def test_samples_that_are_wrong():
    collate = compat.FastCollateMixup(num_classes=CLASSES)
    with pytest.raises(TypeError, match="^images must be uint8 tensors or arrays to be collated, got torch.float32"):
        collate(samples_of(IMAGES, LABELS))
    with pytest.raises(TypeError, match="^images must be uint8 tensors or arrays to be collated, got (tuple|list)"):
        collate([("image", 1)])
    with pytest.raises(ValueError, match="^mode must be one of 'batch', 'pair', 'elem', 'half', got 'all'"):
        compat.FastCollateMixup(mode="all")


# ---- The plan


@every_backend
@every_mode
@pytest.mark.parametrize("minmax", [None, (0.2, 0.8)])
def test_modes_share_draws(backend, mode, minmax, plans):
    mixup = compat.Mixup(0.8, 1.0, minmax, mode=mode, num_classes=CLASSES, backend=backend.name)
    mixup(images_of(64, (32, 32)).to(backend.device), random_labels(64, CLASSES).to(backend.device))
    rows = [tuple(row) for row in plans[0].packed[:, 1:].tolist()]
    if mode == "batch":
        assert len(set(rows)) == 1
    else:
        assert (rows == rows[::-1]) == (mode == "pair")
        assert {row[5] for row in rows} == {CUTMIX, MIXUP}
        assert len(set(rows)) > (20 if mode == "pair" else 40)


def test_shares_of_prob_and_switch_prob(plans):
    mixup = compat.Mixup(0.8, 1.0, prob=0.75, switch_prob=0.2, mode="elem", num_classes=1)
    mixup(torch.zeros(4000, 1, 2, 2), torch.zeros(4000, dtype=torch.int64))
    shares = torch.bincount(plans[0].kind.long(), minlength=3) / 4000
    torch.testing.assert_close(shares, torch.tensor([0.25, 0.15, 0.6]), rtol=0, atol=0.04)  # five deviations


def test_correct_lam(plans):
    """Without it lambda is the drawn one: uniform at alpha = 1, where clipped boxes leave more of the image."""
    for correct_lam in (True, False):
        mixup = compat.Mixup(0.0, 1.0, correct_lam=correct_lam, mode="elem", num_classes=1)
        mixup(torch.zeros(2000, 1, 32, 32), torch.zeros(2000, dtype=torch.int64))
    corrected, drawn = plans
    y0, x0, y1, x1 = corrected.boxes.unbind(1)
    assert torch.equal(corrected.lam, 1 - (y1 - y0) * (x1 - x0) / 1024)
    assert abs(drawn.lam.mean() - 0.5) < 0.04
    assert abs(corrected.lam.mean() - 0.68) < 0.04


@pytest.mark.parametrize("mixup_alpha", [0.0, 1.0])
def test_minmax_boxes(mixup_alpha, plans):
    """Sides of every length in the range and no other, at every place inside the image, as timm draws them; whichever
    samples have a box."""
    height, width, lo, hi = 12, 20, 0.25, 0.8
    mixup = compat.Mixup(mixup_alpha, cutmix_minmax=(lo, hi), mode="elem", num_classes=1)
    assert mixup.cutmix_alpha == 1.0
    mixup(torch.zeros(1600, 1, height, width), torch.zeros(1600, dtype=torch.int64))
    pasted = plans[0].kind == CUTMIX
    assert pasted.all() == (mixup_alpha == 0)
    boxes = plans[0].boxes[pasted]
    theirs = np.array([timm_mixup.rand_bbox_minmax((height, width), (lo, hi)) for _ in range(800)])
    for low, high, length, column in ((0, 2, height, 0), (1, 3, width, 2)):
        start, end = boxes[:, low], boxes[:, high]
        sides = set(range(int(length * lo), int(length * hi)))
        assert set((end - start).tolist()) == sides == set(theirs[:, column + 1] - theirs[:, column])
        assert set(start.tolist()) == set(range(length - min(sides) + 1)) == set(theirs[:, column])
        for mine, other in ((start, theirs[:, column]), (end, theirs[:, column + 1])):
            assert scipy.stats.ks_2samp(mine.numpy(), other).pvalue > 1e-3
    y0, x0, y1, x1 = boxes.unbind(1)
    assert torch.equal(plans[0].lam[pasted], 1 - (y1 - y0) * (x1 - x0) / (height * width))


def test_minmax_leaves_the_rest_of_a_plan(plans):
    """Which samples are mixed, how, and lambda of mixup are drawn as without it."""
    for minmax in (None, (0.2, 0.8)):
        torch.manual_seed(0)
        compat.Mixup(0.8, 1.0, minmax, prob=0.8, mode="elem", num_classes=1)(
            torch.zeros(99, 1, 8, 8), torch.zeros(99, dtype=torch.int64)
        )
    without, with_minmax = plans
    assert set(without.kind.tolist()) == {KEEP, CUTMIX, MIXUP}
    assert torch.equal(with_minmax.kind, without.kind)
    assert torch.equal(with_minmax.partner, without.partner)
    others = without.kind != CUTMIX
    assert torch.equal(with_minmax.lam[others], without.lam[others])


@pytest.mark.parametrize("size", [(1, 40), (40, 1)], ids=str)
def test_spans_of_minmax(size, plans):
    """Of one pixel high or wide all of that side, and of the other as much as ever; timm's boxes are empty."""
    compat.Mixup(0.0, cutmix_minmax=(0.25, 0.8), mode="elem", num_classes=1)(
        torch.zeros(1600, 1, *size), torch.zeros(1600, dtype=torch.int64)
    )
    sides = plans[0].boxes[:, 2:] - plans[0].boxes[:, :2]
    assert (sides[:, size.index(1)] == 1).all()
    assert set(sides[:, size.index(40)].tolist()) == set(range(10, 32))
    assert torch.equal(plans[0].lam, 1 - sides.amax(dim=1) / 40)


def test_minmax_of_one_length(plans):
    """timm's raises where the range is empty, as on small images."""
    for minmax, side in (((0.5, 0.5), 4), ((0.0, 0.0), 0), ((1.0, 1.0), 8), ((0.5, 0.51), 4)):
        compat.Mixup(cutmix_minmax=minmax, mixup_alpha=0.0, num_classes=CLASSES)(images_of(6, (8, 8)), LABELS)
        y0, x0, y1, x1 = plans[-1].boxes[0].tolist()
        assert (y1 - y0, x1 - x0) == (side, side)


# ---- In a training script


@pytest.mark.parametrize("name", ["Mixup", "FastCollateMixup"])
def test_has_the_arguments_and_attributes_of_timms(name):
    own_class, peer_class = getattr(compat, name), getattr(timm_mixup, name)
    signature, peer = inspect.signature(own_class), inspect.signature(peer_class)
    own = list(signature.parameters.values())
    assert [str(parameter) for parameter in peer.parameters.values()] == [
        f"{parameter.name}={parameter.default!r}" for parameter in own if parameter.kind != parameter.KEYWORD_ONLY
    ]
    assert [parameter.name for parameter in own[len(peer.parameters) :]] == ["seed", "generator", "backend"]
    arguments = (0.8, 0.3, [0.2, 0.8], 0.9, 0.4, "pair", False, 0.2, CLASSES, True)
    theirs, ours = vars(peer_class(*arguments)), vars(own_class(*arguments))
    assert {name: ours[name] for name in theirs} == theirs
    assert theirs["mixup_enabled"]


def test_attributes_may_be_changed():
    """As train loops do: each of them counts at the next call."""
    mixup = compat.Mixup(num_classes=CLASSES)
    changes = {"mixup_alpha": 0.0, "cutmix_alpha": 0.5, "mode": "elem", "label_smoothing": 0.0, "num_classes": 9}
    for name, value in changes.items():
        setattr(mixup, name, value)
    torch.manual_seed(3)
    mixed, targets = mixup(IMAGES.clone(), LABELS)
    torch.manual_seed(3)
    expected, expected_targets = cutmix_cuda.cutmix(IMAGES, LABELS, 9, alpha=0.5, partner="flip")
    assert_same_bits(mixed, expected)
    assert_same_bits(targets, expected_targets)


@every_law
def test_random_numbers(law):
    """torch.manual_seed reproduces them, boxes of the host included; a generator leaves torch's own alone."""
    mixup = compat.Mixup(**law, mode="elem", num_classes=CLASSES)
    first, second = (mixup(IMAGES.clone(), LABELS)[0] for _ in range(2))
    assert not torch.equal(first, second)
    for again in (mixup, copy.deepcopy(mixup), pickle.loads(pickle.dumps(mixup))):
        torch.manual_seed(0)
        assert_same_bits(again(IMAGES.clone(), LABELS)[0], first)
    state = torch.get_rng_state()
    own = compat.Mixup(**law, mode="elem", num_classes=CLASSES, generator=generator(0))
    assert_same_bits(own(IMAGES.clone(), LABELS)[0], first)
    assert torch.equal(torch.get_rng_state(), state)


@every_law
def test_a_counted_seed(law):
    """Each call is the function with the next seed, and torch's own generator is left alone."""
    mixup = compat.Mixup(**law, mode="elem", num_classes=CLASSES, seed=3)
    state = torch.get_rng_state()
    drawn = [mixup(IMAGES.clone(), LABELS)[0] for _ in range(3)]
    assert torch.equal(torch.get_rng_state(), state)
    if "cutmix_minmax" not in law:
        for count, mixed in enumerate(drawn):
            how = {"mixup_alpha": 1.0, "cutmix_alpha": 0.0} | law
            expected = cutmix_cuda.mix(IMAGES, seed=counted_seed(3, count), partner="flip", **how)[0]
            assert_same_bits(mixed, expected)
    resumed = compat.Mixup(**law, mode="elem", num_classes=CLASSES, seed=4)
    resumed.load_state_dict(mixup.state_dict())
    assert_same_bits(resumed(IMAGES.clone(), LABELS)[0], mixup(IMAGES.clone(), LABELS)[0])
    assert compat.Mixup(**law).state_dict() == {}


@every_law
def test_ranks_draw_apart_by_a_seed(law, monkeypatch):
    """And alike without, if they were seeded alike, as timm's."""
    for seed, apart in ((3, True), (None, False)):
        drawn = []
        for rank in range(2):
            monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
            monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            torch.manual_seed(0)
            mixup = compat.Mixup(**law, mode="elem", num_classes=CLASSES, seed=seed)
            drawn.append(torch.stack([mixup(IMAGES.clone(), LABELS)[0] for _ in range(3)]))
        assert torch.equal(*drawn) == (not apart)


@every_law
@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.compile
def test_in_one_graph(law, seed):
    """The same bits as without, whatever is drawn and wherever."""
    torch._dynamo.reset()
    results = []
    for compiler in (lambda mixup: mixup, torch.compile(fullgraph=True, backend="aot_eager")):
        torch.manual_seed(0)
        mixup = compiler(compat.Mixup(**law, mode="elem", num_classes=CLASSES, seed=seed))
        results.append([mixup(IMAGES.clone(), LABELS) for _ in range(3)])
    torch.testing.assert_close(*results, rtol=0, atol=0)


# ---- Errors


@pytest.mark.parametrize("target", [LABELS, torch.zeros(BATCH, CLASSES + 1)], ids=["indices", "other classes"])
def test_multi_label_fails_as_timm(target):
    texts = []
    for mixup in (compat.Mixup, timm_mixup.Mixup):
        x = IMAGES.clone()
        with pytest.raises(ValueError, match="^Multi-label mixup expects dense targets shaped") as caught:
            mixup(num_classes=CLASSES, multi_label=True)(x, target)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mode": "half"}, ValueError, "mode must be one of 'batch', 'pair', 'elem', got 'half'"),
        ({"cutmix_minmax": (0.1,)}, ValueError, r"cutmix_minmax must be \(lo, hi\), got \(0.1,\)"),
        ({"cutmix_minmax": (0.1, 1.5)}, ValueError, r"cutmix_minmax must be in \[0, 1\], got 1.5"),
        ({"cutmix_minmax": (0.6, 0.5)}, ValueError, r"cutmix_minmax must have lo <= hi, got \(0.6, 0.5\)"),
        ({"prob": 1.5}, ValueError, r"prob must be in \[0, 1\], got 1.5"),
        ({"switch_prob": -0.1}, ValueError, r"switch_prob must be in \[0, 1\], got -0.1"),
        ({"label_smoothing": 2}, ValueError, r"label_smoothing must be in \[0, 1\], got 2"),
        ({"num_classes": 0}, ValueError, "num_classes must be positive, got 0"),
        ({"num_classes": "ten"}, TypeError, "num_classes must be an int, got 'ten'"),
        ({"seed": 1.5}, TypeError, "seed must be an int"),
        ({"seed": 1, "generator": generator(1)}, ValueError, "generator must be None where a seed is given"),
        ({"generator": 3}, TypeError, "generator must be a torch.Generator or None, got int"),
        ({"backend": "gpu"}, ValueError, "backend must be one of"),
    ],
)
def test_arguments_that_are_wrong(arguments, error, message):
    with pytest.raises(error, match=f"^{message}"):
        compat.Mixup(**arguments)


@pytest.mark.parametrize("minmax", [None, (0.2, 0.8)])
def test_batches_that_are_wrong(minmax):
    """Nothing is written before the error."""
    mixup = compat.Mixup(cutmix_minmax=minmax, cutmix_alpha=1.0, num_classes=CLASSES)
    x = IMAGES.clone()
    for target, error, message in (
        (LABELS[1:], ValueError, "labels must have one entry a sample, 6, got 5"),
        (LABELS + CLASSES, ValueError, r"labels must be in 0\.\.6"),
        (torch.zeros(BATCH), ValueError, "float labels must be of shape"),
        (torch.eye(CLASSES).long()[LABELS], ValueError, r"integer labels must be of shape .* pass labels.float\(\)"),
        (torch.zeros(BATCH, CLASSES + 1), ValueError, "num_classes must be the number of columns of soft labels"),
    ):
        with pytest.raises(error, match=f"^{message}"):
            mixup(x, target)
    assert_same_bits(x, IMAGES)
    with pytest.raises(ValueError, match="^images must not overlap themselves in memory"):
        mixup(x[:1].expand(BATCH, 3, *SIZE), LABELS)
    with pytest.raises(TypeError, match="^images must be a tensor, got list"):
        mixup([1.0], LABELS)
    with pytest.raises(TypeError, match="^images must be of dtype uint8, .* got torch.int64"):
        for _ in range(20):  # with minmax only once that mixup is drawn
            mixup(IMAGES.long(), LABELS)
