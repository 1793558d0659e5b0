"""The CUDA kernels as machine code: compiled as setup.py compiles them, taken apart by the tools in Triton's wheel."""

from __future__ import annotations

import functools
import importlib.util
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..ptx.toolchain import cuda_ptx, run_nvcc
from .execution import CUDA_SOURCE, cuda_flags


@functools.cache
def tools() -> Path | None:
    """The folder of cuobjdump and nvdisasm; None where Triton is not installed."""
    spec = importlib.util.find_spec("triton")
    folder = Path(spec.origin or "").parent / "backends" / "nvidia" / "bin" if spec else Path()
    return folder if (folder / "cuobjdump").exists() else None


@dataclass
class Instruction:
    address: int
    opcode: str  # with its modifiers: LDG.E.128
    operands: str


@dataclass
class MachineKernel:
    """One kernel, in C++ named `name`; `resources` are ptxas's: REG (a thread), STACK, SHARED, LOCAL (bytes)."""

    name: str
    resources: dict[str, int]
    instructions: list[Instruction]
    labels: dict[str, int]  # addresses

    def matching(self, *prefixes: str) -> list[Instruction]:
        return [each for each in self.instructions if each.opcode.startswith(prefixes)]

    def targets(self, *prefixes: str) -> list[tuple[int, str]]:
        """Where instructions branch from, and the labels that they branch to."""
        found = [(each.address, re.search(r"`\((\S+)\)", each.operands)) for each in self.matching(*prefixes)]
        return [(address, match[1]) for address, match in found if match]

    def loops(self) -> list[list[Instruction]]:
        """The innermost loops: from where a branch leads back to, up to it, with no such branch in between."""
        spans = [(self.labels[label], at) for at, label in self.targets("BRA") if self.labels.get(label, at) < at]
        inner = [(a, b) for a, b in spans if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in spans)]
        return [[each for each in self.instructions if a <= each.address <= b] for a, b in inner]

    def pixel_loop(self) -> list[Instruction]:
        """The loop over pixels: the tightest that loads, for that over targets of class indices only stores."""
        return min((loop for loop in self.loops() if any(each.opcode.startswith("LDG") for each in loop)), key=len)

    def loads_under_way(self, bits: int) -> int:
        """The most loads so wide that follow each other before anything that was loaded is used."""
        most, loaded = 0, set[str]()
        for each in self.instructions:
            first, *others = re.findall(r"\bR\d+\b", each.operands) or [""]
            loads = each.opcode.startswith("LDG")
            if loaded.intersection(others if loads else [first, *others]):
                loaded.clear()
            if loads and bits_of(each) == bits:
                loaded.add(first)
                most = max(most, len(loaded))
        return most


def bits_of(access: Instruction) -> int:
    """How wide a load or store is."""
    match = re.search(r"\.[US]?(8|16|64|128)\b", access.opcode)
    return int(match[1]) if match else 32


def _tool(name: str, *arguments: str | Path) -> str:
    folder = tools()
    assert folder is not None
    return subprocess.run([folder / name, *arguments], capture_output=True, text=True, check=True).stdout


def _name(mangled: str) -> str:
    """mix_in_place<16> of _ZN6cutmix12mix_in_placeILi16EEEvNS_12KernelParamsE; other names as they are."""
    match = re.match(r"_ZN6cutmix\d+(mix_[a-z_]+)(?:ILi(\d+)E)?E", mangled)
    if not match:
        return mangled
    return f"{match[1]}<{match[2]}>" if match[2] else match[1]


INSTRUCTION_BYTES = 16
_LINE = re.compile(r"^(?:(\S+):$|\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]*)([^;]*);)", re.MULTILINE)


def resources(cubin: Path) -> dict[str, dict[str, int]]:
    """What ptxas gave to each kernel of a file, by mangled name."""
    usage = re.findall(r"Function ([^\s:]+):\n(.*)", _tool("cuobjdump", "-res-usage", cubin))
    return {
        name: {key: int(n) for key, n in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", text)} for name, text in usage
    }


@functools.cache
def machine_kernels(architecture: int, source: str = CUDA_SOURCE) -> dict[str, MachineKernel]:
    """The kernels of a CUDA source for sm_<architecture>, by name."""
    # From the PTX that other tests want as well, by the steps that nvcc takes from CUDA to machine code.
    ptx = cuda_ptx(source, architecture, cuda_flags())
    options = "-cubin", f"-arch=sm_{architecture}", *cuda_flags()
    cubin = run_nvcc(*options, source=ptx, suffix=".ptx", to=".cubin")
    kernels = {name: MachineKernel(_name(name), used, [], {}) for name, used in resources(cubin).items()}
    code = _tool("nvdisasm", "-c", cubin)
    for mangled, text in re.findall(r"\.section\s+\.text\.([^\s,]+)(.*?)(?=\.section\s|\Z)", code, re.DOTALL):
        kernel = kernels[mangled]
        for label, address, opcode, operands in _LINE.findall(text):
            if label:
                kernel.labels[label] = kernel.instructions[-1].address + INSTRUCTION_BYTES if kernel.instructions else 0
            else:
                kernel.instructions.append(Instruction(int(address, 16), opcode, operands.strip()))
    return {kernel.name: kernel for kernel in kernels.values()}
