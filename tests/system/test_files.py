"""A file appears under its name whole or not at all, whoever else writes it."""

import os
import threading
from pathlib import Path

import pytest

from qsm_nipype.system.files import (
    UnreadableError,
    atomic,
    copy_file,
    read_text,
    sweep,
    write_json,
    write_text,
)


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "map.nii.gz"
    with atomic(path) as partial:
        partial.write_text("whole")
        assert not path.exists()
        assert partial.parent == path.parent
        assert partial.name.startswith(".partial-") and partial.name.endswith("map.nii.gz")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path, error):
    path = tmp_path / "map.nii"
    path.write_text("before")
    with pytest.raises(error), atomic(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_before_the_first_byte_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="early"), atomic(tmp_path / "map.nii"):
        raise ValueError("early")
    assert not list(tmp_path.iterdir())


def test_a_block_that_wrote_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "map.nii"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    cohort = tmp_path / "cohort"
    with pytest.raises(ValueError, match="second"), atomic(cohort) as folder:
        folder.mkdir()
        (folder / "patient-0000.npz").write_bytes(b"one")
        raise ValueError("second")
    assert not list(tmp_path.iterdir())
    cohort.mkdir()
    with atomic(cohort) as folder:
        folder.mkdir()
        (folder / "patient-0000.npz").write_bytes(b"one")
    assert [p.name for p in cohort.iterdir()] == ["patient-0000.npz"]
    assert list(tmp_path.iterdir()) == [cohort]


def test_concurrent_writers_of_one_file_leave_one_whole_file(tmp_path):
    path = tmp_path / "map.nii"
    all_inside = threading.Barrier(4)
    names, failures = set(), []

    def write(letter: str) -> None:
        try:
            for _ in range(20):
                with atomic(path) as partial, partial.open("w") as stream:
                    stream.write(letter * 5000)
                    names.add(partial.name)
                    all_inside.wait(timeout=30)
                    stream.write(letter * 5000)
        except BaseException as error:  # pytest does not see errors of threads
            failures.append(error)
            all_inside.abort()

    writers = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failures
    assert len(names) == 4 * 20
    text = path.read_text()
    assert text in {letter * 10000 for letter in "abcd"}
    assert list(tmp_path.iterdir()) == [path]


def test_text_json_and_copies_are_whole_files(tmp_path):
    assert write_text(tmp_path / "a" / "χ.txt", "χ\n") == str(tmp_path / "a" / "χ.txt")
    write_json(tmp_path / "a.json", {"unit": "µm"})
    copy_file(tmp_path / "a.json", tmp_path / "b" / "c.json")
    assert (tmp_path / "a" / "χ.txt").read_bytes() == "χ\n".encode()
    assert (tmp_path / "b" / "c.json").read_text("utf-8") == '{\n  "unit": "µm"\n}\n'
    with pytest.raises(FileNotFoundError):
        copy_file(tmp_path / "missing", tmp_path / "b" / "d.json")
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["c.json"]


def test_no_other_module_writes_and_renames():
    import qsm_nipype

    roots = [Path(folder) for folder in qsm_nipype.__path__]
    for name in ("interfaces", "models", "workflows"):
        roots.append(Path(__import__(f"qsm_nipype.{name}", fromlist=["x"]).__file__).parent)
    files = [path for root in roots for path in root.rglob("*.py")]
    assert len(files) > 100
    words = ("os.replace(", '".partial-', "mkstemp")
    own = [path.name for path in files if any(word in path.read_text("utf-8") for word in words)]
    assert own == ["files.py"]


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    held = []
    for name in ("sub-01_map.nii", "sub-02_map.nii"):
        writer = atomic(tmp_path / "anat" / name)
        writer.__enter__().write_text("half")
        held.append(writer)  # as a killed process leaves it
    (tmp_path / "anat" / "sub-01_map.json").write_text("{}")
    sweep(tmp_path, lambda name: name.startswith("sub-01_"))
    left = [p.name for p in (tmp_path / "anat").iterdir()]
    assert len(left) == 2 and not any(name.endswith("sub-01_map.nii") for name in left)


def test_text_is_read_within_bounds(tmp_path):
    file = tmp_path / "x.json"
    file.write_bytes(b"\xef\xbb\xbf{}")
    assert read_text(file) == "{}"
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "latin").write_bytes("ä".encode("latin-1"))
    (tmp_path / "wide").write_bytes("a".encode("utf-16"))
    (tmp_path / "long").write_bytes(b"a" * 101)
    for name in ("fifo", "latin", "wide", "long", "absent", "."):
        with pytest.raises(UnreadableError):
            read_text(tmp_path / name, most=100)
