"""The types of the public names as a stub, made from their signatures: ``make stub`` writes cutmix_cuda/__init__.pyi.

What a call returns depends on ``labels``, ``targets`` and ``return_plan``, and its plan on the transform's options. The
stub says so by overloads, so that no source repeats a signature for each of them. Its transforms inherit from those
of the modules.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import torch

import cutmix_cuda
from cutmix_cuda import _literals

STUB = Path(__file__).resolve().parents[2] / "cutmix_cuda" / "__init__.pyi"

TRANSFORMS = ("CutMix", "Cutout", "Mix", "MixUp")
PATCHING = ("FMix", "RICAP", "ResizeMix")  # whose plan is always of patches
MIXING = ("apply_plan", "apply_plan_", "cutmix", "cutmix_", "mix", "mix_")
OVERLOADED = (*TRANSFORMS, *PATCHING, *MIXING, "Augment", "augment", "mix_targets")

MODULES = ("distributions", "masks")

ALIASES = {alias: name for name, alias in vars(_literals).items() if get_origin(alias) is Literal}

Choices = dict[str, str]  # the types that parameters have in an overload, with a default; "" for those it lacks
DENSE: Choices = {"targets": 'Literal["dense"] = "dense"'}
PAIRS: Choices = {"targets": 'Literal["pairs"]'}

# By which a transform's plan is not one of patches. Whether a probability is 0 is nothing that a type tells.
ONE = "Literal[1] = 1"
OF_ONE_BOX: dict[str, Choices] = {
    "Cutout": {"holes": ONE},
    "Mix": {"ricap": "", "resizemix": "", "cutout_holes": ONE},
}

GLUE = "\0"  # a space at which no line may end

HEAD = """\
# Made from the signatures by `make stub`; a test holds it to them.
# ruff: noqa: I001
# fmt: off
from typing import Generic, Literal, overload

import torch
from torch import Tensor
from typing_extensions import TypeVar

{imports}

__version__: str
__all__ = {names}

_Targets = TypeVar("_Targets", bound=Tensor | PairTargets, default=Tensor)
_Plan = TypeVar("_Plan", bound=MixPlan | PatchPlan, default=MixPlan)


"""


def spelled(annotation: Any) -> str:
    """A type as it stands in the sources."""
    if isinstance(annotation, str):
        return annotation
    if annotation in ALIASES:
        return ALIASES[annotation]
    if get_args(annotation):
        return " | ".join(map(spelled, get_args(annotation)))
    if annotation is NoneType:
        return "None"
    of_torch = annotation in (torch.dtype, torch.device, torch.memory_format, torch.Generator)
    return f"torch.{annotation.__name__}" if of_torch else annotation.__name__


def overload(function: Callable[..., Any], returns: str, choices: Choices, *, name: str = "", indent: int = 0) -> str:
    parts = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind == parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        if choices.get(parameter.name) == "":
            continue
        if parameter.name in choices:
            parts.append(f"{parameter.name}: {choices[parameter.name]}")
        elif parameter.name == "self":
            parts.append("self")
        else:
            value = parameter.default
            shown = json.dumps(value) if isinstance(value, str) else repr(value)
            if isinstance(value, cutmix_cuda.distributions.Distribution):
                shown = "..."
            default = "" if value is parameter.empty else f" = {shown}"
            parts.append(f"{parameter.name}: {spelled(parameter.annotation)}{default}")
    first = " " * indent
    unbroken = [part.replace(" ", GLUE) for part in parts]
    lines = textwrap.wrap(", ".join(unbroken), 120, initial_indent=first + "    ", subsequent_indent=first + "    ")
    text = [f"{first}@overload", f"{first}def {name or function.__name__}(", *lines, f"{first}) -> {returns}: ..."]
    return "\n".join(text).replace(GLUE, " ")


def overloads(
    function: Callable[..., Any], targets: Mapping[str, Choices], plan: str = "", *, name: str = "", indent: int = 0
) -> list[str]:
    """Those of what gives images, targets and, with return_plan, a plan. The last is for types that are not so exact.

    Args:
        targets: for each type that targets may be of, the choices that give it; labels of None give None.
    """
    parameters = inspect.signature(function).parameters
    without = "None" if parameters["labels"].default is inspect.Parameter.empty else "None = None"
    every = {"None": {"labels": without}, **{kind: {"labels": "Tensor", **how} for kind, how in targets.items()}}
    asked = {"Literal[False] = False": "", "Literal[True]": plan} if "return_plan" in parameters else {"": ""}
    chosen = [
        (f"tuple[Tensor, {kind}{extra}]", {**how, "return_plan": returned})
        for kind, how in every.items()
        for returned, extra in asked.items()
    ]
    either = " | ".join([*targets, "None"])
    whatever = " | ".join(f"tuple[Tensor, {either}{extra}]" for extra in asked.values()), Choices()
    return [overload(function, returns, how, name=name, indent=indent) for returns, how in [*chosen, whatever]]


def transform(name: str) -> str:
    init = getattr(cutmix_cuda, name).__init__
    plans: dict[str, Choices] = {"": OF_ONE_BOX.get(name, {})}
    if name in OF_ONE_BOX:
        plans[", MixPlan | PatchPlan"] = {}
    made = [
        overload(init, "None", {"self": f"{name}[{kind}{plan}]", **how, **box}, indent=4)
        for kind, how in (("Tensor", DENSE), ("PairTargets", PAIRS))
        for plan, box in plans.items()
    ]
    parameters = "_Targets, _Plan" if name in OF_ONE_BOX else "_Targets"
    return "\n".join([f"class {name}(_{name}, _Transform[{parameters}]):", *made])


def augment_class() -> str:
    augment = cutmix_cuda.Augment
    mixes = {"self": "Augment[_Targets]", "mix": "_Transform[_Targets]"}
    return "\n".join(
        [
            "class Augment(_Augment, Generic[_Targets]):",
            overload(augment.__init__, "None", {"self": "Augment[Tensor]", "mix": "None = None"}, indent=4),
            overload(augment.__init__, "None", mixes, indent=4),
            *overloads(augment.forward, {"_Targets": {}}, ", MixPlan, Views", name="__call__", indent=4),
            *overloads(
                augment.apply_plan, {"Tensor": {"plan": "None = None"}, "_Targets": {"plan": "MixPlan"}}, indent=4
            ),
        ]
    )


def imports(body: str) -> Iterable[str]:
    """Of what a text names."""
    yield f"from . import {', '.join(MODULES)}"
    modules: dict[str, list[str]] = {
        "_literals": sorted(name for name in ALIASES.values() if name in body),
        "augmentation": ["Mean"],
    }
    modules |= {"distributions": ["Distribution"], "transforms": ["Transform"]}
    for name in cutmix_cuda.__all__:
        if name not in (*MODULES, *MIXING):
            module = getattr(cutmix_cuda, name).__module__.removeprefix("cutmix_cuda.")
            hidden = name in (*TRANSFORMS, *PATCHING, "Augment")
            if name not in OVERLOADED or hidden:
                modules.setdefault(module, []).append(f"{name} as _{name}" if hidden else name)
    for module, names in sorted(modules.items()):
        line = f"from .{module} import {', '.join(names)}"
        short = len(line) <= 120
        yield line if short else f"from .{module} import (\n    " + ",\n    ".join(names) + ",\n)"


def stub() -> str:
    both = {"Tensor": DENSE, "PairTargets": PAIRS}
    parts = [
        "\n".join(
            [
                "class _Transform(Transform, Generic[_Targets, _Plan]):",
                *overloads(cutmix_cuda.CutMix.forward, {"_Targets": {}}, ", _Plan", name="__call__", indent=4),
            ]
        )
    ]
    parts += [transform(name) for name in TRANSFORMS]
    parts += [f"class {name}(_{name}, _Transform[Tensor, PatchPlan]): ..." for name in PATCHING]
    parts.append(augment_class())
    parts += ["\n".join(overloads(getattr(cutmix_cuda, name), both, ", MixPlan")) for name in MIXING]
    mixed = {"Tensor": {"mix": "None = None"}, "_Targets": {"mix": "_Transform[_Targets]"}}
    parts.append("\n".join(overloads(cutmix_cuda.augment, mixed, ", MixPlan, Views")))
    parts.append("\n".join(overload(cutmix_cuda.mix_targets, kind, how) for kind, how in both.items()))
    body = "\n\n\n".join(parts) + "\n"
    return HEAD.format(imports="\n".join(imports(body)), names=json.dumps(cutmix_cuda.__all__, indent=4)) + body


if __name__ == "__main__":
    STUB.write_text(stub())
