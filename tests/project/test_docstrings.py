"""The examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import cutmix_cuda

MODULES = [
    module.name
    for module in pkgutil.walk_packages(cutmix_cuda.__path__, f"{cutmix_cuda.__name__}.")
    if not module.name.endswith("__main__")
]


def reader_has() -> dict[str, object]:
    """What examples take for granted."""
    public = {name: getattr(cutmix_cuda, name) for name in cutmix_cuda.__all__}
    return {**public, "torch": torch, "images": torch.rand(4, 3, 16, 16), "labels": torch.tensor([3, 1, 4, 1])}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(str(error))
    failures = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    for example in doctest.DocTestFinder().find(module, extraglobs=reader_has()):
        runner.run(example, out=failures.append)
    assert not failures, "".join(failures)


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    assert len([test for test in finder.find(cutmix_cuda.transforms) if test.examples]) >= 2
