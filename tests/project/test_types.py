"""The types of the public names: the stub is what the signatures say, and README's examples pass mypy's strict mode."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from enum import IntEnum
from pathlib import Path
from typing import get_args

import pytest

import cutmix_cuda
from cutmix_cuda import _backends, _literals
from cutmix_cuda._ops import EraseOrder, EraseValue, Partner, Placement, Scope
from cutmix_cuda.pairs import Targets

from . import stub
from .test_documents import PYTHON, README, SETUP

# What a call gives, by what it is given.
CALLS = """
from typing import assert_type

import torch
from torch import Tensor
from cutmix_cuda import (
    RICAP, Augment, CutMix, Cutout, FMix, Mix, MixPlan, MixUp, PairTargets, PatchPlan, Views, apply_plan, augment,
    cross_entropy, cutmix, cutmix_, mix_, mix_targets, sample_plan,
)

images, labels, plan = torch.rand(4, 3, 8, 8), torch.arange(4), sample_plan(4, 8, 8)
asked: bool = len(images) > 3

assert_type(cutmix(images), tuple[Tensor, None])
assert_type(cutmix(images, return_plan=True), tuple[Tensor, None, MixPlan])
assert_type(cutmix(images, labels, 5), tuple[Tensor, Tensor])
assert_type(cutmix_(images, labels, 5, return_plan=True), tuple[Tensor, Tensor, MixPlan])
assert_type(mix_(images, labels, targets="pairs"), tuple[Tensor, PairTargets])
assert_type(cutmix(images, labels, targets="pairs", return_plan=True), tuple[Tensor, PairTargets, MixPlan])
assert_type(apply_plan(images, None, plan), tuple[Tensor, None])
assert_type(apply_plan(images, labels, plan, 5), tuple[Tensor, Tensor])
assert_type(mix_targets(labels, plan, targets="pairs"), PairTargets)
assert len(cutmix(images, labels, 5, return_plan=asked)) in (2, 3)

assert_type(CutMix(num_classes=5)(images, labels), tuple[Tensor, Tensor])
assert_type(Mix()(images, return_plan=True), tuple[Tensor, None, MixPlan])
assert_type(MixUp(targets="pairs")(images, labels), tuple[Tensor, PairTargets])
assert_type(Cutout(area=0.2)(images), tuple[Tensor, None])
assert_type(Mix(ricap=0.1)(images, return_plan=True), tuple[Tensor, None, MixPlan | PatchPlan])
assert_type(Mix(resizemix=0.1, targets="pairs")(images, labels), tuple[Tensor, PairTargets])
assert_type(Cutout(holes=1)(images, return_plan=True), tuple[Tensor, None, MixPlan])
assert_type(Cutout(holes=2)(images, labels, return_plan=True), tuple[Tensor, Tensor, MixPlan | PatchPlan])
assert_type(RICAP(num_classes=5)(images, labels, return_plan=True), tuple[Tensor, Tensor, PatchPlan])
assert_type(FMix()(images), tuple[Tensor, None])
pairs: CutMix[PairTargets] = CutMix(targets="pairs")
mixed, of_pairs = pairs(images, labels)
assert_type(cross_entropy(torch.rand(4, 5), of_pairs), Tensor)

assert_type(Augment(mean=0.5, std=0.5)(images, labels), tuple[Tensor, Tensor])
assert_type(Augment(MixUp(targets="pairs"))(images, labels), tuple[Tensor, PairTargets])
assert_type(Augment(CutMix())(images, return_plan=True), tuple[Tensor, None, MixPlan, Views])
assert_type(augment(images, labels, CutMix(num_classes=5)), tuple[Tensor, Tensor])
"""

WRONG = """
import torch
from cutmix_cuda import Augment, CutMix, Mix, cutmix
CutMix(partner="left")
cutmix(torch.rand(4, 3, 8, 8), label_smooth=0.1)
cutmix(torch.rand(4, 3, 8, 8), backend="gpu")
Augment(Mix(ricap=0.1))
"""


def mypy(folder: Path, text: str) -> str:
    """What the strict mode says of a script, nothing if all is well."""
    pytest.importorskip("mypy")
    (folder / "script.py").write_text(text)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--untyped-calls-exclude=torch",
        "--config-file=",
        f"--cache-dir={stub.STUB.parents[1]}/.mypy_cache/strict",
    ]
    done = subprocess.run([*command, "script.py"], cwd=folder, text=True, capture_output=True)
    assert not done.stderr, done.stderr
    return "" if done.returncode == 0 else done.stdout


def test_the_stub_is_made_from_the_signatures():
    assert stub.STUB.read_text() == stub.stub(), "`make stub` writes it anew"


@pytest.mark.long
def test_readme_and_calls(tmp_path):
    """The first example is at the top, and each of the others in a function, as they continue it."""
    readme = README.read_text()
    first, *others = PYTHON.findall(readme)
    functions = [f"def example_{i}() -> None:\n{textwrap.indent(text, '    ')}" for i, text in enumerate(others)]
    calls = f"def calls() -> None:\n{textwrap.indent(CALLS, '    ')}"
    assert mypy(tmp_path, "\n".join([first, *SETUP.findall(readme), *functions, calls])) == ""


def test_what_is_wrong_is_found(tmp_path):
    found = mypy(tmp_path, WRONG)
    for line in range(4, 7):
        assert f"script.py:{line}: error: No overload variant" in found
    assert 'script.py:7: error: Argument 1 to "Augment" has incompatible type "Mix[Tensor, ' in found


def test_names_are_those_of_the_enumerations():
    choices: dict[str, type[IntEnum]] = {
        **{"ScopeName": Scope, "PartnerName": Partner, "PlacementName": Placement, "TargetsName": Targets},
        **{"EraseOrderName": EraseOrder},
    }
    for alias, enumeration in choices.items():
        assert set(get_args(getattr(_literals, alias))) == set(enumeration.__members__)
    assert set(get_args(_literals.EraseValueName)) == set(EraseValue.__members__) - {"constant"}
    assert get_args(_literals.BackendName) == _backends.BACKENDS


def test_only_public_names_are_listed():
    assert [name for name in dir(cutmix_cuda) if not name.startswith("__")] == sorted(cutmix_cuda.__all__)
    assert cutmix_cuda.CutMix[cutmix_cuda.PairTargets] is not None  # in annotations that are looked at
