"""Docstrings: their examples run, they say what there is to say, and pages show it as it is meant."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator

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


def documented() -> Iterator[tuple[str, object]]:
    """The public functions and classes, those of the distributions, and what the classes define."""
    for module in (cutmix_cuda, cutmix_cuda.distributions):
        for name, each in inspect.getmembers(module, lambda each: inspect.isfunction(each) or inspect.isclass(each)):
            if module is cutmix_cuda or (each.__module__ == module.__name__ and name[0].isupper()):
                yield name, each
                members = vars(each).items() if inspect.isclass(each) else ()
                yield from (
                    (f"{name}.{key}", value) for key, value in members if key[0] != "_" and hasattr(value, "__doc__")
                )


DOCUMENTED = {name: inspect.getdoc(each) for name, each in documented()}


@pytest.mark.parametrize("name", [name for name in DOCUMENTED if name in cutmix_cuda.__all__])
def test_every_public_name_says_what_there_is_to_say(name):
    text, each = DOCUMENTED[name], getattr(cutmix_cuda, name)
    assert ">>> " in text, "an example"
    if inspect.isfunction(each):
        assert "Returns:" in text
    if inspect.isfunction(each) or issubclass(each, torch.nn.Module):
        assert "Raises:" in text or not inspect.signature(each).parameters


@pytest.mark.parametrize("name", ["CutMix", "MixUp", "Cutout", "Mix", "cutmix", "mix", "augment"])
def test_help_explains_every_argument(name):
    for argument in inspect.signature(getattr(cutmix_cuda, name)).parameters:
        explained = rf"^ *(?:\w+, )*{argument}(?:, \w+)*: \S"
        by_the_other = name in ("mix", "augment") and "other arguments are those of" in DOCUMENTED[name]
        assert by_the_other or re.search(explained, DOCUMENTED[name], re.MULTILINE), argument


@pytest.mark.parametrize("name", DOCUMENTED)
def test_pages_show_what_was_meant(name):
    """No line begins as in a numbered list ("K. And"), and what is returned not as a type does ("The loss: a")."""
    napoleon = pytest.importorskip("sphinx.ext.napoleon")
    text = DOCUMENTED[name] or ""
    assert not re.search(r"^ *(?:[\w, ]+: )?(?:[A-Za-z]|[0-9]+|[ivxlcIVXLC]+)[.)] ", text, re.MULTILINE)
    assert ":rtype:" not in str(napoleon.GoogleDocstring(text, napoleon.Config(napoleon_use_rtype=True)))
