"""Which implementations there are on this machine, and which one an op runs.

=============  =========================================================  ===========================================
Name           What it is                                                 What it needs
=============  =========================================================  ===========================================
``cuda``       ``csrc/cuda``, compiled ahead                              the compiled extension, torch built for CUDA
``triton``     :mod:`cutmix_cuda.triton_kernels`, compiled at first use   triton, an NVIDIA GPU; no compiler
``cpu``        ``csrc/cpu``, compiled ahead, threaded                     the compiled extension
``reference``  :mod:`cutmix_cuda.reference`, plain PyTorch                a device with float64
=============  =========================================================  ===========================================

The choice is automatic by device: CUDA tensors take cuda, if it was compiled for their GPU, then triton; CPU tensors
take cpu; whatever is left takes the reference. The environment variable ``CUTMIX_CUDA_BACKEND`` or an argument
``backend=`` overrides it. Where the reference runs because nothing better is there, and nobody asked for it, the first
call warns.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from . import _build, reference, reference_adjoint, reference_augment, reference_patches
from ._ops import FEATURE_OPS, LIBRARIES, OPS

BACKENDS = ("cuda", "triton", "cpu", "reference")
AUTOMATIC = {"cuda": ("cuda", "triton", "reference"), "cpu": ("cpu", "reference")}  # by device, best first

_DEFAULT = os.environ.get("CUTMIX_CUDA_BACKEND") or None

_INSTALL = "pip install --no-cache-dir --force-reinstall --no-deps . in a clone of the repository"
HOW_TO_GET = {
    "cuda": f"CUTMIX_CUDA_BUILD=cuda {_INSTALL}, with nvcc and a CUDA build of torch",
    "triton": "pip install triton",
    "cpu": f"CUTMIX_CUDA_BUILD=cpu {_INSTALL}, with a C++ compiler",
}

Ops = dict[str, Any]  # functions by the names of their ops

# Why a backend is absent; a backend that is not in here is available, or Triton before its import.
_missing: dict[str, str] = {}


def _load(name: str, library: str) -> None:
    """Loads a compiled library, whose static initialisers register its ops."""
    path = _build.FOLDER / f"{library}.so"
    if not path.exists():
        _missing[name] = f"{path.name} was not built: {_build.why_not_built(name)}"
        return
    try:
        torch.ops.load_library(path)
    except OSError as error:
        _missing[name] = f"{path.name} does not load: {error}"


@cache
def _triton_kernels():
    """The module of the ops in Triton, imported when something first needs it, because Triton takes as long to import
    as everything else. Raises ImportError, whose text is the reason."""
    if torch.version.hip is not None:
        raise ImportError("this build of torch is for ROCm, and the kernel for NVIDIA GPUs")
    try:
        return import_module(".triton_kernels", __package__)
    except ModuleNotFoundError as error:
        if _build.is_source_folder():
            raise ImportError(_build.why_not_built("triton")) from error
        raise


@cache
def _triton_ops() -> Ops:
    return _triton_kernels().OPS


# torch.compile calls a function that is marked as a constant and does not trace it: these import, warn and read files.
# functools.cache may not wrap them, because torch.compile warns of that.


def _try_triton() -> None:
    """Fills in why Triton is missing, if it is."""
    try:
        _triton_kernels()
    except ImportError as error:
        _missing["triton"] = str(error)


_try_triton._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _why_missing(name: str) -> str | None:
    """Why a backend is absent, or None."""
    if name == "triton" and name not in _missing:
        _try_triton()
    return _missing.get(name)


def _device_type_of(arguments: tuple[object, ...]) -> str:
    """The device of an op's tensors, of which some may be on the CPU anyhow."""
    types = [argument.device.type for argument in arguments if isinstance(argument, Tensor)]
    return next((each for each in types if each != "cpu"), "cpu")


_warned: set[tuple[str, str | None]] = set()


def _warn_of_reference(device_type: str, obstacle: str | None = None) -> None:
    """Warns once that the reference runs although nobody asked for it. obstacle is what keeps a backend that is there
    from running."""
    better = [name for name in AUTOMATIC.get(device_type, ()) if name != "reference"]
    if better and (device_type, obstacle) not in _warned:
        reasons = "; ".join(
            f"{name}: {_why_missing(name) or obstacle} (to get it: {HOW_TO_GET[name]})" for name in better
        )
        warnings.warn(
            f"cutmix_cuda mixes {device_type} tensors by its slow reference, plain PyTorch, because nothing better is "
            f"there. {reasons}. `python -m cutmix_cuda info` tells more; CUTMIX_CUDA_BACKEND=reference silences this.",
            RuntimeWarning,
            stacklevel=2,
        )
        _warned.add((device_type, obstacle))


_warn_of_reference._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _unasked(op: Callable[..., object]) -> Callable[..., object]:
    """An op of the reference for calls that did not ask for it."""

    def warn_and_run(*arguments):
        _warn_of_reference(_device_type_of(arguments))
        return op(*arguments)

    return warn_and_run


_REFERENCE: Ops = reference.OPS | reference_adjoint.OPS | reference_augment.OPS | reference_patches.OPS
_REFERENCE_UNASKED: Ops = {name: _unasked(op) for name, op in _REFERENCE.items()}


@cache
def _triton_or_reference() -> Ops:
    return _REFERENCE_UNASKED if _why_missing("triton") else _triton_ops()


def _deferred(find: Callable[[], Ops]) -> Ops:
    """Ops that are looked up when they are called."""
    return {name: lambda *arguments, name=name: find()[name](*arguments) for name in OPS}


def _register(namespace: str, ops: Ops, key: str) -> None:
    for name, op in ops.items():
        LIBRARIES[namespace].impl(name, op, key)


def _load_all() -> None:
    _register("cutmix_cuda_reference", _REFERENCE, "CompositeExplicitAutograd")
    _register("cutmix_cuda", _REFERENCE_UNASKED, "CompositeExplicitAutograd")  # compiled code goes before it

    _load("cpu", "_C")
    if torch.version.cuda is None:
        _missing["cuda"] = "this build of torch has no CUDA"
    else:
        _load("cuda", "_cuda")
        obstacle = _build.driver_obstacle("_cuda") if "cuda" not in _missing else None
        if obstacle:
            _missing["cuda"] = obstacle

    _register("cutmix_cuda_triton", _deferred(_triton_ops), "CUDA")
    if "cuda" in _missing:
        _register("cutmix_cuda", _deferred(_triton_or_reference), "CUDA")
    # Triton's interpreter, of which Triton itself decides, takes CPU tensors.
    if os.environ.get("TRITON_INTERPRET") and not _why_missing("triton") and _triton_kernels().INTERPRETED:
        _register("cutmix_cuda_triton", _triton_ops(), "CPU")


_load_all()


def _namespace(name: str) -> SimpleNamespace:
    ops = getattr(torch.ops, name)
    return SimpleNamespace(**{op: getattr(ops, op).default for op in (*OPS, *FEATURE_OPS)})


_CPU = torch.device("cpu")
_OPS = {
    None: _namespace("cutmix_cuda"),
    "cuda": _namespace("cutmix_cuda"),
    "triton": _namespace("cutmix_cuda_triton"),
    "cpu": _namespace("cutmix_cuda"),
    "reference": _namespace("cutmix_cuda_reference"),
}


def status() -> dict[str, str]:
    """What became of each backend: ``"available"``, or why it is not."""
    return {name: _why_missing(name) or "available" for name in BACKENDS}


def available_backends() -> tuple[str, ...]:
    """The backends that can run on this machine, best first.

    >>> "reference" in available_backends()
    True

    Returns:
        Of "cuda", "triton", "cpu" and "reference" those that there are. "cuda" and "triton" are listed only where torch
        sees a GPU, or, "triton", under ``TRITON_INTERPRET=1``.
    """
    gpu = torch.cuda.is_available()
    usable = {"cuda": gpu, "triton": gpu or _runs_on("triton", "cpu"), "cpu": True, "reference": True}
    return tuple(name for name in BACKENDS if usable[name] and not _why_missing(name))


def _runs_on(backend: str, device_type: str) -> bool:
    if backend == "reference":
        return True
    if backend == "triton" and device_type == "cpu":
        return torch._C._dispatch_has_kernel_for_dispatch_key("cutmix_cuda_triton::sample_plan", "CPU")
    return {"cuda": "cuda", "triton": "cuda", "cpu": "cpu"}[backend] == device_type


def backend_for(backend: str | None, device_type: str) -> str:
    """The backend that an argument ``backend`` comes to for tensors on "cpu" or on the current GPU."""
    skipped = {"cuda"} if device_type == "cuda" and torch.cuda.is_available() and device_obstacle(None) else set()
    automatic = next(name for name in AUTOMATIC[device_type] if name not in skipped and not _why_missing(name))
    return backend or _DEFAULT or automatic


def check_backend(backend: str | None, name: str = "backend") -> str | None:
    """The backend itself, if it can be asked for by name; None stands for the automatic choice.

    Raises ValueError for an unknown name and RuntimeError, saying how to get it, for one that is not there.
    """
    if backend is None:
        return None
    if backend not in BACKENDS:
        raise ValueError(f"{name} must be one of {', '.join(BACKENDS)} or None, got {backend!r}")
    if reason := _why_missing(backend):
        raise RuntimeError(f"{name} {backend!r} is not available: {reason}; to get it: {HOW_TO_GET[backend]}")
    return backend


def check_variable() -> str | None:
    """The backend that CUTMIX_CUDA_BACKEND asks for, if any. Raises as :func:`check_backend`."""
    return check_backend(_DEFAULT, "CUTMIX_CUDA_BACKEND")


_device_obstacles: dict[int | None, str | None] = {}


def device_obstacle(index: int | None) -> str | None:
    """Why the compiled CUDA code, if it is there, does not run on a GPU, or None."""
    if _why_missing("cuda"):
        return None
    if index not in _device_obstacles:
        capability = torch.cuda.get_device_capability(index)
        _device_obstacles[index] = _build.device_obstacle("_cuda", capability)
    return _device_obstacles[index]


device_obstacle._dynamo_marked_constant = True  # type: ignore[attr-defined]


def ops_for(backend: str | None, device: torch.device) -> SimpleNamespace:
    """The ops of a backend for tensors on a device."""
    if backend is None and _DEFAULT is None and device == _CPU:
        return _OPS[None]  # as below, in a tenth of the time
    chosen = check_variable() if backend is None else check_backend(backend)
    name, remedy = ("CUTMIX_CUDA_BACKEND", "unset it") if backend is None else ("backend", "use backend=None")
    if chosen is not None and not _runs_on(chosen, device.type):
        raise ValueError(f"{name} {chosen!r} does not run on tensors on {device}; {remedy} for what does")
    if device.type == "cuda" and chosen in (None, "cuda") and (obstacle := device_obstacle(device.index)):
        if chosen is not None:
            raise RuntimeError(f"{name} {chosen!r} is not available on {device}: {obstacle}; {remedy} for what is")
        chosen = "triton"
        if _why_missing("triton"):
            chosen = "reference"
            _warn_of_reference(device.type, obstacle)
    return _OPS[chosen]
