"""The command line: what `info` says, and what `demo` prints, draws and times."""

import io
import math
import re
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import torch
from rich.console import Console

import cutmix_cuda
from cutmix_cuda import __main__ as command_line
from cutmix_cuda import _backends, demo, gallery

BATCH, SIZE, SEED = 10, 40, 7


def run(*arguments, cwd):
    """What ``python -m cutmix_cuda`` prints; it must succeed."""
    command = [sys.executable, "-m", "cutmix_cuda", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, text=True, encoding="utf-8", capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory):
    """Text and picture, an array (height, width, 4) of 0..1, of one small run."""
    folder = tmp_path_factory.mktemp("demo")
    options = ("--batch", BATCH, "--size", SIZE, "--seed", SEED, "--output", "mixed.png", "--no-timing")
    return run("demo", *options, cwd=folder), matplotlib.image.imread(folder / "mixed.png")


def test_the_gallery_shows_every_method(tmp_path):
    """A row of eight images each, with its targets below, of the size asked for."""
    assert "small.png" in run("gallery", "--size", 24, "--output", "small.png", cwd=tmp_path)
    picture = matplotlib.image.imread(tmp_path / "small.png")
    assert picture.shape[1] == gallery.NAME_WIDTH + 8 * (24 + gallery.GAP)
    images, labels = demo.make_batch(8, 24)
    top = gallery.GAP
    for name, method in gallery.METHODS.items():
        mixed, targets = method(images, labels, 25)
        for i in (0, 7):
            left = gallery.NAME_WIDTH + i * (24 + gallery.GAP)
            shown = picture[top : top + 24, left : left + 24, :3]
            assert np.array_equal(np.rint(255 * shown), mixed[i].permute(1, 2, 0).numpy()), name
        lines = max(len(gallery._lines(targets[i], i)) for i in range(8))
        top += 24 + gallery.LINE * lines + 2 * gallery.GAP
    assert picture.shape[0] == top


@pytest.fixture(scope="module")
def printed_rows(demo_run):
    """The rows of the printed plan: six integers, lambda and the soft target."""
    row = re.compile(r"^\s*" + r"(\d+)\s+" * 6 + r"(\d\.\d{4})\s+(\S.*?)\s*$", re.MULTILINE)
    rows = row.findall(demo_run[0])
    return [(*map(int, numbers), float(lam), target) for *numbers, lam, target in rows]


@pytest.fixture(scope="module")
def plan():
    return cutmix_cuda.sample_plan(BATCH, SIZE, SIZE, seed=SEED, backend="reference")


def test_demo_prints_the_plan_of_its_seed(printed_rows, plan):
    assert [row[0] for row in printed_rows] == list(range(BATCH))
    assert [row[1] for row in printed_rows] == plan.partner.tolist()
    assert [list(row[2:6]) for row in printed_rows] == plan.boxes.tolist()
    assert [row[6] for row in printed_rows] == pytest.approx(plan.lam.tolist(), abs=0.5e-4)


def test_demo_prints_soft_targets_that_sum_to_one(printed_rows, plan):
    for i, partner, *_, target in printed_rows:
        weights = {name: float(weight) for weight, name in (part.split() for part in target.split(" + "))}
        assert sum(weights.values()) == pytest.approx(1.0, abs=1e-9)
        own, other = demo.CLASSES[i % 8], demo.CLASSES[partner % 8]
        expected = {own: float(plan.lam[i]), other: 1 - float(plan.lam[i])} if own != other else {own: 1.0}
        assert weights == pytest.approx(expected, abs=0.5e-2 + 1e-6)


def test_demo_draws_each_photograph_above_its_mixture(demo_run, plan):
    picture = (demo_run[1][..., :3] * 255).round().astype(int)
    cell_height, cell_width = 180, 150
    assert picture.shape == (4 * cell_height, 8 * cell_width, 3)
    accent = [int(demo.ACCENT[i : i + 2], 16) for i in (1, 3, 5)]
    for i in range(16):
        left, top = i % 8 * cell_width, i // 8 * 2 * cell_height
        above = picture[top : top + cell_height, left : left + cell_width]
        below = picture[top + cell_height : top + 2 * cell_height, left : left + cell_width]
        if i >= BATCH:
            assert (above == 255).all() and (below == 255).all()
            continue
        assert above.std() > 30 and below.std() > 30
        assert not np.array_equal(above, below)
        outlined = (below[:120] == accent).all(axis=-1).sum()  # above the words, which share the colour
        assert (outlined > 0) == (plan.boxes[i, 2] > plan.boxes[i, 0]).item()


def test_photographs_come_in_turn_and_then_in_other_crops():
    images, labels = demo.make_batch(20, 24)
    assert images.shape == (20, 3, 24, 24) and images.dtype == torch.uint8
    assert labels.tolist() == [*range(8), *range(8), *range(4)]
    assert len({image.numpy().tobytes() for image in images}) == 20
    assert all(image.float().std() > 3 for image in images)


def test_the_first_crop_is_the_centre():
    photograph = torch.arange(3 * 4 * 8, dtype=torch.uint8).reshape(3, 4, 8)
    assert torch.equal(demo.crop(photograph, 4, 0), photograph[:, :, 2:6])


@pytest.mark.parametrize("number", range(1, 30))
def test_every_crop_lies_inside_the_photograph(number):
    photograph = torch.full((3, 50, 70), 200, dtype=torch.uint8)
    assert torch.equal(demo.crop(photograph, 16, number), torch.full((3, 16, 16), 200, dtype=torch.uint8))


def test_shares_name_the_own_class_first():
    target = torch.zeros(8)
    target[1], target[6] = 0.63, 0.37
    assert demo.words_of(target, 6) == ["0.37 rocket", "0.63 cat"]
    assert demo.words_of(target, 1) == ["0.63 cat", "0.37 rocket"]
    assert demo.words_of(torch.eye(8)[2], 2) == ["1.00 coffee"]


def test_methods_are_called_in_turn(monkeypatch):
    monkeypatch.setattr(demo, "TIMED_SECONDS", 0.0)
    called = []
    methods = {name: lambda name=name: called.append(name) for name in "abc"}
    timings = demo.time_in_turn(methods, torch.device("cpu"), Console(file=io.StringIO()))
    assert list(timings) == ["a", "b", "c"]
    assert all(len(timing.seconds) == demo.MIN_ROUNDS for timing in timings.values())
    assert called == ["a", "b", "c"] * (len(called) // 3)


def test_timing_is_the_median():
    timing = demo.Timing([5.0, 1.0, 2.0, 30.0, 3.0])
    assert timing.median == 3.0
    assert timing.quartiles() == (1.5, 17.5)


def test_demo_times_ours_and_torchvision(monkeypatch):
    for name, value in (("TIMED_BATCH", 4), ("TIMED_SIZE", 16), ("TIMED_SECONDS", 0.01)):
        monkeypatch.setattr(demo, name, value)
    text = io.StringIO()
    demo.compare(torch.device("cpu"), 1.0, None, Console(file=text, width=120))
    number = r"([\d.,]+)"
    rate_of, speed_up_of = {}, {}
    for call in ("CutMix", "CutMix, in place", "torchvision v2.CutMix", "Augment", "torchvision's chain"):
        row = re.search(
            rf"^ *{call}  +{number}  +{number}  +{number} .. {number}  +{number}x *$", text.getvalue(), re.M
        )
        assert row, text.getvalue()
        rate, milliseconds, first, third, speed_up = (float(value.replace(",", "")) for value in row.groups())
        assert first <= milliseconds <= third
        assert rate == pytest.approx(4e3 / milliseconds, rel=0.2)  # two digits of milliseconds
        rate_of[call], speed_up_of[call] = rate, speed_up
    for ours, theirs in (("CutMix", "torchvision v2.CutMix"), ("Augment", "torchvision's chain")):
        assert speed_up_of[theirs] == 1.0
        assert speed_up_of[ours] == pytest.approx(rate_of[ours] / rate_of[theirs], abs=0.06)


def test_info_tells_what_there_is_and_why(tmp_path):
    text = run("info", cwd=tmp_path)
    assert f"cutmix_cuda {cutmix_cuda.__version__}\n" in text
    assert torch.__version__ in text
    for name, status in _backends.status().items():
        (said,) = re.findall(rf"^  {name} +(.+)$", text, re.M)
        assert (said == "available") == (name in cutmix_cuda.available_backends())
        assert status == "available" or said == f"not available: {status}"
    assert re.search(r"^  CUTMIX_CUDA_BACKEND +\S", text, re.M)


def test_info_names_the_backend_that_runs(monkeypatch):
    monkeypatch.setattr(_backends, "_DEFAULT", "reference")
    assert re.search(r"^  CPU tensors +reference$", command_line.report(), re.M)
    monkeypatch.setattr(_backends, "_DEFAULT", None)
    compiled = "cpu" in cutmix_cuda.available_backends()
    assert re.search(rf"^  CPU tensors +{'cpu' if compiled else 'reference'}$", command_line.report(), re.M)


def test_info_says_that_the_variable_is_wrong(monkeypatch):
    monkeypatch.setattr(_backends, "_DEFAULT", "fastest")
    wrong = "none: CUTMIX_CUDA_BACKEND must be one of cuda, triton, cpu, reference or None, got 'fastest'"
    assert wrong in command_line.report()


@pytest.mark.parametrize("missing", ["matplotlib", "rich", "skimage", "torchvision"])
def test_info_works_without_what_the_demo_needs(monkeypatch, capsys, missing):
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "cutmix_cuda.demo")
    monkeypatch.delattr(cutmix_cuda, "demo")
    message = command_line.main(["demo"])
    assert message.startswith(f"The demo needs {missing}") and "cutmix_cuda[demo]" in message
    assert command_line.main(["info"]) is None
    assert "reference" in capsys.readouterr().out


@pytest.mark.parametrize(
    "option, value",
    [("--batch", "0"), ("--size", "-3"), ("--size", "1.5"), ("--alpha", "0"), ("--alpha", "nan"), ("--backend", "x")],
)
def test_bad_options_are_named(capsys, option, value):
    with pytest.raises(SystemExit) as stopped:
        command_line.main(["demo", option, value])
    assert stopped.value.code == 2
    assert f"argument {option}: invalid" in capsys.readouterr().err


def test_what_stops_the_demo_is_told(tmp_path):
    options = ["demo", "--batch", "2", "--size", "8", "--no-timing"]
    nowhere = tmp_path / "missing" / "mixed.png"
    assert str(nowhere) in command_line.main([*options, "--output", str(nowhere)])
    assert "seed must be in" in command_line.main([*options, "--seed", str(2**64)])
    assert not list(tmp_path.iterdir())


def test_alpha_shapes_the_boxes(tmp_path, capsys):
    """The option arrives: Beta(a, a) of a large alpha is close to 1/2, so every nominal box covers half the image."""
    options = ["--batch", "16", "--size", "32", "--alpha", "1000000", "--no-timing"]
    assert command_line.main(["demo", *options, "--output", str(tmp_path / "mixed.png")]) is None
    lambdas = [float(lam) for lam in re.findall(r" (\d\.\d{4})  ", capsys.readouterr().out)]
    assert len(lambdas) == 16
    side = 2 * int(0.5 * math.sqrt(0.5) * 32)
    assert min(lambdas) == pytest.approx(1 - side**2 / 32**2, abs=1e-4)
