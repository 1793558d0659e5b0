"""Which implementations there are on this machine, and which one an op runs.

=============  =========================================================  ===========================================
Name           What it is                                                 What it needs
=============  =========================================================  ===========================================
``cuda``       ``csrc/cuda``, compiled ahead                              the compiled extension, torch built for CUDA
``triton``     :mod:`cutmix_cuda.triton_kernels`, compiled at first use   triton, an NVIDIA GPU; no compiler
``cpu``        ``csrc/cpu``, compiled ahead, threaded                     the compiled extension
``reference``  :mod:`cutmix_cuda.reference`, plain PyTorch                a device with float64
=============  =========================================================  ===========================================

The choice is automatic by device: CUDA tensors take cuda, then triton; CPU tensors take cpu; whatever is left takes the
reference. The environment variable ``CUTMIX_CUDA_BACKEND`` or an argument ``backend=`` overrides it.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import torch

from . import reference, reference_augment
from ._ops import LIBRARIES, OPS

BACKENDS = ("cuda", "triton", "cpu", "reference")
AUTOMATIC = {"cuda": ("cuda", "triton", "reference"), "cpu": ("cpu", "reference")}  # by device, best first

_DEFAULT = os.environ.get("CUTMIX_CUDA_BACKEND") or None

_HERE = Path(__file__).parent
HOW_TO_GET = {
    "cuda": "install from source with nvcc and a CUDA build of torch (CUTMIX_CUDA_BUILD=cuda pip install ...)",
    "triton": "pip install triton",
    "cpu": "install from source with a C++ compiler (CUTMIX_CUDA_BUILD=cpu pip install ...)",
}

# Why a backend is absent; a backend that is not in here is available.
_missing: dict[str, str] = {}


def _load(name: str, library: str) -> None:
    """Loads a compiled library, whose static initialisers register its ops."""
    path = _HERE / f"{library}.so"
    if not path.exists():
        _missing[name] = f"{path.name} was not built"
        return
    try:
        torch.ops.load_library(path)
    except OSError as error:
        _missing[name] = f"{path.name} does not load: {error}"


def _register(namespace: str, ops: dict, key: str) -> None:
    for name, op in ops.items():
        LIBRARIES[namespace].impl(name, op, key)


def _load_all() -> None:
    specification = reference.OPS | reference_augment.OPS
    _register("cutmix_cuda_reference", specification, "CompositeExplicitAutograd")
    _register("cutmix_cuda", specification, "CompositeExplicitAutograd")  # compiled code goes before it

    _load("cpu", "_C")
    if torch.version.cuda is None:
        _missing["cuda"] = "this build of torch has no CUDA"
    else:
        _load("cuda", "_cuda")

    if torch.version.hip is not None:
        _missing["triton"] = "this build of torch is for ROCm, and the kernel for NVIDIA GPUs"
        return
    try:
        from . import triton_kernels  # installed from its own folder
    except ImportError as error:
        _missing["triton"] = str(error)
        return
    for key in ("CUDA", "CPU") if triton_kernels.INTERPRETED else ("CUDA",):
        _register("cutmix_cuda_triton", triton_kernels.OPS, key)
    if "cuda" in _missing:
        _register("cutmix_cuda", triton_kernels.OPS, "CUDA")


_load_all()


def _namespace(name: str) -> SimpleNamespace:
    ops = getattr(torch.ops, name)
    return SimpleNamespace(**{op: getattr(ops, op).default for op in OPS})


_OPS = {
    None: _namespace("cutmix_cuda"),
    "cuda": _namespace("cutmix_cuda"),
    "triton": _namespace("cutmix_cuda_triton"),
    "cpu": _namespace("cutmix_cuda"),
    "reference": _namespace("cutmix_cuda_reference"),
}


def status() -> dict[str, str]:
    """What became of each backend: ``"available"``, or why it is not."""
    return {name: _missing.get(name, "available") for name in BACKENDS}


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
    return tuple(name for name in BACKENDS if name not in _missing and usable[name])


def _runs_on(backend: str, device_type: str) -> bool:
    if backend == "reference":
        return True
    if backend == "triton" and device_type == "cpu":
        return "triton" not in _missing and torch._C._dispatch_has_kernel_for_dispatch_key(
            "cutmix_cuda_triton::sample_plan", "CPU"
        )
    return {"cuda": "cuda", "triton": "cuda", "cpu": "cpu"}[backend] == device_type


def backend_for(backend: str | None, device_type: str) -> str:
    """The backend that an argument ``backend`` comes to for tensors on "cpu" or "cuda"."""
    automatic = next(name for name in AUTOMATIC[device_type] if name not in _missing)
    return backend or _DEFAULT or automatic


def check_backend(backend: str | None, name: str = "backend") -> str | None:
    """The backend itself, if it can be asked for by name; None stands for the automatic choice.

    Raises ValueError for an unknown name and RuntimeError, saying how to get it, for one that is not there.
    """
    if backend is None:
        return None
    if backend not in BACKENDS:
        raise ValueError(f"{name} must be one of {', '.join(BACKENDS)} or None, got {backend!r}")
    if backend in _missing:
        raise RuntimeError(f"{name} {backend!r} is not available: {_missing[backend]}; {HOW_TO_GET[backend]}")
    return backend


def check_variable() -> str | None:
    """The backend that CUTMIX_CUDA_BACKEND asks for, if any. Raises as :func:`check_backend`."""
    return check_backend(_DEFAULT, "CUTMIX_CUDA_BACKEND")


def ops_for(backend: str | None, device: torch.device) -> SimpleNamespace:
    """The ops of a backend for tensors on a device."""
    chosen = check_variable() if backend is None else check_backend(backend)
    if chosen is not None and not _runs_on(chosen, device.type):
        name, remedy = ("CUTMIX_CUDA_BACKEND", "unset it") if backend is None else ("backend", "use backend=None")
        raise ValueError(f"{name} {chosen!r} does not run on tensors on {device}; {remedy} for what does")
    return _OPS[chosen]
