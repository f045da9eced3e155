"""Imports go downwards only: numerics and networks know neither Nipype nor files of images."""

import ast
from pathlib import Path

import pytest

from qsm_nipype import core, models

ABOVE = {"nipype", "nibabel", "qsm_nipype.interfaces", "qsm_nipype.workflows"}


def imported(path):
    """Names of the modules that a source file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", [core, models], ids=["core", "models"])
def test_numerics_and_networks_import_nothing_from_above(package):
    files = sorted(Path(package.__file__).parent.rglob("*.py"))
    assert len(files) > 10
    wrong = [
        f"{path.name}: {name}"
        for path in files
        for name in imported(path)
        if any(name == above or name.startswith(f"{above}.") for above in ABOVE)
    ]
    assert not wrong
