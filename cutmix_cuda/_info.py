"""What there is on this machine, and why: the text of ``python -m cutmix_cuda info``."""

from __future__ import annotations

import os
import platform

import torch

from . import _backends, _build


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
        if name == "cuda" and name in usable and (obstacle := _backends.device_obstacle(None)):
            rows.append((name, f"not available: {obstacle}"))
        elif name in usable:
            rows.append((name, "available"))
        elif status == "available":
            rows.append((name, "not available: installed, but torch sees no CUDA device"))
        else:
            rows.append((name, f"not available: {status}"))
            if not _build.is_source_folder():
                rows.append(("", f"to get it: {_backends.HOW_TO_GET[name]}"))
    return rows


def _build_rows() -> list[tuple[str, str]]:
    """The build's record, and after it what the libraries know of themselves."""
    record = _build.record()
    if record is None:
        rows = [("built", _build.why_not_built("record"))]
    else:
        rows = [("built", " ".join(record.built) or "nothing compiled")]
        rows += [(f"not built: {part}", reason) for part, reason in record.left_out.items()]
        rows += list(record.settings.items())
    for library in ("_C", "_cuda"):
        facts = _build.library_info(library)
        if "CUDA" in facts:
            facts["CUDA"] = _build.cuda_version(int(facts["CUDA"]))
        if facts:
            rows.append((f"{library}.so", ", ".join(f"{name} {value}" for name, value in facts.items())))
    return rows


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
            ("package", str(_build.FOLDER)),
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
