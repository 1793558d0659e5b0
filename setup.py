"""Build of the compiled parts; everything that describes the project stands in pyproject.toml.

CUTMIX_CUDA_BUILD   cuda | cpu | python   what to compile; by default whatever this machine can
TORCH_CUDA_ARCH_LIST "8.0;9.0+PTX"        GPU architectures; by default DEFAULT_ARCHS
CUDA_HOME, CXX                            the CUDA toolkit and the C++ compiler to use
MAX_JOBS                                  how many compilers run at a time; by default one a core
CUTMIX_CUDA_REPOSITORY                    address of the repository that a release is published from

torch is never imported here: its folder is looked up, and the build needs no more than its headers and libraries.
What was built, and why the rest was not, is written into the package: build.json, which `info` prints.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

from setuptools import Command, Extension, setup
from setuptools._distutils.ccompiler import new_compiler
from setuptools._distutils.sysconfig import customize_compiler
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

CXX_FLAGS = [
    "-O3",
    "-std=c++20",
    "-ffp-contract=off",  # every backend gives the same bits, so no fused multiply-add ...
    "-fno-fast-math",  # ... and no reordering
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-g0",  # some Pythons hand their own -g on
]
NVCC_FLAGS = [
    "-O3",
    "-std=c++20",
    "--fmad=false",
    "--no-device-link",  # no device code is shared between files
    # Static: the library then runs beside a torch of any CUDA minor or major version. Every runtime in a process uses
    # the device's one primary context, so torch's streams and pointers are valid here.
    "--cudart=static",
]
LINK_FLAGS = ["-z", "defs"]  # a missing symbol is an error now, not when the library is loaded

# LibTorch's stable ABI as torch 2.10 froze it: one build serves every torch from there on.
MINIMUM_TORCH = (2, 10)
TORCH_TARGET_VERSION = f"0x{MINIMUM_TORCH[0]:02x}{MINIMUM_TORCH[1]:02x}000000000000"

PACKAGE = "cutmix_cuda"
# Those that nvcc knows are built, and PTX of the last of them for the GPUs to come. The PTX of 8.6 is for Jetson boards
# (8.7, 11.0), which before CUDA 13.2 run no other GPU's machine code.
DEFAULT_ARCHS = "7.0;7.5;8.0;8.6+PTX;8.9;9.0;10.0;12.0"
MODES = ("cuda", "cpu", "python")

NO_TORCH = """\
torch was not found. Install it first, where the package is to run. A build that is isolated from that environment, as
by uv and `python -m build`, does not see it; these two do:
    pip install "setuptools>=77" && pip install --no-build-isolation .
    uv pip install "setuptools>=77" && uv pip install --no-build-isolation .
CUTMIX_CUDA_BUILD=python compiles nothing and needs no torch: Triton then runs on GPUs, and plain PyTorch, which is
slow, on CPUs."""


@dataclass(frozen=True)
class Torch:
    """The torch to build for."""

    root: Path
    version: str
    cuda: str | None  # "13.0"; None for a build without CUDA

    @property
    def include(self) -> Path:
        return self.root / "include"

    @property
    def lib(self) -> Path:
        return self.root / "lib"


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit."""

    root: Path
    version: str  # "13.0"
    archs: frozenset[str]  # what its nvcc compiles for: {"7.5", "8.0", ...}

    @property
    def nvcc(self) -> Path:
        return self.root / "bin" / "nvcc"


@dataclass
class Plan:
    """What will be compiled, with what, and what was left out and why."""

    mode: str
    torch: Torch | None = None
    toolkit: Toolkit | None = None
    archs: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # the reason of each part

    @property
    def parts(self) -> tuple[str, ...]:
        """What is compiled: a part needs those after it."""
        return MODES[MODES.index(self.mode) : -1]

    def settings(self) -> dict[str, str]:
        """What was compiled with what; no folders, because the package travels."""
        rows = {"CUTMIX_CUDA_BUILD": os.environ.get("CUTMIX_CUDA_BUILD") or "not set"}
        if self.parts and self.torch:
            rows |= {
                "torch": self.torch.version,
                "C++ compiler": " ".join(cxx_command()),
                "C++ flags": " ".join(CXX_FLAGS),
            }
        if self.toolkit:
            rows |= {
                "CUDA toolkit": self.toolkit.version,
                "nvcc flags": " ".join(NVCC_FLAGS),
                "GPU architectures": " ".join(self.archs),
            }
        return rows

    def record(self) -> str:
        """The text of build.json."""
        content = {"built": self.parts, "left_out": self.left_out, "settings": self.settings()}
        return json.dumps(content, indent=2) + "\n"

    def table(self) -> str:
        rows = {"built": " ".join(self.parts) or "nothing compiled", **self.settings()}
        rows |= {f"not built: {part}": reason for part, reason in self.left_out.items()}
        if self.torch:
            rows["torch folder"] = str(self.torch.root)
        if self.toolkit:
            rows["CUDA folder"] = str(self.toolkit.root)
        return "\n".join(["cutmix_cuda build", *(f"  {name:<17} {value}" for name, value in rows.items())])


def find_torch() -> Torch | None:
    """The torch that the package will run with.

    pip's isolated builds hide the installed torch from `import`, but run under the interpreter that owns it; looking
    into that interpreter's site-packages finds it, and spares the download of a second copy. `python -m build` makes an
    environment of its own, and leaves the variable of an activated one as it was. uv sets even that to its own.
    """
    spec = find_spec("torch")
    folders = list(spec.submodule_search_locations or []) if spec else []
    activated = [os.environ[name] for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if os.environ.get(name)]
    for prefix in (None, *activated):
        base = {"base": prefix, "platbase": prefix} if prefix else None
        folders += [str(Path(sysconfig.get_path(name, vars=base)) / "torch") for name in ("purelib", "platlib")]
    for folder in map(Path, folders):
        if (folder / "version.py").is_file():
            facts = runpy.run_path(str(folder / "version.py"))
            return Torch(folder, facts["__version__"], facts["cuda"])
    return None


def release(version: str) -> tuple[int, ...]:
    """(2, 14) of "2.14.1+cu130"."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def find_nvcc() -> Path | None:
    """The nvcc of CUDA_HOME, the PATH, PyPI's CUDA packages beside torch or /usr/local/cuda, in this order."""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    candidates = [Path(home) / "bin" / "nvcc" for home in homes]
    on_path = shutil.which("nvcc")
    candidates += [Path(on_path)] if on_path else []
    candidates += sorted(Path(sysconfig.get_path("purelib"), "nvidia").glob("cu*/bin/nvcc"), reverse=True)
    candidates.append(Path("/usr/local/cuda/bin/nvcc"))
    return next((nvcc for nvcc in candidates if os.access(nvcc, os.X_OK)), None)


def resolve_toolkit(nvcc: Path) -> Toolkit:
    """The toolkit behind `nvcc`, which may be a wrapper anywhere: nvcc itself is asked for its folder."""

    def ask(*arguments: str) -> str:
        return subprocess.run([nvcc, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout

    top = re.search(r"^#\$ TOP=(.+)$", ask("--dryrun", "anything.cu"), re.MULTILINE)
    version = re.search(r"release (\d+\.\d+)", ask("--version"))
    archs = re.findall(r"compute_(\d+)(\d)", ask("--list-gpu-arch"))
    if not top or not version or not archs:
        raise OSError(f"{nvcc} does not tell its folder, its version and its architectures")
    root = Path(top[1].strip()).resolve()
    return Toolkit(root, version[1], frozenset(f"{major}.{minor}" for major, minor in archs))


def parse_archs(text: str) -> list[str]:
    """["8.0", "9.0+PTX"] of "8.0;9.0+PTX" or "8.0 9.0+PTX"."""
    archs = re.split(r"[;,\s]+", text.strip(";, \n"))
    for arch in archs:
        if not re.fullmatch(r"\d+\.\d[af]?(\+PTX)?", arch):
            raise SystemExit(f"TORCH_CUDA_ARCH_LIST: {arch!r} is not like 8.0 or 9.0+PTX")
    return archs


def choose_archs(requested: str | None, toolkit: Toolkit) -> list[str]:
    """The requested architectures, all of them or an error; without a request what nvcc knows of DEFAULT_ARCHS."""

    def known(arch: str) -> bool:
        return arch.removesuffix("+PTX").rstrip("af") in toolkit.archs

    if not requested:
        *others, newest = filter(known, parse_archs(DEFAULT_ARCHS))
        return [*others, f"{newest}+PTX"]
    archs = parse_archs(requested)
    unknown = [arch for arch in archs if not known(arch)]
    if unknown:
        raise SystemExit(f"TORCH_CUDA_ARCH_LIST: CUDA {toolkit.version} cannot compile for {' '.join(unknown)}")
    return archs


def gencode_flags(archs: list[str]) -> list[str]:
    """nvcc's flags for `archs`: machine code for each, and PTX too where it ends in +PTX."""
    flags = []
    for arch in archs:
        number = arch.removesuffix("+PTX").replace(".", "")
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if arch.endswith("+PTX"):
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def split_compiler(command: str) -> tuple[str, list[str]]:
    """("g++", ["-m64"]) of "ccache g++ -m64": the compiler without a launcher before it, and its options."""
    words = shlex.split(command)
    names = list(takewhile(lambda word: not word.startswith("-"), words))
    return (names[-1] if names else ""), words[len(names) :]


def nvcc_command(nvcc: Path, archs: list[str]) -> list[str]:
    """nvcc with the flags for every CUDA file; without `archs` it takes one architecture, its own default."""
    host_compiler, host_options = split_compiler(os.environ.get("CXX", ""))
    host_flags = [*host_options, *CXX_FLAGS, "-Wno-unknown-pragmas", "-fPIC"]  # it meets #pragma unroll
    return [
        str(nvcc),
        *NVCC_FLAGS,
        *gencode_flags(archs),
        *(["-ccbin", host_compiler] if host_compiler else []),
        *(f"-Xcompiler={flag}" for flag in host_flags if not flag.startswith("-std")),  # nvcc hands its own -std on
    ]


def ops_flags(torch: Torch) -> list[str]:
    """The headers of the ops. -isystem: the warnings of torch's are not ours."""
    return ["-Icsrc", "-isystem", str(torch.include), f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}"]


OPS_HEADER = '#include "mix_ops.h"\n'  # with all that the ops take from torch


def cpu_obstacle(torch: Torch | None) -> str | None:
    """Why nothing can be compiled here, or None."""
    if sys.platform != "linux":
        return f"the compiled parts are built on Linux only, and this is {sys.platform}"
    if torch is None:
        return "torch was not found"
    if release(torch.version) < MINIMUM_TORCH:
        return f"torch {torch.version} is older than {'.'.join(map(str, MINIMUM_TORCH))}"
    return compiler_obstacle(torch)


def cxx_command() -> list[str]:
    """The C++ compiler with what CXX, CXXFLAGS and this Python say."""
    compiler = new_compiler()
    customize_compiler(compiler)
    return compiler.compiler_so_cxx


def compiler_obstacle(torch: Torch) -> str | None:
    """Why the C++ compiler does not do, or None: it may be missing, or torch's headers too new for it or for us."""
    return compile_obstacle("C++", [*cxx_command(), *CXX_FLAGS, *ops_flags(torch)], "probe.cpp", OPS_HEADER)


def nvcc_obstacle(torch: Torch, toolkit: Toolkit) -> str | None:
    """Why nvcc does not do, or None: it refuses host compilers newer than itself."""
    command = [*nvcc_command(toolkit.nvcc, []), *ops_flags(torch), "-DUSE_CUDA"]
    return compile_obstacle("CUDA", command, "probe.cu", f"{OPS_HEADER}__global__ void probe() {{}}\n")


def compile_obstacle(language: str, command: list[str], name: str, program: str) -> str | None:
    """Why `command`, with the flags of the real ones, cannot compile `program`, or None."""
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, name)
        probe.write_text(program)
        try:
            subprocess.run([*command, "-c", str(probe), "-o", f"{probe}.o"], capture_output=True, text=True, check=True)
        except OSError:
            return f"there is no {language} compiler {command[0]!r}"
        except subprocess.CalledProcessError as error:
            reasons = (line for line in error.stderr.splitlines() if "error" in line or "fatal" in line)
            return f"the {language} compiler {command[0]!r} failed: {next(reasons, error)}"
    return None


def cuda_obstacle(torch: Torch | None, toolkit: Toolkit | None) -> str | None:
    """Why there can be no CUDA part, or None."""
    if torch is None:
        return "torch was not found"
    if torch.cuda is None:
        return f"torch {torch.version} is a build without CUDA"
    if toolkit is None:
        return "there is no nvcc in CUDA_HOME, on the PATH or in /usr/local/cuda"
    if release(torch.cuda)[0] != release(toolkit.version)[0]:
        return f"torch {torch.version} is for CUDA {torch.cuda}, and the toolkit in {toolkit.root} is {toolkit.version}"
    return nvcc_obstacle(torch, toolkit)


def usable_toolkit(torch: Torch | None) -> tuple[Toolkit | None, str | None]:
    """The toolkit found here, and why there can be no CUDA part, or None."""
    try:
        nvcc = find_nvcc()
        toolkit = resolve_toolkit(nvcc) if nvcc else None
    except OSError as error:
        return None, str(error)
    return toolkit, cuda_obstacle(torch, toolkit)


def choose_mode(requested: str | None, no_cpu: str | None, no_cuda: str | None) -> tuple[str, dict[str, str]]:
    """What to build, and the reason of each part that is left out; an error where the request cannot be met."""
    if requested and requested not in MODES:
        raise SystemExit(f"CUTMIX_CUDA_BUILD: {requested!r} is none of {', '.join(MODES)}")
    obstacles = {"cuda": no_cpu or no_cuda, "cpu": no_cpu, "python": None}
    if requested:
        if obstacles[requested]:
            raise SystemExit(f"CUTMIX_CUDA_BUILD={requested} is impossible: {obstacles[requested]}")
        skipped = MODES[: MODES.index(requested)]
        return requested, {part: f"CUTMIX_CUDA_BUILD={requested}" for part in skipped}
    left_out: dict[str, str] = {}
    for mode in MODES:
        obstacle = obstacles[mode]
        if obstacle is None:
            break
        left_out[mode] = obstacle
    return mode, left_out


def resolve() -> Plan:
    """Everything that this machine and the environment variables decide."""
    requested = os.environ.get("CUTMIX_CUDA_BUILD")
    if requested == "python":
        mode, left_out = choose_mode(requested, None, None)
        return Plan(mode, left_out=left_out)
    torch = find_torch()
    if torch is None:
        raise SystemExit(NO_TORCH)
    no_cpu = cpu_obstacle(torch)
    toolkit, no_cuda = (None, None) if requested == "cpu" else usable_toolkit(torch)
    mode, left_out = choose_mode(requested, no_cpu, no_cuda)
    if mode != "cuda" or toolkit is None:
        return Plan(mode, torch, left_out=left_out)
    return Plan(mode, torch, toolkit, choose_archs(os.environ.get("TORCH_CUDA_ARCH_LIST"), toolkit), left_out)


class StableLibrary(Extension):
    """Ops on LibTorch's stable ABI: a plain shared library for torch.ops.load_library, and no Python module."""

    def __init__(self, name: str, torch: Torch, **arguments):
        super().__init__(
            f"{PACKAGE}.{name}",
            library_dirs=[str(torch.lib)],
            depends=headers(),
            language="c++",
            **arguments,
        )
        self.ops_flags = ops_flags(torch)
        # Keeps this machine's folders out of the messages of torch's check macros.
        self.prefix_map = f"-ffile-prefix-map={torch.include}/="

    def compile(self, build: "BuildExt", source: str, folder: str) -> str:
        """The object file made of a source."""
        flags = [*CXX_FLAGS, self.prefix_map, *self.ops_flags]
        (made,) = build.compiler.compile([source], folder, macros=self.define_macros, extra_postargs=flags)
        return made

    def link(self, build: "BuildExt", objects: list[str], output: str) -> None:
        flags = [f"-Wl,{','.join(LINK_FLAGS)}"]
        build.compiler.link_shared_object(
            objects, output, None, self.libraries, self.library_dirs, extra_postargs=flags, target_lang="c++"
        )


class CudaLibrary(StableLibrary):
    """A StableLibrary that nvcc compiles and links."""

    def __init__(self, name: str, torch: Torch, toolkit: Toolkit, archs: list[str], **arguments):
        super().__init__(name, torch, **arguments)
        self.define_macros.append(("USE_CUDA", None))
        self.library_dirs.append(str(toolkit.root / "lib"))  # where nvcc from PyPI has its libraries, and does not look
        self.nvcc = toolkit.nvcc
        self.archs = archs

    def compile(self, build: "BuildExt", source: str, folder: str) -> str:
        made = Path(folder, source).with_suffix(".o")
        build.mkpath(str(made.parent))
        command = [
            *nvcc_command(self.nvcc, self.archs),
            f"--threads={-(-jobs() // len(self.sources))}",  # architectures at a time
            f"-Xcompiler={self.prefix_map}",
            *self.ops_flags,
            *(f"-D{name}" if value is None else f"-D{name}={value}" for name, value in self.define_macros),
            *("-c", source, "-o", str(made)),
        ]
        build.spawn(command)
        return str(made)

    def link(self, build: "BuildExt", objects: list[str], output: str) -> None:
        command = [
            *nvcc_command(self.nvcc, self.archs),
            *("-shared", *objects, "-o", output),
            *(f"-L{folder}" for folder in self.library_dirs),
            *(f"-l{library}" for library in self.libraries),
            *(f"-Xlinker={flag}" for flag in LINK_FLAGS),
        ]
        build.spawn(command)


def jobs() -> int:
    """How many compilers may run at a time."""
    return int(os.environ.get("MAX_JOBS") or len(os.sched_getaffinity(0)))


def headers() -> list[str]:
    return sorted(str(path) for pattern in ("*.h", "*.cuh") for path in Path("csrc").rglob(pattern))


def sources(backend: str, ending: str) -> list[str]:
    """Its files: those of several patches a sample, of the batch tail, of mixing, and of gradients; longest first."""
    return [f"csrc/{backend}/{part}_{backend}{ending}" for part in ("patches", "augment", "mix", "adjoint")]


def extensions(plan: Plan) -> list[Extension]:
    """The libraries of `plan`."""
    if plan.mode == "python" or plan.torch is None:
        return []
    cpu = StableLibrary(
        "_C",
        plan.torch,
        sources=[*sources("cpu", ".cpp"), "csrc/build_info.cpp"],
        libraries=["torch_cpu"],
    )
    if plan.toolkit is None:
        return [cpu]
    cuda = CudaLibrary(
        "_cuda",
        plan.torch,
        plan.toolkit,
        plan.archs,
        sources=[*sources("cuda", ".cu"), "csrc/build_info.cpp"],
        libraries=["torch_cpu", "torch_cuda"],
    )
    return [cpu, cuda]


class BuildExt(build_ext):
    """build_ext that knows the two kinds of library above too, and builds anew when a command or version changed."""

    def get_ext_filename(self, fullname: str) -> str:
        if isinstance(self.ext_map.get(fullname), StableLibrary):
            return str(Path(*fullname.split(".")).with_suffix(".so"))
        return super().get_ext_filename(fullname)

    def build_extensions(self) -> None:
        version = self.distribution.get_version()
        for extension in self.extensions:
            extension.define_macros.append(("CUTMIX_VERSION", f'"{version}"'))
        built_before = Path(self.build_temp, "settings")
        compiler = self.compiler.compiler_so_cxx, self.compiler.linker_so_cxx  # with CXX, CXXFLAGS and the like in them
        settings = repr([*compiler, CXX_FLAGS, NVCC_FLAGS, LINK_FLAGS, *map(vars, self.extensions)])
        if not built_before.is_file() or built_before.read_text() != settings:
            self.force = True
        self.build_libraries([each for each in self.extensions if isinstance(each, StableLibrary)])
        super().build_extensions()
        built_before.parent.mkdir(parents=True, exist_ok=True)
        built_before.write_text(settings)

    def build_libraries(self, libraries: list[StableLibrary]) -> None:
        """Compiles all sources of those that are out of date side by side, CUDA's, which take longest, first."""
        outdated = [each for each in reversed(libraries) if self.force or self.is_outdated(each)]
        with ThreadPoolExecutor(jobs()) as pool:
            started = [
                [
                    pool.submit(each.compile, self, source, str(Path(self.build_temp, each.name)))
                    for source in each.sources
                ]
                for each in outdated
            ]
            try:
                compiled = [[source.result() for source in sources] for sources in started]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for library, objects in zip(outdated, compiled, strict=True):
            output = self.get_ext_fullpath(library.name)
            self.mkpath(str(Path(output).parent))
            library.link(self, objects, output)

    def is_outdated(self, library: StableLibrary) -> bool:
        return newer_group([*library.sources, *library.depends], self.get_ext_fullpath(library.name))

    def build_extension(self, extension: Extension) -> None:
        if not isinstance(extension, StableLibrary):
            super().build_extension(extension)


class BuildRecord(Command):
    """Writes what was built, and why the rest was not, into the package."""

    plan: Plan  # set by main()
    user_options: list[tuple[str, str, str]] = []

    def initialize_options(self) -> None:
        self.build_lib: str | None = None
        self.editable_mode = False

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    @property
    def path(self) -> Path:
        folder = None if self.editable_mode else self.build_lib
        return Path(folder or "", PACKAGE, "build.json")

    def run(self) -> None:
        self.mkpath(str(self.path.parent))
        self.path.write_text(self.plan.record())

    def get_outputs(self) -> list[str]:
        return [str(self.path)]

    def get_source_files(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class Build(build):
    """build that first removes what an earlier one left in the build folder, which would end up in the wheel."""

    sub_commands = [*build.sub_commands, ("build_record", None)]

    def run(self) -> None:
        compiled = {Path(path) for path in self.get_finalized_command("build_ext").get_outputs()}
        for path in Path(self.build_lib).rglob("*"):
            if path.is_file() and path not in compiled:
                path.unlink()
        super().run()


class BdistWheel(bdist_wheel):
    """A wheel for every Python, because no library in it knows which one runs."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[-1]


def published() -> dict[str, object]:
    """The README and the addresses that a package index shows, where the README's relative links lead nowhere."""
    readme, urls = Path("README.md").read_text(encoding="utf-8"), {}
    repository = os.environ.get("CUTMIX_CUDA_REPOSITORY", "").rstrip("/")
    if repository:
        (version,) = re.findall(r'^__version__ = "(.+)"', Path(PACKAGE, "__init__.py").read_text(), re.MULTILINE)

        def absolute(link: re.Match) -> str:
            kind = "raw" if link["picture"] else "blob"
            return f"{link['picture']}[{link['text']}]({repository}/{kind}/v{version}/{link['path']})"

        readme = re.sub(r"(?P<picture>!?)\[(?P<text>[^]]*)\]\((?!\w+:|#)(?P<path>[^)\s]+)\)", absolute, readme)
        urls = {
            "Source": repository,
            "Issues": f"{repository}/issues",
            "Changelog": f"{repository}/blob/v{version}/CHANGELOG.md",
        }
    return {"long_description": readme, "long_description_content_type": "text/markdown", "project_urls": urls}


def main() -> None:
    only_metadata = {"egg_info", "dist_info", "sdist"} & set(sys.argv)
    plan = Plan("python") if only_metadata else resolve()
    if not only_metadata:
        print(plan.table(), flush=True)
    BuildRecord.plan = plan
    commands = {"build": Build, "build_ext": BuildExt, "build_record": BuildRecord, "bdist_wheel": BdistWheel}
    setup(ext_modules=extensions(plan), cmdclass=commands, **published())


if __name__ == "__main__":
    main()
