"""The Python that Triton's kernels keep to, so that the Triton of the oldest supported torch compiles them as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cutmix_cuda

FILES = sorted((Path(cutmix_cuda.__file__).parent / "triton_kernels").glob("*.py"))


def jit_functions(source: str) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            decorators = (each.func if isinstance(each, ast.Call) else each for each in node.decorator_list)
            if any(ast.unparse(each) == "triton.jit" for each in decorators):
                yield node


def targets(function: ast.FunctionDef) -> Iterator[ast.expr]:
    """What is assigned to, by a statement or by a loop."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            yield from node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.For):
            yield node.target


def refused(function: ast.FunctionDef) -> list[str]:
    """The targets that Triton 3.6, which torch 2.10 comes with, cannot compile: tuples within tuples, a starred one."""
    simple = ast.Name, ast.Subscript, ast.Attribute
    return [
        f"{function.name}:{target.lineno}: {ast.unparse(target)}"
        for target in targets(function)
        if not all(isinstance(part, simple) for part in getattr(target, "elts", [target]))
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_tuples_are_taken_apart_one_by_one(file):
    assert [each for function in jit_functions(file.read_text()) for each in refused(function)] == []


def test_functions_are_found():
    names = {function.name for file in FILES for function in jit_functions(file.read_text())}
    assert {"mix_kernel", "augment_kernel", "philox"} <= names
