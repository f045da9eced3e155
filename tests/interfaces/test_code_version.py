"""What makes a node recompute is what nodes compute with: not less, and not more."""

import json
import shutil
import subprocess
import sys

import pytest
from source_imports import MAPPED, PACKAGE, modules, reached_from, room_of

from qsm_nipype import methods
from qsm_nipype.interfaces.base import COMPUTING, computing_files, digest_of


def computing_modules() -> set[str]:
    """Modules that importing the interfaces, and calling the registry's functions, can load."""
    interfaces = {module for module in modules() if room_of(module) == "interfaces"}
    return reached_from(interfaces | {m.function.split(":")[0] for m in methods.METHODS})


def test_nodes_compute_with_the_rooms_of_computing_and_no_other():
    rooms = {room_of(module) for module in computing_modules()}
    assert rooms - {"__init__"} == set(COMPUTING)  # the version counts by itself


def test_every_module_that_nodes_compute_with_is_digested():
    digested = set(computing_files())
    own = {modules()[m] for m in computing_modules() if room_of(m) != "__init__"}
    assert own <= digested
    assert len(own) > 80


@pytest.mark.parametrize(
    "room", ["training", "simulation", "execution", "run", "workflows", "commands", "cli"]
)
def test_what_no_node_uses_is_not_digested(room):
    others = {path for module, path in modules().items() if room_of(module) == room}
    assert others
    assert not others & set(computing_files())


def test_every_file_is_digested_once_and_tables_are_among_them():
    files = computing_files()
    assert len(files) == len(set(files))
    names = {path.name for path in files}
    assert {"methods.yml", "derivatives.yml", "methods_text.yml", "boilerplate.bib"} <= names
    assert any(path.suffix == ".j2" for path in files)


def test_the_digest_follows_names_contents_and_their_border(tmp_path):
    def digest(**contents: bytes) -> str:
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        return digest_of(tmp_path / name for name in contents)

    digests = [
        digest(a=b"12", b=b"3"),
        digest(a=b"1", b=b"23"),
        digest(a=b"12", c=b"3"),
        digest(a=b"12"),
        digest(a=b"12", b=b"4"),
    ]
    assert len(set(digests)) == 5
    assert digest(a=b"12", b=b"3") == digests[0]


#: Run beside a copy of the package: the digest before, and after a line more in each file.
_SCRIPT = """
import json, sys
from pathlib import Path
from qsm_nipype.interfaces import base
root = Path(sys.argv[1])
assert Path(base.__file__).is_relative_to(root), base.__file__
digests = [base.digest_of(base.computing_files())]
for name in sys.argv[2:]:
    with (root / name).open("a", encoding="utf-8") as stream:
        stream.write("\\n# changed\\n")
    digests.append(base.digest_of(base.computing_files()))
print(json.dumps(digests))
"""

CHANGED = (
    "report/figures.py",
    "report/templates/subject.html.j2",
    "data/derivatives.yml",
    "data/methods_text.yml",
    "core/phase.py",
    "interfaces/phase.py",
    "models/rim.py",
    "dataset/names.py",
    "volume.py",
    "record.py",
)
UNCHANGED = (
    "training/loop.py",
    "training/rim.py",
    "simulation/head.py",
    "execution/multiproc.py",
    "run/participant.py",
    "workflows/base.py",
    "commands/demo.py",
    "cli.py",
    "settings/options.py",
)


def test_a_changed_figure_or_table_recomputes_and_a_changed_training_does_not(tmp_path):
    package = tmp_path / PACKAGE
    for room in ("", *MAPPED):
        name = ".".join(filter(None, (PACKAGE, room)))
        source = modules()[name].parent
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.zip", "*.npz")
        shutil.copytree(source, package / room, ignore=ignored, dirs_exist_ok=True)
    for name in (*CHANGED, *UNCHANGED):
        assert (package / name).is_file(), name
    script = tmp_path / "digests.py"
    script.write_text(_SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(package), *CHANGED, *UNCHANGED],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    before, *after = json.loads(done.stdout)
    assert before == digest_of(computing_files())
    assert len({before, *after[: len(CHANGED)]}) == 1 + len(CHANGED)
    assert set(after[len(CHANGED) :]) == {after[len(CHANGED) - 1]}
