"""The study of training: its images, equal terms for every arm, its measures, and that it runs and resumes."""

import gzip
import json
import math
import shutil
import subprocess
from concurrent.futures import Future
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("torchmetrics")
pytest.importorskip("torchvision")

from torchmetrics.classification import MulticlassCalibrationError

from benchmarks import train
from benchmarks.implementations import NO_MIXING
from benchmarks.train import data, measures, report, study, training
from benchmarks.train.arms import ARMS

ROOT = Path(__file__).resolve().parents[2]


# ---- Images


def idx(array: np.ndarray) -> bytes:
    """The format of the MNIST family: two zeros, the type (8: uint8), the number of dimensions, each of them."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def small_fashion_mnist() -> dict[str, np.ndarray]:
    """As many images as the real one has, of 2 x 3 pixels."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        arrays[f"{part}-images-idx3-ubyte"] = random.integers(256, size=(count, 2, 3))
        arrays[f"{part}-labels-idx1-ubyte"] = random.integers(10, size=count)
    return arrays


@pytest.fixture(scope="module")
def fashion_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, array in small_fashion_mnist().items():
        (raw / name).write_bytes(idx(array))
    return folder


def test_fashion_mnist_is_split_in_three(fashion_folder):
    loaded, arrays = data.fashion_mnist(fashion_folder), small_fashion_mnist()
    assert not data.missing_files(fashion_folder)
    for part, (name, which) in {
        loaded.pool: ("train", slice(0, 50_000)),
        loaded.validation: ("train", slice(50_000, 60_000)),
        loaded.test: ("t10k", slice(0, 10_000)),
    }.items():
        assert part.images.dtype == torch.uint8 and part.labels.dtype == torch.int64
        assert np.array_equal(part.images[:, 0].numpy(), arrays[f"{name}-images-idx3-ubyte"][which])
        assert np.array_equal(part.labels.numpy(), arrays[f"{name}-labels-idx1-ubyte"][which])


def test_digits_are_the_images_of_scikit_learn():
    loaded = data.digits()
    parts = loaded.pool, loaded.validation, loaded.test
    assert [len(part.labels) for part in parts] == [800, 200, 797]
    original = data.load_digits()
    assert np.array_equal(torch.cat([part.labels for part in parts]).numpy(), original.target)
    images = torch.cat([part.images for part in parts])
    assert images.shape == (1797, 1, 8, 8) and images.dtype == torch.uint8
    assert np.abs(images[:, 0].numpy() / 255 - original.images / 16).max() <= 0.5 / 255 + 1e-12


def test_the_checksum_knows_every_image_and_label():
    loaded = data.digits()
    checksums = {loaded.checksum(), data.digits().checksum()}
    assert len(checksums) == 1
    for part in ("pool", "validation", "test"):
        for field in ("images", "labels"):
            changed = data.digits()
            getattr(getattr(changed, part), field)[-1] += 1
            checksums.add(changed.checksum())
    assert len(checksums) == 7


@pytest.mark.parametrize(("flip", "shift"), [(True, 2), (False, 2), (True, 0), (False, 0)])
def test_flips_and_shifts(flip, shift):
    """Each result is one of the shifted and mirrored images, made by slices of numpy, and every one of these occurs."""
    image = np.arange(1, 36, dtype=np.uint8).reshape(5, 7)
    padded = np.pad(image, shift)
    possible = {}
    for down in range(-shift, shift + 1):
        for right in range(-shift, shift + 1):
            moved = padded[shift - down : shift - down + 5, shift - right : shift - right + 7]
            possible[moved.tobytes()] = (down, right, False)
            if flip:
                possible[moved[:, ::-1].tobytes()] = (down, right, True)
    batch = torch.from_numpy(image).expand(1500, 1, 5, 7)
    moved = data.flip_and_shift(batch, flip, shift, torch.Generator().manual_seed(3))
    assert moved.shape == batch.shape and moved.dtype == torch.uint8
    seen = [possible[one.numpy().tobytes()] for one in moved]
    assert set(seen) == set(possible.values())
    if flip:
        assert abs(np.mean([mirrored for _, _, mirrored in seen]) - 0.5) < 0.065  # five standard errors


def test_flips_and_shifts_are_those_of_each_sample():
    images = torch.randint(1, 256, (50, 1, 4, 4), dtype=torch.uint8)
    moved = data.flip_and_shift(images, True, 1, torch.Generator().manual_seed(0))
    for own, one in zip(images, moved, strict=True):
        assert set(one.unique().tolist()) <= set(own.unique().tolist()) | {0}


# ---- Fetching them


@pytest.fixture
def debian_files(tmp_path):
    """Where the package of Debian has its files, compressed."""
    files = tmp_path / "package" / "usr" / "share" / "datasets" / "fashion-mnist"
    files.mkdir(parents=True)
    for name, array in small_fashion_mnist().items():
        (files / f"{name}.gz").write_bytes(gzip.compress(idx(array), 1))
    return files


def test_an_installed_package_is_unpacked(debian_files, fashion_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "DEBIAN_FOLDER", debian_files)
    assert data.missing_files(tmp_path)
    assert "Debian" in data.fetch(tmp_path)
    assert data.fashion_mnist(tmp_path).checksum() == data.fashion_mnist(fashion_folder).checksum()


def test_the_package_is_downloaded_and_not_installed(debian_files, tmp_path, monkeypatch):
    def run(command, cwd=None, check=False):
        assert check
        if command[0] == "apt-get":
            assert command == ("apt-get", "download", "dataset-fashion-mnist")
            (Path(cwd) / "dataset-fashion-mnist_1_all.deb").touch()
        else:
            assert command[:2] == ("dpkg", "-x") and command[2].name == "dataset-fashion-mnist_1_all.deb"
            shutil.copytree(debian_files, Path(command[3]) / "usr" / "share" / "not-installed")

    monkeypatch.setattr(data, "DEBIAN_FOLDER", Path("/usr/share/not-installed"))
    monkeypatch.setattr(subprocess, "run", run)
    data.fetch(tmp_path)
    assert not data.missing_files(tmp_path)


@pytest.mark.parametrize("failure", [FileNotFoundError("apt-get"), subprocess.CalledProcessError(100, "apt-get")])
def test_without_the_package_torchvision_downloads(failure, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise failure

    calls = []
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "absent")
    monkeypatch.setattr(subprocess, "run", fails)
    monkeypatch.setattr(data.FashionMNIST, "__init__", lambda self, *args, **options: calls.append((args, options)))
    assert "torchvision" in data.fetch(tmp_path)
    assert calls == [((tmp_path,), {"download": True})]


def test_without_files_the_digits_take_their_place(fashion_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "FOLDER", fashion_folder)
    assert train.find_data(None) == (data.FASHION_MNIST, fashion_folder)
    assert train.find_data(fashion_folder) == (data.FASHION_MNIST, fashion_folder)
    assert not capsys.readouterr().out
    monkeypatch.setattr(train, "FOLDER", tmp_path)
    assert train.find_data(None)[0] == data.DIGITS
    assert "make data" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="train-images-idx3-ubyte"):
        train.find_data(tmp_path)


# ---- Arms and training


class Recorder:
    """Mixes nothing, keeps what it was given, and may draw from torch's generator as mixers do."""

    def __init__(self, draws):
        self.draws = draws
        self.batches = []

    def __call__(self, images, labels):
        self.batches.append((images, labels))
        torch.rand(self.draws)
        return images, labels


def test_every_arm_starts_alike_and_sees_the_same_batches(monkeypatch):
    made = []

    def record_weights():
        network = original()
        made.append([parameter.detach().clone() for parameter in network.parameters()])
        return network

    original = training.make_network
    monkeypatch.setattr(training, "make_network", record_weights)
    moving = data.digits()._replace(flip=True, shift=1)
    recorders = [Recorder(draws=0), Recorder(draws=3), Recorder(draws=0)]
    sets = [
        training.train(recorder, moving, training_images=45, epochs=2, batch=20, seed=seed)[1]
        for recorder, seed in zip(recorders, (5, 5, 6), strict=True)
    ]

    one, same, other = ([images for images, _ in recorder.batches] for recorder in recorders)
    assert [len(images) for images in one] == [20] * 4  # five of 45 are left over in each epoch
    assert all(map(torch.equal, one, same)) and not any(map(torch.equal, one, other))
    assert not torch.equal(one[0], one[2])  # each epoch has an order of its own
    assert all(map(torch.equal, made[0], made[1])) and not all(map(torch.equal, made[0], made[2]))
    assert torch.equal(sets[0].images, sets[1].images) and not torch.equal(sets[0].images, sets[2].images)


def test_training_images_are_drawn_from_the_pool_once_each():
    def record(images, numbers):
        seen.append((images, numbers))
        return images, numbers % 10

    seen = []
    loaded = data.digits()
    numbered = loaded._replace(pool=loaded.pool._replace(labels=torch.arange(800)))
    training.train(record, numbered, training_images=60, epochs=1, batch=20, seed=0)
    images, which = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert len(set(which.tolist())) == 60
    pool = loaded.pool.images.float()
    torch.testing.assert_close(images, (pool[which] - pool.mean()) / pool.std())


def test_the_network_learns_what_the_mixer_returns():
    def all_threes(images, labels):
        return images, torch.full_like(labels, 3)

    loaded = data.digits()
    network, _ = training.train(all_threes, loaded, training_images=100, epochs=20, batch=50, seed=0)
    assert not network.training
    images, labels = loaded.test
    assert measures.accuracy(network, images, labels) == (labels == 3).sum().item() / 797


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("CutMix, prob 0.5", {0: 0.5, 1: 0.5}),
        ("CutMix, prob 1", {1: 1}),
        ("MixUp, alpha 0.2", {2: 1}),
        ("Mix of the three", {0: 0.18, 1: 0.36, 2: 0.36, 3: 0.1}),
        ("Cutout", {3: 1}),
    ],
)
def test_arms_are_what_they_are_called(name, kinds):
    plan = ARMS[name].mixer(0).sample_plan(10_000, 28, 28)
    found, counts = plan.kind.unique(return_counts=True)
    assert dict(zip(found.tolist(), (counts / 10_000).tolist(), strict=True)) == pytest.approx(kinds, abs=0.025)
    assert len(plan.lam.unique()) > 100 or name == "Cutout"


def test_the_control_mixes_half_of_the_batches():
    torch.manual_seed(0)
    mixer = ARMS["torchvision v2.CutMix, prob 0.5"].mixer(0)
    images, labels = torch.rand(4, 1, 8, 8), torch.arange(4)
    mixed = [mixer(images, labels)[1].ndim == 2 for _ in range(400)]
    assert abs(sum(mixed) - 200) < 50


# ---- Measures


def test_calibration_error_is_that_of_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (3000,), generator=generator)
    logits = 2 * torch.randn(3000, 10, generator=generator) + 3 * nn.functional.one_hot(labels, 10)
    predicted = logits.softmax(1)
    diagram = measures.reliability(predicted, labels)
    expected = MulticlassCalibrationError(10, n_bins=15, norm="l1")(predicted, labels)
    assert measures.expected_calibration_error(diagram) == pytest.approx(expected.item(), abs=1e-6)
    assert expected > 0.01
    assert sum(diagram["images"]) == 3000
    assert sum(diagram["correct"]) == (predicted.argmax(1) == labels).sum()
    assert sum(diagram["confidence"]) == pytest.approx(predicted.max(1).values.double().sum().item())


def test_reliability_of_a_few_images_by_hand():
    predicted = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.75, 0.25], [0.5, 0.5]])
    diagram = measures.reliability(predicted, torch.tensor([0, 0, 0, 0]))
    expected = {bin: (0, 0, 0) for bin in range(15)} | {14: (2, 2.0, 1), 11: (1, 0.75, 1), 7: (1, 0.5, 1)}
    assert list(zip(*diagram.values(), strict=True)) == list(expected.values())
    assert measures.expected_calibration_error(diagram) == pytest.approx((1 + 0.25 + 0.5) / 4)


@pytest.mark.parametrize("side", [1, 5, 8])
def test_occlusion(side):
    images = torch.randint(128, 256, (1500, 1, 8, 8), dtype=torch.uint8)
    for occlude in (measures.occluded_at_centre, measures.occluded_at_random):
        result = occlude(images, side)
        hidden = result == measures.GREY
        assert torch.equal(result[~hidden], images[~hidden])
        corners = set()
        for one in hidden[:, 0]:
            rows, columns = one.nonzero().T
            top, left = int(rows.min()), int(columns.min())
            corners.add((top, left))
            assert one.sum() == side**2 == one[top : top + side, left : left + side].sum()
        places = 9 - side
        if occlude is measures.occluded_at_centre:
            assert corners == {((8 - side) // 2,) * 2}
        else:
            assert corners == {(top, left) for top in range(places) for left in range(places)}
        assert torch.equal(result, occlude(images, side))


def test_noise():
    images = torch.full((100, 1, 28, 28), 128, dtype=torch.uint8)
    assert torch.equal(measures.noisy(images, 0), images)
    values = measures.noisy(images, 0.1).double()
    assert values.mean().item() == pytest.approx(128, abs=0.5) and values.std().item() == pytest.approx(25.5, abs=0.5)
    black = measures.noisy(torch.zeros_like(images), 0.1)
    assert (black == 0).double().mean().item() == pytest.approx(0.5, abs=0.02)  # clamped, and not wrapped around


class Brightness(nn.Module):
    """Says class 1 of images that are bright on average, with confidence 0.9, and class 0 of the others."""

    def forward(self, images):
        odds = torch.where(images.float().mean((1, 2, 3)) > 100, 0.9, 0.1)
        return torch.stack([1 - odds, odds], 1).log()


def test_measures_of_a_network_that_sees_brightness():
    bright, dark = (torch.full((10, 1, 28, 28), value, dtype=torch.uint8) for value in (255, 0))
    tested_on = data.Images(torch.cat([bright, dark]), torch.tensor([1] * 8 + [0] * 12))
    measured = measures.measure(Brightness(), data.Images(bright, torch.ones(10)), tested_on)
    assert measured["accuracy"] == 0.9 and measured["training_accuracy"] == 1
    assert measures.expected_calibration_error(measured["reliability"]) == pytest.approx(0, abs=1e-6)
    # A box of 20 x 20 leaves bright images at 255 - 128 * 400 / 784 = 190, and makes dark ones 65.
    assert measured["occluded_at_centre"] == measured["occluded_at_random"] == [0.9] * 4
    assert measured["noisy"] == [0.9] * 3


# ---- The study


def test_gains_are_compared_seed_by_seed():
    summary = report.summarise({NO_MIXING: [0.5, 0.7, 0.9], "Cutout": [0.51, 0.72, 0.93]})
    assert summary[NO_MIXING] == {"mean": pytest.approx(0.7), "std": pytest.approx(0.2)}
    half = 4.302653 * 0.01 / math.sqrt(3)  # the 97.5 % point of Student's t with 2 degrees of freedom
    expected = {"gain": 0.02, "gain_low": 0.02 - half, "gain_high": 0.02 + half}
    assert {key: summary["Cutout"][key] for key in expected} == pytest.approx(expected)
    assert report.gain(summary["Cutout"]) == "+2.00 (-0.48 .. +4.48)"
    assert report.level(summary[NO_MIXING]) == "70.00 ± 20.00"


@pytest.fixture(scope="module")
def quick_study(tmp_path_factory):
    """The folder that `train --quick` leaves, by one process besides this one: it is imports that take long."""
    folder = tmp_path_factory.mktemp("study")
    train.main(["--quick", "--processes", "1", "--output", str(folder)])
    return folder


def read(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def test_all_of_it_runs(quick_study):
    runs = read(quick_study)
    assert [(run["seed"], run["training_images"], run["arm"]) for run in runs] == [
        (seed, images, arm) for seed in range(2) for images in (40, 80) for arm in ARMS
    ]
    for run in runs:
        fractions = [run["accuracy"], *run["occluded_at_centre"], *run["occluded_at_random"], *run["noisy"]]
        assert len(fractions) == 12
        assert all(0 <= value <= 1 and round(797 * value, 6).is_integer() for value in fractions)
        assert round(run["training_images"] * run["training_accuracy"], 6).is_integer()
        assert sum(run["reliability"]["images"]) == 797
        assert {"processor", "commit", "date"} <= set(run["machine"]) and "torch" in run["machine"]["versions"]

    page = (quick_study / "train.md").read_text()
    assert page.count("\n## ") == 14 and all(page.count(f"| {arm} |") == 14 for arm in ARMS)
    for name in ("train.png", "train_reliability.png"):
        picture = matplotlib.image.imread(quick_study / name)
        assert picture.shape[0] > 400 and picture.shape[1] > 800
        assert (picture[:8, :8] == 1).all() and picture.std() > 0.05  # light, and not empty


def test_the_overview_holds_the_means(quick_study):
    runs = read(quick_study)
    rows = [line.strip("| ").split(" | ") for line in report.overview(runs).splitlines() if " ± " in line]
    rows = [row for row in rows if row[0] in ARMS]
    assert [row[0] for row in rows] == list(ARMS)
    for name, *columns in rows:
        for size, (accuracy, _, calibration, boxed) in zip((40, 80), (columns[:4], columns[4:]), strict=True):
            chosen = [run for run in runs if (run["training_images"], run["arm"]) == (size, name)]
            errors = [measures.expected_calibration_error(run["reliability"]) for run in chosen]
            behind = [run["occluded_at_centre"][1] for run in chosen]
            for shown, values in (
                (accuracy, [run["accuracy"] for run in chosen]),
                (calibration, errors),
                (boxed, behind),
            ):
                assert float(shown.split()[0]) == pytest.approx(50 * sum(values), abs=0.006)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_finished_run_is_not_repeated(quick_study, tmp_path, monkeypatch, one_thread):
    """Two are taken out of the file and run again: as they were. Another mixer of an arm is another run."""

    class InThisProcess:
        def __init__(self, *_):
            pass

        def submit(self, function, *args):
            ran.append(args[0])
            future = Future()
            future.set_result(function(*args))
            return future

        def shutdown(self, **_):
            pass

    ran = []
    monkeypatch.setattr(study, "ProcessPoolExecutor", InThisProcess)
    lines = (quick_study / "train.jsonl").read_text().splitlines()
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(lines[:3] + lines[5:]) + "\n")
    wanted = study.definitions(data.DIGITS, tmp_path, "test", study.QUICK)
    runs = study.complete(path, wanted, tmp_path, 1, {"commit": "other"})
    assert ran == wanted[3:5]
    for now, before in zip(runs, read(quick_study), strict=True):
        same = now.keys() - ({"seconds", "machine"} if now["machine"] == {"commit": "other"} else set())
        assert {key: now[key] for key in same} == {key: before[key] for key in same}
    assert sorted(map(json.dumps, runs)) == sorted(map(json.dumps, read(tmp_path)))

    ran.clear()
    for change in ({"mixer": "CutMix(alpha=2.0)"}, {"learning_rate": 1.0}, {"checksum": "other"}):
        changed = wanted[1] | change
        assert study.find(runs, wanted[1]) is not None and study.find(runs, changed) is None
    assert len(study.complete(path, wanted, tmp_path, 1, {})) == len(wanted) and not ran


def test_validation_images_are_not_test_images(quick_study):
    wanted = study.definitions(data.DIGITS, quick_study, "validation", study.QUICK)
    assert study.find(read(quick_study), wanted[0]) is None
    assert sum(study.run(wanted[0], quick_study)["reliability"]["images"]) == 200


def test_one_seed_is_too_few(capsys):
    with pytest.raises(SystemExit):
        train.parse(["--seeds", "1"])
    assert "at least 2" in capsys.readouterr().err


def test_the_published_numbers_are_those_of_the_runs():
    """Both sizes, every arm, five seeds, on the test images of Fashion-MNIST. A part of the runs is not published."""
    results, readme = ROOT / "benchmarks" / "results", (ROOT / "README.md").read_text()
    published = (results / "train.md").exists()
    assert ("Not measured yet." in readme.split("## Does it regularise?")[1].split("\n## ")[0]) != published
    runs = read(results) if (results / "train.jsonl").exists() else []
    effort = study.FULL[data.FASHION_MNIST]
    assert effort.seeds >= 5 and len(effort.epochs) == 2
    assert {(run["data"], run["tested_on"]) for run in runs} <= {("Fashion-MNIST", "test")}
    found = {(run["seed"], run["training_images"], run["epochs"], run["arm"]) for run in runs}
    wanted = {
        (seed, images, epochs, arm)
        for seed in range(effort.seeds)
        for images, epochs in effort.epochs.items()
        for arm in ARMS
    }
    assert found <= wanted and (found == wanted) >= published
    if not published:
        return
    assert report.overview(runs) in readme
    assert report.everything(runs) == (results / "train.md").read_text()
