"""Damage to files is noticed by their sizes and checksums, whatever it was."""

import json

import pytest

from qsm_nipype.system import manifest

DAMAGES = {
    "cut": lambda p: p.write_bytes(p.read_bytes()[:-1]),
    "emptied": lambda p: p.write_bytes(b""),
    "deleted": lambda p: p.unlink(),
    "one bit": lambda p: p.write_bytes(bytes([p.read_bytes()[0] ^ 1, *p.read_bytes()[1:]])),
}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "sub-01").mkdir()
    for name in ("a.nii.gz", "b.json"):
        (tmp_path / "sub-01" / name).write_bytes(b"content of " + name.encode())
    manifest.remember(tmp_path / "m.json", tmp_path, (tmp_path / "sub-01").iterdir())
    return tmp_path


def test_what_is_whole_is_found_whole(root):
    assert manifest.damage(root / "m.json", root) == {}
    assert set(manifest.entries(root / "m.json")) == {"sub-01/a.nii.gz", "sub-01/b.json"}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_of_every_kind_is_noticed_and_nothing_else_named(root, kind):
    DAMAGES[kind](root / "sub-01" / "a.nii.gz")
    assert list(manifest.damage(root / "m.json", root)) == ["sub-01/a.nii.gz"]
    by_size = manifest.damage(root / "m.json", root, contents=False)
    assert list(by_size) == ([] if kind == "one bit" else ["sub-01/a.nii.gz"])


def test_a_write_that_was_announced_and_not_finished_counts_as_damage(root):
    manifest.announce(root / "m.json", root, [root / "sub-01" / "a.nii.gz"])
    assert manifest.damage(root / "m.json", root) == {"sub-01/a.nii.gz": "was not finished"}


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"files": 3}', '{"files": {}}', "[" * 10**5])
def test_a_damaged_manifest_is_damage_and_no_traceback(root, text):
    (root / "m.json").write_text(text)
    assert list(manifest.damage(root / "m.json", root)) == ["m.json"]


def test_a_manifest_cannot_name_files_elsewhere(root):
    (root / "m.json").write_text(json.dumps({"files": {"../x": None, "/etc/passwd": None}}))
    assert manifest.entries(root / "m.json") == {}


def test_a_page_that_is_cut_short_is_noticed(tmp_path):
    assert manifest.damaged_page(tmp_path, "01") == "is missing"
    page = tmp_path / "sub-01.html"
    for text, said in (("<html></html>\n", ""), ("<html>", "is cut short"), ("", "is cut short")):
        page.write_text(text)
        assert manifest.damaged_page(tmp_path, "01") == said
