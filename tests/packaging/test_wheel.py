"""A wheel holds the whole package, and what is installed from it runs away from the sources."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from source_imports import MAPPED, PACKAGE

pytestmark = pytest.mark.slow

TREE = Path(__file__).parents[2]
ROOTS = {PACKAGE: "src/qsm_nipype"} | {f"{PACKAGE}/{room}": room for room in MAPPED}
MADE = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
#: What pip says when it is the place, not the package, that lacks something.
LACKING = re.compile(
    "No module named pip|No matching distribution found for setuptools|bdist_wheel|"
    "Failed to establish a new connection|Network is unreachable|Temporary failure in name"
)


def pip(*arguments: str, **more) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, **more)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of a copy of the tree; skips where pip has nothing to build with."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (folder / "tree").mkdir(exist_ok=True)
        shutil.copyfile(TREE / name, folder / "tree" / name)
    for name in ROOTS.values():
        shutil.copytree(TREE / name, folder / "tree" / name, ignore=MADE)
    arguments = ["wheel", "--no-deps", "--retries", "1", "-w", str(folder), str(folder / "tree")]
    if own_setuptools() >= 77:  # as pyproject.toml asks
        arguments.insert(1, "--no-build-isolation")
    built = pip(*arguments)
    if built.returncode and (reason := LACKING.search(built.stderr)):
        pytest.skip(f"pip cannot build a wheel here: {reason.group()}")
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


def own_setuptools() -> int:
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return 0


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """The wheel installed in an otherwise empty folder."""
    folder = tmp_path_factory.mktemp("site")
    done = pip("install", "--no-deps", "--no-index", "--target", str(folder), str(wheel))
    assert done.returncode == 0, done.stderr
    return folder


def files_of_the_tree() -> set[str]:
    """Every file of the package by its name inside the wheel."""
    return {
        f"{package}/{path.relative_to(TREE / root).as_posix()}"
        for package, root in ROOTS.items()
        for path in (TREE / root).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def test_every_file_of_the_package_is_in_the_wheel_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = files_of_the_tree()
    assert len(there) > 150
    assert there - names == set()
    assert names - there == set()
    for name in ("models/weights/rim.safetensors", "data/methods.yml", "data/presets/fast.yml"):
        assert f"{PACKAGE}/{name}" in names
    assert f"{PACKAGE}/report/templates/subject.html.j2" in names


def test_no_file_in_the_wheel_is_empty_but_marks(wheel):
    empty = {i.filename for i in zipfile.ZipFile(wheel).infolist() if not i.file_size}
    assert {name.rsplit("/")[-1] for name in empty} <= {"__init__.py", "py.typed"}


def environment(site: Path) -> dict[str, str]:
    """This environment with the wheel before all else, and no cache of compiled functions."""
    return {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | {
        "PYTHONPATH": str(site)
    }


def test_all_rooms_come_from_the_wheel(site, tmp_path):
    packages = sorted({f.rsplit("/", 1)[0] for f in files_of_the_tree() if f.endswith(".py")})
    names = [package.replace("/", ".") for package in packages]
    script = (
        f"import importlib\nfor name in {names!r}: print(importlib.import_module(name).__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment(site),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected = [str(site / package / "__init__.py") for package in packages]
    assert done.stdout.split() == expected


def test_the_demo_of_the_wheel_runs_elsewhere(site, tmp_path):
    """Data, maps and report by the installed command, from a folder that has no sources."""
    if importlib.util.find_spec("qsm_ci") is None:
        pytest.skip("the demo's scorer, qsm-ci, is not installed")
    quick = ["--voxel-size", "4", "--background", "vsharp", "--inversion", "tkd"]
    quick += ["--mask", "quality", "--segmentation", "none", "--nprocs", "2"]
    done = subprocess.run(
        [sys.executable, str(site / "bin" / "qsm-nipype"), "demo", "OUT", *quick],
        cwd=tmp_path,
        env=environment(site),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "against the simulated truth" in done.stdout
    anat = tmp_path / "OUT" / "derivatives" / "sub-01" / "anat"
    assert (anat / "sub-01_Chimap.nii.gz").stat().st_size > 1000
    assert (tmp_path / "OUT" / "derivatives" / "sub-01.html").stat().st_size > 10000
    # numba keeps compiled functions beside their sources: the nodes' processes ran the wheel's
    assert list((site / PACKAGE / "core").rglob("*.nbi"))
