"""Imports go downwards only: the table of CONTRIBUTING.md, held against every module."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from source_imports import PACKAGE, imports_of, modules, reached_from, room_of

#: Modules of a room that rooms below it may use, because they import nothing but `errors`.
LEAVES = {"core.__init__", "core.geometry", "core.region_values", "dataset.names"}
_GROUND = {"errors", "data", "system"}
_FILES = {*_GROUND, "volume", "dataset", "record", "verdict"}
#: room → what it may import of the package (a room, or one module of it) and of `WATCHED`.
#: `__init__` holds the version, which every room may read.
ROOMS: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "data": (set(), set()),
    "system": ({"errors"}, set()),
    "core": ({"errors"}, {"torch"}),
    "models": ({*_GROUND, "core"}, {"torch"}),
    "volume": ({*_GROUND, "core.geometry"}, {"nibabel", "torch"}),
    "record": ({*_GROUND, "dataset.names"}, set()),
    "verdict": ({"errors", "record"}, set()),
    "ranges": (_GROUND, set()),
    "dataset": (
        {*_GROUND, "volume", "core.__init__", "core.geometry", "core.region_values"}
        | {"core.given"},
        {"bids"},
    ),
    "methods": (_GROUND, set()),
    "settings": (
        {*_GROUND, "methods", "dataset", "core.mask_language", "core.reading.units"}
        | {"core.given"},
        set(),
    ),
    "plan": (
        {*_GROUND, "record", "verdict", "methods", "dataset", "settings", "core.given"},
        set(),
    ),
    "chain": ({*_GROUND, "methods", "settings", "core", "models"}, {"torch"}),
    "simulation": ({*_GROUND, "volume", "dataset", "core"}, {"nibabel", "torch"}),
    "training": ({*_FILES, "core", "models", "simulation"}, {"torch"}),
    "report": (
        {*_GROUND, "volume", "record", "verdict", "ranges", "methods"}
        | {"dataset.names", "core.geometry"},
        {"nibabel"},
    ),
    "dicom": ({*_GROUND, "volume", "dataset"}, {"nibabel"}),
    "execution": (_GROUND, {"nipype"}),
    "interfaces": (
        {*_FILES, "ranges", "methods", "core", "models", "report"},
        {"nipype", "nibabel", "torch"},
    ),
    "workflows": (
        {*_GROUND, "record", "verdict", "dataset", "methods", "settings", "plan", "interfaces"}
        | {"core.mask_language"},
        {"nipype"},
    ),
    "run": (
        {*_FILES, "methods", "settings", "plan", "models", "report", "execution", "workflows"},
        {"nipype", "torch"},
    ),
    "commands": (
        {*_FILES, "methods", "settings", "plan", "chain", "core", "models", "simulation"}
        | {"report", "interfaces", "workflows", "run", "cli"},
        {"torch"},
    ),
    "cli": (
        {*_FILES, "methods", "settings", "plan", "execution", "run", "commands"}
        | {"dicom", "simulation", "training"},
        set(),
    ),
    "__init__": ({"chain"}, set()),
    "__main__": ({"cli"}, set()),
}
WATCHED = {"nipype", "nibabel", "torch", "bids", "niworkflows", "pandas", "nilearn"}
#: Names what a run will import, for the fork server to have it: a list, not a use.
PRELOAD = f"{PACKAGE}.execution.preload"


def allowed(importer: str, imported: str) -> bool:
    """Whether the table lets `importer` import `imported`; unknown rooms may nothing."""
    own, outside = ROOMS[room_of(importer)]
    top = imported.split(".")[0]
    if top != PACKAGE:
        return top not in WATCHED or top in outside
    room = room_of(imported)
    inside = imported.removeprefix(f"{PACKAGE}.")
    part = inside if "." in inside else f"{inside}.__init__"
    return room in (room_of(importer), "__init__") or room in own or part in own


@pytest.mark.parametrize("room", sorted({room_of(module) for module in modules()}))
def test_a_room_imports_only_from_below(room):
    assert room in ROOMS, f"{room} is a new room: give it a row here and in CONTRIBUTING.md"
    own = [m for m in modules() if room_of(m) == room and m != PRELOAD]
    wrong = [i for m in own for i in imports_of(m) if not allowed(m, i.imported)]
    assert not wrong, "\n".join(map(str, wrong))


def test_the_walk_sees_imports_that_are_hidden():
    names = {i.imported for i in imports_of(f"{PACKAGE}.volume")}
    assert "torch" in names  # inside a method
    assert f"{PACKAGE}.commands.demo" in {i.imported for i in imports_of(f"{PACKAGE}.cli")}
    assert len(modules()) > 150


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("core.phase", "nibabel"),
        ("core.phase", "qsm_nipype.volume"),
        ("models.rim", "qsm_nipype.interfaces.base"),
        ("dataset.grids", "qsm_nipype.core.phase"),
        ("report.page", "qsm_nipype.dataset.acquisitions"),
        ("interfaces.bids", "pandas"),
        ("workflows.base", "qsm_nipype.core"),
    ],
)
def test_the_table_refuses(importer, imported):
    assert not allowed(f"{PACKAGE}.{importer}", imported)


def test_an_unknown_room_may_nothing():
    with pytest.raises(KeyError):
        allowed(f"{PACKAGE}.new_room.module", "numpy")


def test_the_table_has_no_circle():
    """Rooms can be put in an order in which each imports only earlier ones."""
    below = {room: {x for x in own if x not in LEAVES} for room, (own, _) in ROOMS.items()}
    below = {room: {x.split(".")[0] for x in own} for room, own in below.items()}
    below["commands"] -= {"cli"}  # the command line's other half: it parses, they run
    done: set[str] = set()
    while ready := {room for room in below if room not in done and below[room] <= done}:
        done |= ready
    assert done == set(ROOMS)


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_leaves_import_nothing_of_the_package(leaf):
    module = f"{PACKAGE}.{leaf}".removesuffix(".__init__")
    assert reached_from({module}) <= {module, f"{PACKAGE}.errors"}


def rows_of_contributing() -> dict[str, tuple[set[str], set[str]]]:
    """The table under “Where things are”: room → what it may import, inside and outside."""
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("## Where things are")[1].split("\n## ")[0]
    rows = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("`"):
            own, outside = (set(re.findall(r"`([\w.]+)`", cell)) for cell in cells[2:])
            rows[cells[0].strip("`").rstrip("/").removesuffix(".py")] = own, outside
    return rows


def test_contributing_says_the_same():
    assert rows_of_contributing() == ROOMS


def test_contributing_names_the_rooms_there_are():
    there = {room_of(module) for module in modules()}
    assert there <= set(rows_of_contributing())
    assert set(rows_of_contributing()) <= there


HEAVY = ["torch", "pandas", "nilearn", "bids", "niworkflows", "matplotlib.pyplot"]


def test_the_package_and_every_interface_import_nothing_heavy():
    """One process imports them one after the other: what is first to load a heavy module."""
    names = [PACKAGE, *sorted(m for m in modules() if room_of(m) == "interfaces")]
    script = (
        "import importlib, json, sys\n"
        f"heavy, loaded = {HEAVY!r}, {{}}\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "    for module in heavy:\n"
        "        if module in sys.modules:\n"
        "            loaded.setdefault(module, name)\n"
        "print(json.dumps(loaded))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}
