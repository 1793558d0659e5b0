"""The benchmarks of loaders and of vectors: all of each runs, and says what it measured."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("timm")
pytest.importorskip("torchvision")

from benchmarks import loader, vectors
from benchmarks.grid import QUICK_CENTRE
from benchmarks.implementations import NO_MIXING, OURS, OURS_IN_PLACE, TIMM_BATCH, TIMM_ELEM, TORCHVISION


def test_every_collate_function_mixes():
    for case in loader.QUICK:
        samples = loader.Samples(case, as_arrays=False), loader.Samples(case, as_arrays=True)
        plain, _ = torch.utils.data.default_collate([samples[0][index] for index in range(case.batch)])
        for name, (collate, as_arrays) in loader.collates(case).items():
            for _ in range(50):  # a box may be empty
                images, targets = collate([samples[as_arrays][index] for index in range(case.batch)])
                if not torch.equal(images, plain):
                    break
            assert images.shape == plain.shape and images.dtype == case.dtype
            assert torch.equal(images, plain) == (name == NO_MIXING)
            assert targets.shape == (case.batch,) if name == NO_MIXING else (case.batch, case.classes)


def test_quick_run_of_the_loader(tmp_path):
    loader.main(["--quick", "--output", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loader_cpu.json", "loader_cpu.md"]
    cells = json.loads((tmp_path / "loader_cpu.json").read_text())["cells"]
    assert [cell["case"] for cell in cells] == [str(case) for case in loader.QUICK]
    both = {NO_MIXING, OURS, OURS_IN_PLACE, TORCHVISION, TIMM_BATCH}
    assert [set(cell["by"]) - both for cell in cells] == [{loader.TIMM_COLLATE}, {TIMM_ELEM}]
    report = (tmp_path / "loader_cpu.md").read_text()
    assert all(f"| {name} |" in report for cell in cells for name in cell["by"])


def test_quick_run_with_and_without_vectors(tmp_path):
    vectors.main(["--quick", "--output", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vectors_cpu.json", "vectors_cpu.md"]
    by = json.loads((tmp_path / "vectors_cpu.json").read_text())["by"]
    assert "default" in by
    for (cell,) in by.values():
        assert cell["case"] == QUICK_CENTRE.as_dict()
        assert set(cell["by"]) == set(vectors.NAMES)
    assert (tmp_path / "vectors_cpu.md").read_text().count("| 16 x 3 x 32 x 32, float32 |") == len(by)
