"""The README keeps its word: its examples run, its links lead somewhere, its counted numbers are right."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import cutmix_cuda

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "benchmarks/README.md", "csrc/README.md", "docs/gpu.md"]


def readers_things():
    """What a reader has, and the page does not make: loaders with an odd last batch, and a network for segmentation."""
    images = torch.rand(7, 3, 32, 32)
    labels, masks = torch.randint(10, (7,)), torch.randint(5, (7, 32, 32))
    return {
        "loader": DataLoader(TensorDataset(images, labels), batch_size=4),
        "segmentation_loader": DataLoader(TensorDataset(images, masks), batch_size=4),
        "segmenter": torch.nn.Conv2d(3, 5, 3, padding=1),
    }


def examples():
    """The Python of the page, with the numbers of its lines."""
    text = (ROOT / "README.md").read_text()
    for example in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        lines_before = text[: example.start(1)].count("\n")
        yield compile("\n" * lines_before + example[1], str(ROOT / "README.md"), "exec")


def test_examples_run_in_the_order_of_the_page():
    torch.manual_seed(0)
    namespace = readers_things()
    for example in examples():
        exec(example, namespace)


def test_every_example_continues_the_first_alone():
    torch.manual_seed(0)
    first, *others = examples()
    assert len(others) >= 5
    begun: dict[str, object] = {}
    exec(first, begun)
    for example in others:
        exec(example, begun | readers_things())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    path = ROOT / document
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text())
    for link in links:
        assert link.startswith("https://") or (path.parent / link).exists(), link


def test_the_public_names_are_listed():
    text = (ROOT / "README.md").read_text()
    for name in set(cutmix_cuda.__all__) - {"distributions"}:
        assert f"`{name}" in text or f"`cutmix_cuda.{name}" in text, name


def test_the_mean_pasted_share():
    """The README counts with 0.318 of the pixels pasted: clipped boxes, alpha 1, 224 x 224."""
    plan = cutmix_cuda.sample_plan(60_000, 224, 224, seed=0)
    assert (1 - plan.lam.double()).mean() == pytest.approx(0.318, abs=0.004)
