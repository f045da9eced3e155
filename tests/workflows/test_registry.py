"""The registry against what it names: functions, traits, Methods text, docs, tests."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from qsm_nipype import methods
from qsm_nipype.methods import resolve
from qsm_nipype.record import Step
from qsm_nipype.report.methods_text import (
    find_citations,
    load_bibliography,
    load_sentences,
    write_methods,
)

ROWS = pytest.mark.parametrize("method", methods.METHODS, ids=lambda method: method.key)
TREE = Path(__file__).parents[2]
#: Methods that no paper is to be cited for, and why.
NO_PAPER = {
    "read.stored": "as the scanner stored it",
    "reference.none": "nothing is done",
    "reference.region": "the user's choice",
    "mask.magnitude": "a threshold on the magnitude",
    "trim.reliable": "this package's own, described in docs/masks.md",
    "r2prime.given": "a difference",
    "r2prime.assumed": "a share of R2*, described in docs/separation.md",
}


def test_names_are_unique():
    keys = [method.key for method in methods.METHODS]
    assert len(keys) == len(set(keys))


@ROWS
def test_traits_are_the_parameters_of_the_core_function(method):
    traits = resolve(method.interface)().inputs.traits(parameter=True)
    assert set(traits) == set(method.parameters())


@ROWS
def test_no_trait_repeats_a_default(method):
    inputs = resolve(method.interface)().inputs
    assert all(not inputs.trait(name).usedefault for name in inputs.traits(parameter=True))


@dataclass(frozen=True)
class Around:
    """What is said and tested beyond the registry: whole texts."""

    docs: str
    tests: str


def texts(folders: Iterable[Path], pattern: str) -> str:
    own = Path(__file__).name
    files = sorted(p for f in folders for p in f.glob(pattern) if p.name != own)
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@pytest.fixture(scope="module")
def around() -> Around:
    rooms = [TREE / "tests" / room for room in ("core", "models", "interfaces")]
    return Around(texts([TREE / "docs"], "*.md"), texts(rooms, "*.py"))


def says(text: str, word: str) -> bool:
    """Whether `word` stands in `text` by itself, not as a part of another."""
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


def complaints(step: str, name: str, runs: Iterable[str], around: Around) -> list[str]:
    """What the method `name` of `step` lacks; `runs` are names of its function and its class."""
    found = []
    key = f"{step}.{name}"
    entry = load_sentences()["methods"].get(key)
    if entry is None:
        found.append("no sentence in data/methods_text.yml")
    cited = set(find_citations(entry["sentence"] if entry else "")) & set(load_bibliography())
    if not cited and key not in NO_PAPER:
        found.append("no reference of data/boilerplate.bib in its sentence")
    if not says(around.docs, name):
        found.append("no line in docs/")
    if not any(says(around.tests, run) for run in runs):
        found.append("no test in tests/core, tests/models or tests/interfaces")
    return found


@ROWS
def test_every_method_has_its_five_places(method, around):
    runs = {place.split(":")[1] for place in (method.function, method.interface)}
    assert complaints(method.step, method.name, runs, around) == []


def test_an_invented_method_lacks_each_of_them(around):
    found = complaints("inversion", "invented", {"invented", "Invented"}, around)
    assert [text.split(" ")[1] for text in found] == ["sentence", "reference", "line", "test"]


def test_each_place_is_asked_for_by_itself(around):
    """A method that has all but one place, by lending it those of a method there is."""
    runs = {"tkd", "TKD"}
    assert complaints("inversion", "tkd", runs, around) == []
    (docs,) = complaints("inversion", "tkd", runs, Around("tkd-like, a_tkd", around.tests))
    assert docs.startswith("no line in docs/")
    (test,) = complaints("inversion", "tkd", {"tkd2", "TKD2"}, around)
    assert test.startswith("no test")
    assert says("the method `tkd`, or TKD.", "tkd") and not says("tkd_field stkd", "tkd")


def test_a_sentence_without_a_known_reference_is_seen(around, monkeypatch):
    magic = {"sentence": "It was done by magic [@Nobody2030]."}
    monkeypatch.setitem(load_sentences()["methods"], "inversion.tkd", magic)
    (reference,) = complaints("inversion", "tkd", {"tkd"}, around)
    assert reference.startswith("no reference")


def test_what_no_paper_is_cited_for_is_in_the_registry_and_cites_none():
    for key in NO_PAPER:
        step, name = key.split(".")
        methods.get(step, name)
        always = write_methods([], version="1").references
        assert write_methods([Step(step, name)], version="1").references == always
