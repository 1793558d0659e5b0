"""The training benchmark: a fair split, the same start and batches for each variant, its summary, and that it runs."""

import json
import math
import os
import re
from pathlib import Path

import matplotlib.image
import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("torchvision")

from benchmarks import train

ROOT = Path(__file__).resolve().parents[2]


def test_digits_are_the_images_of_scikit_learn():
    images, labels = train.digits()
    assert images.shape == (1797, 1, 8, 8) and images.dtype == torch.float32 and labels.dtype == torch.int64
    assert images.min() == 0 and images.max() == 1
    assert labels[:12].tolist() == [*range(10), 0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_no_image_is_both_trained_and_tested_on(seed):
    _, labels = train.digits()
    to_train, to_test = train.split(labels, 10, torch.Generator().manual_seed(seed))
    assert labels[to_train].bincount().tolist() == [10] * 10
    assert len(set(to_train.tolist())) == 100
    assert to_test.tolist() == list(range(1000, 1797))
    assert not set(to_train.tolist()) & set(to_test.tolist())


class Recorder:
    """Mixes nothing, keeps what it was given, and may draw from torch's generator as mixers do."""

    def __init__(self, draws):
        self.draws = draws
        self.batches = []

    def __call__(self, images, labels):
        self.batches.append((images, labels))
        torch.rand(self.draws)
        return images, labels


def test_every_variant_starts_alike_and_sees_the_same_batches(monkeypatch):
    made = []

    def record_weights():
        network = original()
        made.append([parameter.detach().clone() for parameter in network.parameters()])
        return network

    original = train.make_network
    monkeypatch.setattr(train, "make_network", record_weights)
    effort = train.Effort(images_a_class=10, epochs=2, seeds=1)
    recorders = [Recorder(draws=0), Recorder(draws=3), Recorder(draws=0)]
    for recorder, seed in zip(recorders, (5, 5, 6), strict=True):
        train.train(recorder, seed, effort)

    one, same, other = ([images for images, _ in recorder.batches] for recorder in recorders)
    assert [len(images) for images in one] == [50] * 4
    assert all(map(torch.equal, one, same))
    assert not any(map(torch.equal, one, other))
    assert not torch.equal(one[0], one[2])  # each epoch has an order of its own
    assert torch.equal(torch.cat(one[:2]).sum(0), torch.cat(one[2:]).sum(0))  # of the same images
    assert all(map(torch.equal, made[0], made[1]))
    assert not all(map(torch.equal, made[0], made[2]))


def test_the_network_learns_what_the_mixer_returns():
    def all_threes(images, labels):
        return images, torch.full_like(labels, 3)

    _, labels = train.digits()
    accuracy = train.train(all_threes, 0, train.Effort(images_a_class=10, epochs=20, seeds=1))
    assert accuracy == (labels[1000:] == 3).sum().item() / 797


@pytest.mark.parametrize(
    "name", ["CutMix, a box a sample", "CutMix, a box a batch", "MixUp", "Mix: CutMix, MixUp, Cutout"]
)
def test_variants_are_what_they_are_called(name):
    kinds = train.VARIANTS[name](0).sample_plan(400, 8, 8).kind.unique().tolist()
    assert kinds == {"CutMix": [1], "MixUp": [2], "Mix:": [1, 2, 3]}[name.split()[0].rstrip(",")]
    boxes = train.VARIANTS[name](0).sample_plan(50, 8, 8).boxes.unique(dim=0)
    assert (len(boxes) == 1) == (name in ("CutMix, a box a batch", "MixUp"))


def test_summary_compares_seed_by_seed():
    plain, mixed = [0.5, 0.7, 0.9], [0.51, 0.72, 0.93]
    summary = train.summarise({train.NO_MIXING: plain, "MixUp": mixed})
    assert summary[train.NO_MIXING] == {"each": plain, "mean": pytest.approx(0.7), "std": pytest.approx(0.2)}
    half = 4.302653 * 0.01 / math.sqrt(3)  # the 97.5 % point of Student's t with 2 degrees of freedom
    expected = {"gain": 0.02, "gain_low": 0.02 - half, "gain_high": 0.02 + half}
    assert {key: summary["MixUp"][key] for key in expected} == pytest.approx(expected)
    assert train.gain_in_words(summary["MixUp"]) == "+2.00 (-0.48 .. +4.48)"


def test_all_of_it_runs(tmp_path, monkeypatch, capsys):
    """In this process and one more: it is imports that take long."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    train.main(["--quick", "--output", str(tmp_path)])

    results = json.loads((tmp_path / "train.json").read_text())
    assert results["effort"] == train.QUICK._asdict() and results["test_images"] == 797
    assert {"torch", "scikit-learn"} <= set(results["machine"]["versions"])
    assert {"processor", "commit", "date"} <= set(results["machine"])
    assert list(results["accuracy"]) == list(train.VARIANTS)
    for row in results["accuracy"].values():
        assert len(row["each"]) == 2
        assert all(0 <= accuracy <= 1 and round(797 * accuracy, 6).is_integer() for accuracy in row["each"])
    printed = dict(re.findall(r"^\| (.+?) \| (\d+\.\d\d ± \d+\.\d\d) \|", capsys.readouterr().out, re.M))
    assert list(printed) == list(train.VARIANTS)

    picture = matplotlib.image.imread(tmp_path / "train.png")
    assert picture.shape[0] > 400 and picture.shape[1] > 800
    assert (picture[:8, :8] == 1).all() and picture.std() > 0.05  # light, and not empty


def test_the_published_numbers_are_those_of_the_json():
    results = json.loads((ROOT / "benchmarks" / "results" / "train.json").read_text())
    assert results["effort"] == train.FULL._asdict()
    assert train.as_markdown(results) in (ROOT / "README.md").read_text()
