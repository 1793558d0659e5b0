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


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document):
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text()):
        drawn = link.startswith("_gallery/")  # when the pages are built
        assert link.startswith("https://") or drawn or (document.parent / link).exists(), link


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
