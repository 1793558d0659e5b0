"""What is built, from what, and what ends up in the packages: setup.py, pyproject.toml and MANIFEST.in."""

import email.message
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from setuptools import Distribution

import cutmix_cuda
from cutmix_cuda import _build

ROOT = Path(__file__).resolve().parents[2]
MADE = shutil.ignore_patterns(".*", "_build", "_gallery", "build", "dist", "*.egg-info", "*.so", "__pycache__")


def load_setup():
    """setup.py as a module; it does nothing when imported."""
    spec = importlib.util.spec_from_file_location("cutmix_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


setup = load_setup()


def run(*command, cwd, **variables) -> str:
    """What `command` prints, errors and all; it must succeed."""
    environment = {name: value for name, value in os.environ.items() if name != "CUTMIX_CUDA_BUILD"} | variables
    done = subprocess.run(
        command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """The unpacked source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, folder / "checkout", ignore=MADE)
    run(sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", folder, cwd=folder / "checkout")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


PURE = [{"CUTMIX_CUDA_BUILD": "python"}, {"CXX": "/nonexistent/c++"}]


def why_pure(variables: dict[str, str]) -> str:
    """How the reason begins that a build under these variables compiles nothing."""
    return "CUTMIX_CUDA_BUILD=python" if "CUTMIX_CUDA_BUILD" in variables else "there is no C++ compiler '/nonexistent/"


@pytest.fixture(scope="module", params=PURE, ids=["asked for", "no compiler"])
def pure_wheel(request, sdist, tmp_path_factory) -> Path:
    """The wheel without compiled parts, built from the source distribution in a folder that was built in before."""
    folder = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(sdist, folder / "source")
    left_over = source / "build" / "lib" / "cutmix_cuda" / "renamed_since.py"
    left_over.parent.mkdir(parents=True)
    left_over.touch()
    pip = (sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--verbose")
    printed = run(*pip, "--wheel-dir", folder, source, cwd=folder, **request.param)
    assert re.search("^ *built +nothing compiled$", printed, re.MULTILINE)
    assert re.search(f"^ *not built: cpu +{re.escape(why_pure(request.param))}", printed, re.MULTILINE)
    (wheel,) = folder.glob("*.whl")
    record = json.loads(zipfile.ZipFile(wheel).read("cutmix_cuda/build.json"))
    assert record["built"] == []
    assert record["left_out"].keys() == {"cuda", "cpu"}
    assert record["left_out"]["cpu"].startswith(why_pure(request.param))
    assert record["settings"]["CUTMIX_CUDA_BUILD"] == request.param.get("CUTMIX_CUDA_BUILD", "not set")
    return wheel


def python_files(folder: str) -> set[str]:
    return {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob("*.py")}


def test_sdist_holds_what_a_build_needs(sdist):
    checkout = sdist.parent / "checkout"
    needed = [path for path in (checkout / "csrc").rglob("*") if path.is_file()]
    needed += [*(checkout / "cutmix_cuda").rglob("*.py"), *(checkout / "triton_kernels").rglob("*.py")]
    needed += [path for folder in ("tests", "docs") for path in (checkout / folder).rglob("*.*")]
    needed += [checkout / name for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")]
    needed += [checkout / name for name in ("Makefile", "requirements-dev.txt", "CONTRIBUTING.md")]
    missing = [path for path in needed if not (sdist / path.relative_to(checkout)).is_file()]
    assert len(needed) > 10
    assert missing == []


def metadata_of(folder: Path, tmp_path: Path, **variables) -> email.message.Message:
    run(sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", tmp_path, cwd=folder, **variables)
    (information,) = tmp_path.glob("*.egg-info/PKG-INFO")
    return email.message_from_string(information.read_text())


def test_links_of_a_published_readme_name_the_repository(sdist, tmp_path):
    """On a package index relative ones would lead nowhere."""
    readme = (sdist / "README.md").read_text()
    assert metadata_of(sdist, tmp_path).get_payload().strip() == readme.strip()

    address = "https://example.org/owner/name"
    metadata = metadata_of(sdist, tmp_path, CUTMIX_CUDA_REPOSITORY=f"{address}/")
    shown = metadata.get_payload()
    at = f"{{}}/v{cutmix_cuda.__version__}/"
    for kind, path in (("raw", "docs/mixed.png"), ("blob", "docs/start.md"), ("blob", "LICENSE")):
        assert f"]({path}" in readme and f"]({address}/{at.format(kind)}{path}" in shown
    links = re.findall(r"\]\(([^)]+)\)", readme)
    assert len(links) > 30
    assert all(link.startswith("https://") for link in re.findall(r"\]\(([^)]+)\)", shown))
    assert re.sub(rf"{address}/(raw|blob)/v[^/]+/", "", shown).strip() == readme.strip()
    assert f"Source, {address}" in metadata.get_all("Project-URL")


def test_wheel_holds_the_package_and_nothing_else(pure_wheel):
    assert pure_wheel.name == f"cutmix_cuda-{cutmix_cuda.__version__}-py3-none-any.whl"
    names = [Path(name) for name in zipfile.ZipFile(pure_wheel).namelist()]
    information = f"cutmix_cuda-{cutmix_cuda.__version__}.dist-info"
    assert {path.parts[0] for path in names} == {"cutmix_cuda", information}
    assert Path(information, "licenses", "LICENSE") in names

    packed = {path.relative_to("cutmix_cuda").as_posix() for path in names if path.parts[0] == "cutmix_cuda"}
    kernels = {f"triton_kernels/{name}" for name in python_files("triton_kernels")}
    assert packed == python_files("cutmix_cuda") | kernels | {"__init__.pyi", "py.typed", "build.json"}


MIX = """
import sys; sys.path[:0] = sys.argv[1:]
import torch, cutmix_cuda
images = torch.arange(4 * 3 * 16 * 24).reshape(4, 3, 16, 24)
torch.save(cutmix_cuda.cutmix(images, torch.tensor([4, 1, 0, 2]), 5, seed=11), "mixed.pt")
print(*cutmix_cuda.available_backends())
"""


def test_pure_wheel_mixes_the_same_pixels(pure_wheel, tmp_path):
    """Installed where nothing can be compiled, the package gives what the installed one gives here."""
    zipfile.ZipFile(pure_wheel).extractall(tmp_path / "site")
    backends = run(sys.executable, "-I", "-c", MIX, tmp_path / "site", cwd=tmp_path).splitlines()[-1].split()
    assert "reference" in backends
    assert not {"cpu", "cuda"} & set(backends)
    images, targets = torch.load(tmp_path / "mixed.pt")
    run(sys.executable, "-I", "-c", MIX, cwd=tmp_path)
    installed_images, installed_targets = torch.load(tmp_path / "mixed.pt")
    assert torch.equal(images, installed_images)
    assert torch.equal(targets, installed_targets)


def test_find_torch_names_the_torch_that_runs():
    found = setup.find_torch()
    assert (found.version, found.cuda) == (torch.__version__, torch.version.cuda)
    assert (found.include / "torch" / "csrc" / "stable" / "accelerator.h").is_file()


@pytest.mark.parametrize(
    ("version", "expected"), [("2.14.1+cu130", (2, 14)), ("2.10.0a0+git1f2e3d", (2, 10)), ("13.0", (13, 0))]
)
def test_release(version, expected):
    assert setup.release(version) == expected


@pytest.mark.parametrize(
    ("requested", "no_cpu", "no_cuda", "mode", "left_out"),
    [
        (None, None, None, "cuda", {}),
        (None, None, "no nvcc", "cpu", {"cuda": "no nvcc"}),
        (None, "no g++", None, "python", {"cuda": "no g++", "cpu": "no g++"}),
        (None, "no g++", "no nvcc", "python", {"cuda": "no g++", "cpu": "no g++"}),
        ("cuda", None, None, "cuda", {}),
        ("cpu", None, None, "cpu", {"cuda": "CUTMIX_CUDA_BUILD=cpu"}),
        ("cpu", None, "no nvcc", "cpu", {"cuda": "CUTMIX_CUDA_BUILD=cpu"}),
        ("python", None, None, "python", dict.fromkeys(("cuda", "cpu"), "CUTMIX_CUDA_BUILD=python")),
    ],
)
def test_choose_mode(requested, no_cpu, no_cuda, mode, left_out):
    assert setup.choose_mode(requested, no_cpu, no_cuda) == (mode, left_out)


@pytest.mark.parametrize(
    ("requested", "no_cpu", "no_cuda", "message"),
    [
        ("cuda", None, "no nvcc", "CUTMIX_CUDA_BUILD=cuda is impossible: no nvcc"),
        ("cuda", "no g++", None, "CUTMIX_CUDA_BUILD=cuda is impossible: no g++"),
        ("cpu", "no g++", None, "CUTMIX_CUDA_BUILD=cpu is impossible: no g++"),
        ("gpu", None, None, "CUTMIX_CUDA_BUILD: 'gpu' is none of cuda, cpu, python"),
    ],
)
def test_choose_mode_says_why_not(requested, no_cpu, no_cuda, message):
    with pytest.raises(SystemExit, match=f"^{re.escape(message)}$"):
        setup.choose_mode(requested, no_cpu, no_cuda)


CPU_TORCH = setup.Torch(Path("torch"), "2.14.1+cpu", None)
CUDA_TORCH = setup.Torch(Path("torch"), "2.14.1+cu130", "13.0")


def toolkit(version="13.0", archs=("7.5", "8.0", "9.0", "12.0")):
    return setup.Toolkit(Path("cuda"), version, frozenset(archs))


@pytest.mark.parametrize(
    ("torch_found", "toolkit_found", "reason"),
    [
        (CUDA_TORCH, toolkit(), None),
        (CUDA_TORCH, toolkit("13.2"), None),
        (CUDA_TORCH, toolkit("12.8"), "torch 2.14.1+cu130 is for CUDA 13.0, and the toolkit in cuda is 12.8"),
        (
            setup.Torch(Path("torch"), "2.10.0+cu128", "12.8"),
            toolkit(),
            "torch 2.10.0+cu128 is for CUDA 12.8, and the toolkit in cuda is 13.0",
        ),
        (CUDA_TORCH, None, "there is no nvcc in CUDA_HOME, on the PATH or in /usr/local/cuda"),
        (CPU_TORCH, toolkit(), "torch 2.14.1+cpu is a build without CUDA"),
    ],
)
def test_cuda_obstacle(torch_found, toolkit_found, reason, monkeypatch):
    monkeypatch.setattr(setup, "nvcc_obstacle", lambda torch, toolkit: None)
    assert setup.cuda_obstacle(torch_found, toolkit_found) == reason


def test_cpu_obstacle(monkeypatch):
    assert "torch was not found" in setup.cpu_obstacle(None)
    assert setup.cpu_obstacle(setup.Torch(Path("torch"), "2.9.1", None)) == "torch 2.9.1 is older than 2.10"
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    assert setup.cpu_obstacle(CPU_TORCH) == "there is no C++ compiler '/nonexistent/c++'"
    monkeypatch.setenv("CXX", "false")
    assert setup.cpu_obstacle(CPU_TORCH).startswith("the C++ compiler 'false' failed: ")


MADE_FOR_ANOTHER_COMPILER = "made for another compiler"


@pytest.fixture
def unusable_torch(tmp_path):
    """A torch of a version that will do, with headers that no compiler takes."""
    header = tmp_path / "torch" / "include" / "torch" / "csrc" / "stable" / "accelerator.h"
    header.parent.mkdir(parents=True)
    header.write_text(f"#error {MADE_FOR_ANOTHER_COMPILER}\n")
    return setup.Torch(tmp_path / "torch", torch.__version__, torch.version.cuda)


def has_compiler() -> bool:
    return shutil.which(os.environ.get("CXX", "c++").split()[-1]) is not None


def test_headers_that_do_not_compile_are_left_out_or_refused(unusable_torch, monkeypatch):
    if not has_compiler():
        pytest.skip("needs a C++ compiler")
    monkeypatch.chdir(ROOT)
    assert setup.cpu_obstacle(setup.find_torch()) is None
    monkeypatch.setattr(setup, "find_torch", lambda: unusable_torch)
    monkeypatch.delenv("CUTMIX_CUDA_BUILD", raising=False)
    plan = setup.resolve()
    assert (plan.mode, len(plan.left_out)) == ("python", 2)
    assert all(MADE_FOR_ANOTHER_COMPILER in reason for reason in plan.left_out.values())
    monkeypatch.setenv("CUTMIX_CUDA_BUILD", "cpu")
    with pytest.raises(SystemExit, match=f"CUTMIX_CUDA_BUILD=cpu is impossible: .*{MADE_FOR_ANOTHER_COMPILER}"):
        setup.resolve()


@pytest.mark.parametrize(
    ("text", "archs"),
    [
        ("8.0", ["8.0"]),
        ("8.0;9.0+PTX", ["8.0", "9.0+PTX"]),
        ("8.0;9.0;", ["8.0", "9.0"]),
        (" 8.0 9.0a, 12.0+PTX ", ["8.0", "9.0a", "12.0+PTX"]),
    ],
)
def test_parse_archs(text, archs):
    assert setup.parse_archs(text) == archs


@pytest.mark.parametrize("text", ["sm_80", "Ampere", "8", "9.0+ptx", "8.0;;x", ";"])
def test_parse_archs_names_what_it_cannot_read(text):
    with pytest.raises(SystemExit, match="TORCH_CUDA_ARCH_LIST: '.*' is not like 8.0 or 9.0.PTX"):
        setup.parse_archs(text)


@pytest.mark.parametrize(
    ("known", "archs"),
    [
        ("5.0 7.0 7.5 8.0 8.6 8.9 9.0", "7.0 7.5 8.0 8.6+PTX 8.9 9.0+PTX"),  # CUDA 12.6
        ("7.5 8.0 8.6 8.7 8.9 9.0 10.0 10.3 11.0 12.0 12.1", "7.5 8.0 8.6+PTX 8.9 9.0 10.0 12.0+PTX"),  # CUDA 13.0
    ],
)
def test_default_archs_are_those_that_nvcc_knows_with_ptx_of_the_newest(known, archs):
    assert setup.choose_archs(None, toolkit(archs=known.split())) == archs.split()


def test_choose_archs():
    assert setup.choose_archs("9.0a", toolkit()) == ["9.0a"]
    with pytest.raises(SystemExit, match="CUDA 13.0 cannot compile for 7.0 10.0.PTX"):
        setup.choose_archs("7.0;8.0;10.0+PTX", toolkit())


def test_gencode_flags():
    assert setup.gencode_flags(["8.0", "12.0+PTX"]) == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_120,code=sm_120",
        "-gencode=arch=compute_120,code=compute_120",
    ]


def write_script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("command", "compiler", "options"),
    [
        ("", "", []),
        ("/opt/gcc/bin/g++", "/opt/gcc/bin/g++", []),
        ("ccache g++", "g++", []),
        ("ccache '/opt/my gcc/g++' -m64 -isystem folder", "/opt/my gcc/g++", ["-m64", "-isystem", "folder"]),
    ],
)
def test_split_compiler(command, compiler, options):
    assert setup.split_compiler(command) == (compiler, options)


def test_nvcc_gets_the_host_compiler_alone_and_its_options_apart(monkeypatch):
    monkeypatch.setenv("CXX", "ccache g++-12 -m64 -std=gnu++14")
    command = setup.nvcc_command(Path("nvcc"), ["8.0"])
    assert command[command.index("-ccbin") + 1] == "g++-12"
    assert "-Xcompiler=-m64" in command
    assert [argument for argument in command if "ccache" in argument or "gnu++14" in argument] == []
    monkeypatch.delenv("CXX")
    assert "-ccbin" not in setup.nvcc_command(Path("nvcc"), ["8.0"])


FAKE_NVCC = """
case "$1" in
--dryrun) echo '#$ _HERE_='"$(dirname "$0")" >&2; echo '#$ TOP='"$(dirname "$0")/.." >&2 ;;
--version) echo 'Cuda compilation tools, release 12.8, V12.8.93' ;;
--list-gpu-arch) echo compute_90; echo compute_120 ;;
*) echo 'host_config.h:1: error: unsupported GNU version' >&2; exit 1 ;;
esac
"""


@pytest.fixture
def wrapped_nvcc(tmp_path) -> tuple[Path, Path]:
    """An nvcc that stands in for a real one, in a toolkit's folder, and a wrapper of it elsewhere."""
    real = write_script(tmp_path / "cuda-12.8" / "bin" / "nvcc", FAKE_NVCC)
    return real, write_script(tmp_path / "elsewhere" / "nvcc", f'exec {real} "$@"')


def test_a_wrapper_is_resolved_to_its_toolkit(wrapped_nvcc):
    real, wrapper = wrapped_nvcc
    expected = setup.Toolkit(real.parent.parent, "12.8", frozenset({"9.0", "12.0"}))
    assert setup.resolve_toolkit(wrapper) == expected
    assert expected.nvcc == real


def test_an_nvcc_that_does_not_work_is_left_out_or_refused(tmp_path, monkeypatch):
    broken = write_script(tmp_path / "bin" / "nvcc", "echo no host compiler; exit 1")
    with pytest.raises(OSError, match="does not tell its folder, its version and"):
        setup.resolve_toolkit(broken)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("CUTMIX_CUDA_BUILD", raising=False)
    plan = setup.resolve()
    assert plan.mode in ("cpu", "python")
    assert plan.toolkit is None
    assert "cuda" in plan.left_out


def test_an_nvcc_that_refuses_the_host_compiler_is_left_out_or_refused(wrapped_nvcc, monkeypatch):
    real, _ = wrapped_nvcc
    monkeypatch.setattr(setup, "find_torch", lambda: setup.Torch(Path("torch"), "2.10.0+cu128", "12.8"))
    monkeypatch.setattr(setup, "cpu_obstacle", lambda torch: None)
    monkeypatch.setenv("CUDA_HOME", str(real.parent.parent))
    monkeypatch.delenv("CUTMIX_CUDA_BUILD", raising=False)
    reason = f"the CUDA compiler '{real}' failed: host_config.h:1: error: unsupported GNU version"
    assert setup.resolve() == setup.Plan("cpu", setup.find_torch(), left_out={"cuda": reason})
    monkeypatch.setenv("CUTMIX_CUDA_BUILD", "cuda")
    with pytest.raises(SystemExit, match=re.escape(f"CUTMIX_CUDA_BUILD=cuda is impossible: {reason}")):
        setup.resolve()


def test_nvcc_obstacle(unusable_torch, monkeypatch):
    nvcc = setup.find_nvcc()
    if nvcc is None or not has_compiler():
        pytest.skip("needs nvcc and a C++ compiler")
    monkeypatch.chdir(ROOT)
    found = setup.resolve_toolkit(nvcc)
    failed = f"the CUDA compiler '{found.nvcc}' failed: "
    assert setup.nvcc_obstacle(setup.find_torch(), found) is None
    obstacle = setup.nvcc_obstacle(unusable_torch, found)
    assert obstacle.startswith(failed) and obstacle.endswith(MADE_FOR_ANOTHER_COMPILER)
    monkeypatch.setenv("CXX", "false")
    assert setup.nvcc_obstacle(unusable_torch, found).startswith(f"{failed}nvcc fatal")


def test_find_nvcc_prefers_cuda_home_to_the_path(wrapped_nvcc, monkeypatch):
    real, wrapper = wrapped_nvcc
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(wrapper.parent), prepend=os.pathsep)
    assert setup.find_nvcc() == wrapper
    monkeypatch.setenv("CUDA_HOME", str(real.parent.parent))
    assert setup.find_nvcc() == real


def test_another_cuda_major_is_left_out_or_refused(wrapped_nvcc, monkeypatch):
    if torch.version.cuda is None or torch.version.cuda.startswith("12."):
        pytest.skip("needs a torch of another CUDA major version than 12")
    real, _ = wrapped_nvcc
    monkeypatch.setenv("CUDA_HOME", str(real.parent.parent))
    monkeypatch.delenv("CUTMIX_CUDA_BUILD", raising=False)
    plan = setup.resolve()
    assert plan.mode in ("cpu", "python")
    assert plan.toolkit is None
    assert "cuda" in plan.left_out
    monkeypatch.setenv("CUTMIX_CUDA_BUILD", "cuda")
    with pytest.raises(SystemExit, match="CUTMIX_CUDA_BUILD=cuda is impossible"):
        setup.resolve()


def test_another_compiler_or_other_flags_build_anew(tmp_path, monkeypatch):
    if not has_compiler():
        pytest.skip("needs a C++ compiler")
    source = tmp_path / "probe.cpp"
    source.write_text("int probe() { return 0; }\n")

    def build() -> int:
        """When the library that then stands there was made."""
        extension = setup.Extension("probe", [str(source)], language="c++")
        command = setup.BuildExt(Distribution({"name": "probe", "version": "1", "ext_modules": [extension]}))
        command.build_lib, command.build_temp = str(tmp_path), str(tmp_path / "temp")
        command.ensure_finalized()
        command.run()
        return Path(command.get_ext_fullpath("probe")).stat().st_mtime_ns

    first = build()
    assert build() == first
    monkeypatch.setenv("CXXFLAGS", "-O1")
    second = build()
    assert second > first
    assert build() == second
    monkeypatch.setenv("CXX", f"env {os.environ.get('CXX', 'c++')}")
    assert build() > second


# A C++ compiler that goes on when as many as MAX_JOBS have started, and fails where more are running.
WAITING_COMPILER = """
case " $* " in *" -c "*) ;; *) exec {compiler} "$@" ;; esac
touch {folder}/started.$$
running=$(($(ls {folder} | grep -c started) - $(ls {folder} | grep -c finished)))
[ $running -le $MAX_JOBS ] || exit 1
for try in $(seq 600); do
    [ $(ls {folder} | grep -c started) -ge $MAX_JOBS ] && break
    sleep 0.1
done
[ $try -lt 600 ] && {compiler} "$@" && touch {folder}/finished.$$
"""


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_sources_are_compiled_side_by_side(jobs, tmp_path, monkeypatch):
    if not has_compiler():
        pytest.skip("needs a C++ compiler")
    folder = tmp_path / "compilers"
    folder.mkdir()
    program = WAITING_COMPILER.format(compiler=os.environ.get("CXX", "c++"), folder=folder)
    monkeypatch.setenv("CXX", str(write_script(tmp_path / "compiler", program)))
    monkeypatch.setenv("MAX_JOBS", jobs)
    (tmp_path / "lib").mkdir()
    monkeypatch.chdir(tmp_path)  # in which objects are made, beside a source's name
    for name in ("one", "two"):
        Path(f"{name}.cpp").write_text(f"int {name}() {{ return 0; }}\n")

    def build() -> int:
        """How many sources were compiled."""
        library = setup.StableLibrary("probe", setup.Torch(tmp_path, "2.10.0", None), sources=["one.cpp", "two.cpp"])
        command = setup.BuildExt(Distribution({"name": "probe", "version": "1", "ext_modules": [library]}))
        command.build_lib, command.build_temp = str(tmp_path), str(tmp_path / "temp")
        command.ensure_finalized()
        before = len(list(folder.iterdir()))
        command.run()
        return (len(list(folder.iterdir())) - before) // 2

    assert build() == 2
    assert (tmp_path / "cutmix_cuda" / "probe.so").exists()
    assert build() == 0
    monkeypatch.setenv("CXXFLAGS", "-O1")
    assert build() == 2


PARTS = {"cpu": "_C", "cuda": "_cuda"}
record = _build.record()
needs_parts = pytest.mark.skipif(record is None or not record.built, reason="nothing was compiled")


def test_the_installed_package_has_what_its_record_says():
    assert record is not None
    assert set(record.built) | set(record.left_out) == set(PARTS)
    for part, library in PARTS.items():
        assert (part in record.built) == (_build.FOLDER / f"{library}.so").exists()


@needs_parts
def test_libraries_tell_how_they_were_built():
    for part in record.built:
        facts = _build.library_info(PARTS[part])
        assert facts["version"] == cutmix_cuda.__version__
        assert facts["compiler"]
        assert ("CUDA" in facts) == (part == "cuda")
        if part == "cuda":
            assert _build.cuda_version(int(facts["CUDA"])) == record.settings["CUDA toolkit"]


@needs_parts
def test_the_wheel_serves_every_python():
    """Its tag says so, and no library in it takes anything from Python or asks for libpython."""
    distribution = importlib.metadata.distribution("cutmix_cuda")
    tags = re.findall("^Tag: (.+)$", distribution.read_text("WHEEL"), re.MULTILINE)
    assert [tag.split("-")[:2] for tag in tags] == [["py3", "none"]]
    assert tags[0].split("-")[2].startswith(("linux", "manylinux"))
    libraries = {path for path in _build.FOLDER.rglob("*") if path.suffix in (".so", ".pyd")}
    assert libraries == {_build.FOLDER / f"{PARTS[part]}.so" for part in record.built}
    for library in libraries:
        content = library.read_bytes()
        assert b"cutmix_cuda_build_info" in content  # names of symbols are plain text
        assert b"libpython" not in content
        assert not re.search(rb"\0_?Py[A-Z][A-Za-z]*_", content)


def test_a_build_without_torch_says_how_to_build(monkeypatch):
    monkeypatch.setattr(setup, "find_torch", lambda: None)
    for requested in (None, "cpu", "cuda"):
        monkeypatch.setenv("CUTMIX_CUDA_BUILD", requested or "")
        with pytest.raises(SystemExit, match="uv pip install --no-build-isolation .(?s:.*)CUTMIX_CUDA_BUILD=python"):
            setup.resolve()
    monkeypatch.setenv("CUTMIX_CUDA_BUILD", "python")
    assert setup.resolve().parts == ()


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_isolated_build_finds_the_torch_of_the_activated_environment(variable, tmp_path, monkeypatch):
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path)}))
    (site / "torch").mkdir(parents=True)
    (site / "torch" / "version.py").write_text("__version__, cuda = '2.11.0', None")
    monkeypatch.setattr(setup, "find_spec", lambda name: None)
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    here = sysconfig.get_path("purelib")
    get_path = sysconfig.get_path
    elsewhere = {here: str(tmp_path / "isolated"), sysconfig.get_path("platlib"): str(tmp_path / "isolated")}
    monkeypatch.setattr(
        sysconfig, "get_path", lambda name, vars=None: elsewhere.get(path := get_path(name, vars=vars), path)
    )
    assert setup.find_torch() is None
    monkeypatch.setenv(variable, str(tmp_path))
    assert setup.find_torch() == setup.Torch(site / "torch", "2.11.0", None)
