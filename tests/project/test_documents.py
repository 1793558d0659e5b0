"""README and documentation keep their word: their examples run, their links lead somewhere, their numbers are right.

A page's Python runs block by block in one namespace. Two comments, which a page does not show, help: `<!-- setup -->`
makes what a reader has and the page does not make, such as a loader; `<!-- needs -->` names packages that its blocks
import and that may be missing here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import pytest
import torch

import cutmix_cuda

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS = [*PAGES, ROOT / "benchmarks" / "README.md", ROOT / "csrc" / "README.md"]

PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETUP = re.compile(r"^<!-- setup\n(.*?)^-->$", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"^<!-- needs: (.*) -->$", re.MULTILINE)
A_GPU = "a GPU"


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, pattern: re.Pattern[str]) -> list[CodeType]:
    """The matches of a pattern, with the numbers of their lines."""
    text = page.read_text()

    def compiled(match: re.Match[str]) -> CodeType:
        lines_before = text[: match.start(1)].count("\n")
        return compile("\n" * lines_before + match[1], str(page), "exec")

    return [compiled(match) for match in pattern.finditer(text)]


def namespace_of(page: Path) -> dict[str, object]:
    """What the blocks of a page start from. Skips where something is missing that they need."""
    for needs in NEEDS.findall(page.read_text()):
        for package in needs.split(", "):
            if package != A_GPU:
                pytest.importorskip(package)
            elif not torch.cuda.is_available():
                pytest.skip("the page needs a GPU")
    torch.manual_seed(0)
    namespace: dict[str, object] = {"__name__": "page"}
    for block in blocks(page, SETUP):
        exec(block, namespace)
    return namespace


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """Pages may write files, set environment variables and compile, which inductor is too slow for."""
    monkeypatch.chdir(tmp_path)
    environment, backend = dict(os.environ), torch.compiler.get_default_backend()
    torch.compiler.set_default_backend("aot_eager")
    yield
    torch.compiler.set_default_backend(backend)
    os.environ.clear()
    os.environ.update(environment)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, PYTHON)], ids=name_of)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_examples_run_in_the_order_of_the_page(page):
    namespace = namespace_of(page)
    for block in blocks(page, PYTHON):
        exec(block, namespace)


def test_every_example_of_the_readme_continues_the_first_alone():
    first, *others = blocks(README, PYTHON)
    assert others
    torch.manual_seed(0)
    begun: dict[str, object] = {}
    exec(first, begun)
    for block in others:
        exec(block, begun | namespace_of(README))


def defined_by(page: str) -> dict[str, Any]:
    """What the blocks of a how-to page leave behind."""
    path = ROOT / "docs" / "howto" / page
    namespace = namespace_of(path)
    for block in blocks(path, PYTHON):
        exec(block, namespace)
    return namespace


def test_spans_of_signals_tokens_and_spectrograms():
    """One span in every channel, and in every frequency, of 1 - lambda of the length."""
    page = defined_by("spectrograms.md")
    for name, along, mixed in (
        ("waves", page["waves"], page["mixed_waves"]),
        ("tokens", page["tokens"].transpose(1, 2), page["mixed_tokens"].transpose(1, 2)),
        ("spectrograms", page["spectrograms"].flatten(1, 2), page["mixed_spectrograms"].flatten(1, 2)),
    ):
        assert along.shape == mixed.shape, name
        pasted = (along != mixed).float()
        assert pasted.any(), name
        for sample in pasted:
            assert torch.equal(sample, sample[:1].expand_as(sample)), name
            edges = torch.nn.functional.pad(sample[0], (1, 1)).diff()
            assert (edges != 0).sum() in (0, 2), name


def test_specmix_is_the_published_formula():
    """Kim et al. 2021: a mask of the union of the bands, the partner where it is 1, and labels by its mean."""
    page = defined_by("spectrograms.md")
    plan, x = page["plan"], page["spectrograms"].numpy()
    y = np.eye(10, dtype=np.float32)[page["labels"].numpy()]
    bands = 0
    for i in range(len(x)):
        mask = np.zeros((64, 100), dtype=np.float32)
        for low, start, high, end in plan.boxes[i].tolist():
            assert (low, high) == (0, 64) or (start, end) == (0, 100)
            mask[low:high, start:end] = 1
            bands += int(low < high and start < end)
        (partner,) = set(plan.partner[i].tolist())
        np.testing.assert_array_equal(page["mixed"][i].numpy(), x[i] * (1 - mask) + x[partner] * mask)
        np.testing.assert_array_equal(page["masked"][i].numpy(), x[i] * (1 - mask))
        lam = mask.mean(dtype=np.float64)
        np.testing.assert_allclose(page["targets"][i].numpy(), y[i] * (1 - lam) + y[partner] * lam, atol=1e-6)
    assert 2 * len(x) <= bands <= 6 * len(x)


def test_masks_and_weights_of_a_vision_transformer():
    """Attentive CutMix pastes the six patches that the model looks at most; TransMix weighs patches by attention."""
    path = ROOT / "docs" / "howto" / "family.md"
    namespace, own = namespace_of(path), torch.eye(10)
    attentive, transmix = False, False
    for block in blocks(path, PYTHON):
        exec(block, namespace)
        images, labels = namespace["images"], namespace["labels"]
        if "most" in namespace and not attentive:
            attentive, partner = True, namespace["partner"]
            attention = namespace["attention"].reshape(8, 16)[partner].numpy()
            for i, j in enumerate(partner.tolist()):
                pasted = set(np.argsort(attention[i])[-6:].tolist())
                for patch in range(16):
                    at = (
                        slice(None),
                        slice(patch // 4 * 8, patch // 4 * 8 + 8),
                        slice(patch % 4 * 8, patch % 4 * 8 + 8),
                    )
                    assert torch.equal(namespace["mixed"][i][at], images[j if patch in pasted else i][at])
                torch.testing.assert_close(namespace["targets"][i], 0.625 * own[labels[i]] + 0.375 * own[labels[j]])
        if "attended" in namespace and not transmix:
            transmix, plan = True, namespace["plan"]
            attention, targets = (
                namespace["attention"].detach(),
                namespace["mix_targets"](labels, namespace["attended"], 10),
            )
            for i, (y0, x0, y1, x1) in enumerate(plan.boxes.tolist()):
                centres = [
                    (y0 + 4) // 8 <= y < (y1 + 4) // 8 and (x0 + 4) // 8 <= x < (x1 + 4) // 8
                    for y in range(4)
                    for x in range(4)
                ]
                share = float(attention[i][torch.tensor(centres)].sum() / attention[i].sum())
                expected = (1 - share) * own[labels[i]] + share * own[labels[plan.partner[i]]]
                torch.testing.assert_close(targets[i], expected, rtol=0, atol=1e-5)
            assert all(parameter.grad is not None for parameter in namespace["vit"].parameters())
    assert attentive and transmix


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document):
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text()):
        drawn = link.startswith("_gallery/")  # when the pages are built
        assert link.startswith("https://") or drawn or (document.parent / link).exists(), link


@pytest.mark.long
def test_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(ROOT / "docs"), "pages"]
    built = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True)
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "pages" / "gallery.html").read_text()
    pictures = re.findall(r'<img alt="[^"]+" src="_images/([^"]+)"', page)
    assert len(pictures) >= 6 and all((tmp_path / "pages" / "_images" / picture).exists() for picture in pictures)


def test_every_public_name_has_its_place():
    """In the pages of the reference, and in the table in front of them."""
    reference = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    overview = (ROOT / "docs" / "api" / "index.md").read_text()
    for name in set(cutmix_cuda.__all__) - {"distributions", "masks"}:
        assert re.search(rf":: {name}$", reference, re.MULTILINE), name
        assert f"`{name}" in overview or f"`cutmix_cuda.{name}" in overview, name


def test_the_mean_pasted_fraction():
    """The pages count with 0.318 of the pixels pasted: clipped boxes, alpha 1, 224 x 224."""
    plan = cutmix_cuda.sample_plan(60_000, 224, 224, seed=0)
    assert (1 - plan.lam.double()).mean() == pytest.approx(0.318, abs=0.004)
