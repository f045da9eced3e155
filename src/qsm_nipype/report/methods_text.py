"""The Methods paragraph and its references, for exactly the methods that were used.

Sentences live in `data/methods_text.yml`, references in `data/boilerplate.bib`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from qsm_nipype.errors import DataError
from qsm_nipype.record import Step
from qsm_nipype.system import yaml_text

_CITATION = re.compile(r"\[@([^\]]+)\]")
_ENTRY = re.compile(r"@(\w+)\{([^,\s]+),(.*?)\n\}", re.S)
_FIELD = re.compile(r"^\s*(\w+)\s*=\s*\{(.*?)\},?\s*$", re.M)
_PLACE = re.compile(r"\{(\w+)(?::[^}]*)?\}")


@dataclass(frozen=True)
class Reference:
    """One entry of the bibliography: its key, its fields and its BibTeX source."""

    key: str
    fields: Mapping[str, str]
    bibtex: str

    @property
    def doi(self) -> str:
        """The DOI, empty where the work has none."""
        return self.fields.get("doi", "")

    @property
    def text(self) -> str:
        """One line: authors, year, title, journal, volume and pages."""
        f = self.fields
        authors = _authors(f.get("author", ""))
        where = f.get("journal") or f.get("publisher") or ""
        pages = f.get("pages", "").replace("--", "–")
        place = " ".join(x for x in (where, f.get("volume", "")) if x)
        place += f":{pages}" if pages else ""
        parts = (f"{authors} ({f.get('year', '')})", _plain(f.get("title", "")), place)
        return ". ".join(p for p in parts if p) + "."


@dataclass(frozen=True)
class MethodsText:
    """`paragraph` with numbered citations, `references` in that order."""

    paragraph: str
    references: tuple[Reference, ...]

    @property
    def bibtex(self) -> str:
        """The cited entries, ready for a .bib file."""
        return "\n\n".join(r.bibtex for r in self.references) + "\n"

    @property
    def plain(self) -> str:
        """Paragraph and numbered references as text."""
        lines = [self.paragraph, ""]
        for number, reference in enumerate(self.references, 1):
            doi = f" https://doi.org/{reference.doi}" if reference.doi else ""
            lines.append(f"[{number}] {reference.text}{doi}")
        return "\n".join(lines) + "\n"


def write_methods(steps: Iterable[Step], *, version: str) -> MethodsText:
    """The paragraph for `steps` in their order, opened by the program and its `version`.

    Parameters that a method's sentence does not mention are listed after it, so that nothing is
    left unreported. Raises DataError for a method without a sentence.
    """
    table = load_sentences()
    steps = list(steps)
    opening = "opening_given" if any(_key(s) == "given.chi" for s in steps) else "opening"
    texts = [_fill(table[opening], {"version": version})]
    seen: set[str] = set()
    for step in steps:
        text = _sentence(step)
        if text not in seen:
            seen.add(text)
            texts.append(text)
    texts.append(_fill(table["closing"], {}))
    return _numbered(" ".join(texts))


def check_sentences(steps: Iterable[Step], *, name: str = "steps") -> None:
    """Raise DataError with `name` for a step whose method has no sentence."""
    known = load_sentences()["methods"]
    for key in map(_key, steps):
        if key not in known:
            raise DataError(f"{name}: {key} has no sentence in data/methods_text.yml")


@lru_cache(maxsize=1)
def load_sentences() -> dict[str, Any]:
    """data/methods_text.yml: `opening`, `closing`, and `methods` by `step.method`."""
    return yaml_text.parse(_read_data("methods_text.yml"))


@lru_cache(maxsize=1)
def load_bibliography() -> dict[str, Reference]:
    """All references by key."""
    found = {}
    for match in _ENTRY.finditer(_read_data("boilerplate.bib")):
        fields = {k.lower(): v for k, v in _FIELD.findall(match[3])}
        found[match[2]] = Reference(match[2], fields, match[0])
    return found


def find_citations(text: str) -> list[str]:
    """Keys cited in `text` by `[@Key; @Other]`, each once, in order."""
    groups = _CITATION.findall(text)
    keys = [k.strip().lstrip("@") for group in groups for k in group.split(";")]
    return list(dict.fromkeys(keys))


def _key(step: Step) -> str:
    """`inversion.tv`, as the registry has it."""
    return f"{step.step}.{step.method}"


def _sentence(step: Step) -> str:
    check_sentences([step], name="Methods text")
    entry = load_sentences()["methods"][_key(step)]
    return _with_details(entry, {k: v for k, v in step.parameters.items() if _is_stated(v)})


def _with_details(entry: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    """Put the parameters in brackets before the full stop: known ones in words, the rest named."""
    stated = [d for d in entry.get("details", ()) if set(_PLACE.findall(d)) <= parameters.keys()]
    unset = [text for k, text in entry.get("unset", {}).items() if k not in parameters]
    mentioned = {name for text in (entry["sentence"], *stated) for name in _PLACE.findall(text)}
    rest = [
        f"{name.replace('_', ' ')} {_value(value)}"
        for name, value in parameters.items()
        if name not in mentioned
    ]
    brackets = "; ".join([_fill(d, parameters) for d in stated] + unset + rest)
    filled = _fill(entry["sentence"], parameters)
    return f"{filled.removesuffix('.')} ({brackets})." if brackets else filled


def _fill(text: str, values: Mapping[str, Any]) -> str:
    """Replace `{name}` by its value; a number may carry a format, `{name:.3g}`."""

    def value(match: re.Match[str]) -> str:
        found = values.get(match[1])
        if ":" in match[0] and isinstance(found, (int, float)) and not isinstance(found, bool):
            return format(found, match[0][1:-1].partition(":")[2])
        return _value(found)

    return _PLACE.sub(value, " ".join(text.split()))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(v) for v in value)
    return str(value)


def _is_stated(value: Any) -> bool:
    """Whether a parameter belongs in the text: a value, not a file and not "unset"."""
    if isinstance(value, str):
        return bool(value) and "/" not in value and not value.endswith((".nii", ".nii.gz"))
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_stated(v) for v in value)
    return isinstance(value, (bool, int, float))


def _numbered(text: str) -> MethodsText:
    """Turn `[@Key]` into numbers in order of appearance."""
    known = load_bibliography()
    keys = [k for k in find_citations(text) if k in known]
    place = {key: number for number, key in enumerate(keys, 1)}

    def numbers(match: re.Match[str]) -> str:
        cited = sorted(place[k] for k in find_citations(match[0]) if k in place)
        return f"[{', '.join(str(n) for n in cited)}]"

    return MethodsText(_CITATION.sub(numbers, text), tuple(known[k] for k in keys))


def _authors(names: str) -> str:
    people = [n.strip() for n in names.split(" and ") if n.strip()]
    family = [_plain(p.split(",")[0]) for p in people]
    if len(family) > 3 or "others" in family:
        return f"{family[0]} et al."
    return ", ".join(family)


def _plain(text: str) -> str:
    """BibTeX text without braces and with its few accents and dashes resolved."""
    for mark, letter in (
        ('{\\"a}', "ä"),
        ('{\\"o}', "ö"),
        ('{\\"u}', "ü"),
        ("{\\'a}", "á"),
        ("{\\'e}", "é"),
        ("\\chi", "χ"),
        ("--", "–"),
        ("\\&", "&"),
        ("$", ""),
    ):
        text = text.replace(mark, letter)
    return text.replace("{", "").replace("}", "")


def _read_data(name: str) -> str:
    return files("qsm_nipype.data").joinpath(name).read_text(encoding="utf-8")
