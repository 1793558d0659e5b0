"""What there is on this machine, and why: the text of ``python -m cutmix_cuda info``."""

from __future__ import annotations

import os
import platform

import torch

from . import _backends


def _gpu() -> str:
    if torch.version.cuda is None:
        return "none: this torch is built without CUDA"
    if not torch.cuda.is_available():
        return "none: torch sees no CUDA device"
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()} (compute capability {major}.{minor})"


def _backend_rows() -> list[tuple[str, str]]:
    usable, rows = _backends.available_backends(), []
    for name, status in _backends.status().items():
        if name in usable:
            rows.append((name, "available"))
        elif status == "available":
            rows.append((name, "not available: installed, but torch sees no CUDA device"))
        else:
            rows += [(name, f"not available: {status}"), ("", f"to get it: {_backends.HOW_TO_GET[name]}")]
    return rows


def _build_rows() -> list[tuple[str, str]]:
    try:
        from . import _build_info  # type: ignore[attr-defined]
    except ImportError:
        return [("compiled", "nothing: a pure Python install, or sources that were not built")]
    facts = {
        "built as version": _build_info.version,
        "against torch": _build_info.torch,
        "C++ compiler": _build_info.cxx,
        "C++ flags": _build_info.cxx_flags,
        "nvcc": _build_info.nvcc,
        "nvcc flags": _build_info.nvcc_flags,
        "GPU architectures": _build_info.cuda_archs,
    }
    return [(name, value or "none: no CUDA part") for name, value in facts.items()]


def _chosen(device_type: str) -> str:
    try:
        _backends.check_variable()
    except (ValueError, RuntimeError) as error:
        return f"none: {error}"
    return _backends.backend_for(None, device_type)


def report() -> str:
    """The report, in sections of aligned rows."""
    from . import __version__

    cuda = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    sections = {
        f"cutmix_cuda {__version__}": [
            ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
            ("torch", f"{torch.__version__}, {cuda}"),
            ("GPU", _gpu()),
        ],
        "Backends": _backend_rows(),
        "Chosen": [
            ("CPU tensors", _chosen("cpu")),
            ("CUDA tensors", _chosen("cuda")),
            ("CUTMIX_CUDA_BACKEND", os.environ.get("CUTMIX_CUDA_BACKEND") or "not set: the best for each device"),
        ],
        "Build": _build_rows(),
    }
    width = max(len(name) for rows in sections.values() for name, _ in rows)
    lines = []
    for title, rows in sections.items():
        lines += [title, *(f"  {name:<{width}}  {value}" for name, value in rows), ""]
    return "\n".join(lines[:-1])
