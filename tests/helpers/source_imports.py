"""What the modules of qsm_nipype import, read from their sources: lazy imports and names, too."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

PACKAGE = "qsm_nipype"
#: Folders that setup.cfg maps into the package from elsewhere.
MAPPED = ("interfaces", "models", "workflows")
#: A module, or a thing in it, named in a string for importing it later.
_NAMED = re.compile(rf"{PACKAGE}(\.\w+)+(:\w+)?")


@dataclass(frozen=True)
class Import:
    """`importer` imports `imported` in `line`: dotted names of modules."""

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}: {self.imported}"


@lru_cache(maxsize=1)
def modules() -> dict[str, Path]:
    """Every module of the installed package by its dotted name, packages by their own."""
    found: dict[str, Path] = {}
    for package in (PACKAGE, *(f"{PACKAGE}.{room}" for room in MAPPED)):
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None, package
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


def room_of(module: str) -> str:
    """`qsm_nipype.core.phase` → `core`; `__init__` for the package's own module."""
    return (module.split(".") + ["__init__"])[1]


def imports_of(module: str) -> list[Import]:
    """All that a module imports, at its top, inside functions, or by a name in a string."""
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    return [
        Import(module, name, getattr(node, "lineno", 0))
        for node in ast.walk(tree)
        for name in _named(node)
    ]


def _named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            yield full if full in modules() else str(node.module)
    elif isinstance(node, ast.Constant) and _NAMED.fullmatch(str(node.value)):
        yield _module_in(str(node.value).split(":")[0])


def _module_in(name: str) -> str:
    """The longest part of a dotted name that is a module."""
    while name not in modules():
        name = name.rpartition(".")[0]
    return name


def reached_from(start: set[str]) -> set[str]:
    """Modules of the package that importing, and calling, those of `start` can load.

    What the package itself offers by name (`qsm_nipype.reconstruct`) is loaded by who asks for it,
    not by who reads the version there.
    """
    reached, waiting = set(), set(start)
    while waiting:
        module = waiting.pop()
        reached.add(module)
        if module == PACKAGE:
            continue
        own = {i.imported for i in imports_of(module) if i.imported.startswith(PACKAGE)}
        waiting |= {name for name in own if name in modules()} - reached
    return reached
