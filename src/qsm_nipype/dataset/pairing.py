"""Images of one acquisition put together: its parts, echoes and coils, by what names mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qsm_nipype.dataset.layout import SUFFIXES, key_of, shared_entities
from qsm_nipype.dataset.names import parse_name, stem
from qsm_nipype.errors import DataError

#: What `part-` may say, and the name of the file list that it fills.
PARTS = {"phase": "phase", "mag": "magnitude", "real": "real", "imag": "imaginary"}
#: Other spellings of `part-` that can mean one thing only.
_SPELLINGS = {"magnitude": "mag", "ph": "phase", "pha": "phase", "imaginary": "imag"}


@dataclass(frozen=True)
class Group:
    """The images of one acquisition, and what was decided when they were put together."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    @property
    def entities(self) -> dict[str, str]:
        """Those that all images share."""
        return shared_entities(self.paths[0])

    @property
    def suffix(self) -> str:
        return parse_name(self.paths[0])[1]

    @property
    def visit(self) -> tuple[str | None, str | None]:
        """Participant and session."""
        return self.entities.get("sub"), self.entities.get("ses")

    @property
    def parts(self) -> set[str]:
        """Which parts there are, by the names in `PARTS`."""
        return {_part_name(path) for path in self.paths}

    @property
    def has_phase(self) -> bool:
        """Whether there is anything to read a phase from."""
        return bool(self.parts - {"mag"})


def group(paths: Iterable[Path]) -> list[Group]:
    """The acquisitions that images belong to, sorted by their names.

    A magnitude is joined to a phase that has none of its own where they differ in nothing but
    the suffix (T2starw beside part-phase_GRE) or the reconstruction (rec-), and only one fits.
    """
    found: dict[tuple[object, ...], list[Path]] = {}
    for path in sorted(paths):
        found.setdefault(key_of(path), []).append(path)
    groups = {key: Group(tuple(own)) for key, own in sorted(found.items(), key=_order)}
    joined: set[tuple[object, ...]] = set()
    for key, one in list(groups.items()):
        if "phase" not in one.parts or one.parts & {"mag"} or {"real", "imag"} <= one.parts:
            continue
        fitting = [k for k, g in groups.items() if g.parts == {"mag"} and _fits(one, g)]
        if len(fitting) == 1:
            other = groups[fitting[0]]
            joined.add(fitting[0])
            note = f"its magnitude is {other.paths[0].name}, the only one that fits the phase"
            groups[key] = Group((*one.paths, *other.paths), (note,))
    return [one for key, one in groups.items() if key not in joined]


def _order(item: tuple[tuple[object, ...], list[Path]]) -> tuple[str, str]:
    return stem(shared_entities(item[1][0])), str(item[1][0])


def _fits(phase: Group, magnitude: Group) -> bool:
    """Whether a phase without magnitude and a magnitude may be of one acquisition."""
    if phase.paths[0].parent != magnitude.paths[0].parent:
        return False
    if len(magnitude.paths) not in (1, len(phase.paths)):
        return False
    (ours, one, _), (theirs, other, _) = key_of(phase.paths[0]), key_of(magnitude.paths[0])
    if one != other:
        return ours == theirs and {one, other} <= set(SUFFIXES)
    return dict(ours) | {"rec": ""} == dict(theirs) | {"rec": ""}


def _part_name(path: Path) -> str:
    part = parse_name(path)[0].get("part", "mag").lower()
    return _SPELLINGS.get(part, part)


def files_by_part(one: Group, notes: list[str]) -> dict[str, list[Path]]:
    """The images of each part, by echo and coil. Raises DataError for what cannot be told apart.

    Of magnitudes with and without `part-mag`, those with it are taken where they are as many as
    the phases. Without magnitude, real and imaginary parts go before phase.
    """
    files: dict[str, list[Path]] = {name: [] for name in PARTS.values()}
    for path in sorted(one.paths, key=echo_order):
        part = _part_name(path)
        if part not in PARTS:
            raise DataError(
                f"{path.name}: part-{part} is not one of {', '.join(PARTS)}; rename it"
            )
        files[PARTS[part]].append(path)
    named = [p for p in files["magnitude"] if "part" in parse_name(p)[0]]
    if named and len(named) < len(files["magnitude"]) and len(named) == len(files["phase"]):
        spare = next(p for p in files["magnitude"] if p not in named)
        notes.append(f"{spare.name} is left out: part-mag is the magnitude of the phase")
        files["magnitude"] = named
    if files["phase"] and not files["magnitude"] and files["real"] and files["imaginary"]:
        notes.append("there is no magnitude: real and imaginary parts are used, not the phase")
        files["phase"] = []
    for images in files.values():
        _refuse_copies(images)
    return files


def _refuse_copies(paths: Sequence[Path]) -> None:
    for path, following in zip(paths, paths[1:], strict=False):
        if echo_order(path)[:2] == echo_order(following)[:2]:
            raise DataError(f"{path.name}: {following.name} is there too; keep one of them")


def echo_order(path: Path) -> tuple[int, int, str]:
    """Numbers of echo and coil in a name, then the name. Raises DataError for other labels."""
    entities = parse_name(path)[0]
    numbers = {"echo": entities.get("echo", "1"),
               "coil": entities.get("coil", entities.get("ch", "0"))}  # fmt: skip
    for key, label in numbers.items():
        if not label.isdecimal():
            raise DataError(f"{path.name}: {key}-{label} is not a number; rename the files")
    return int(numbers["echo"]), int(numbers["coil"]), path.name


def partners_of(
    files: Mapping[str, Sequence[Path]], volumes: Mapping[Path, int]
) -> tuple[list[Path], list[Path]]:
    """The images that carry phase and their partners, as many volumes of each.

    Either each image has its partner, or all volumes of one part are in one 4-D image. Raises
    DataError naming what is missing, and what is there.
    """
    one, other = ("phase", "magnitude") if files["phase"] else ("real", "imaginary")
    ones, others = files[one], files[other]
    if not ones:
        one, other, ones, others = other, one, others, ones
    counts = [sum(volumes[p] for p in paths) for paths in (ones, others)]
    if len(ones) != len(others):
        if counts[0] == counts[1] and 1 in (len(ones), len(others)):
            return list(ones), list(others)
        _refuse_numbers((one, ones), (other, others), counts, volumes)
    for path, partner in zip(ones, others, strict=True):
        if echo_order(path)[:2] != echo_order(partner)[:2]:
            raise DataError(
                f"{path.name}: there is no {other} image of this echo; add it ({partner.name} "
                f"has no {one} either)"
            )
        if volumes[path] != volumes[partner]:
            raise DataError(
                f"{partner.name}: {volumes[partner]} volumes for {volumes[path]} of {path.name}; "
                f"give as many of both parts"
            )
    return list(ones), list(others)


def _refuse_numbers(
    one: tuple[str, Sequence[Path]],
    other: tuple[str, Sequence[Path]],
    counts: Sequence[int],
    volumes: Mapping[Path, int],
) -> None:
    (name, ones), (word, others) = one, other
    if not others:
        beside = _beside(ones)
        there = f" (if that is {beside}, rename it)" if beside else ""
        raise DataError(
            f"{ones[0].name}: {len(ones)} {name} but 0 {word} images; add the missing {word} "
            f"files as {_expected(ones[0], word)}{there}"
        )
    short = word if counts[1] < counts[0] else name
    stacked = [p for p in (*ones, *others) if volumes[p] > 1]
    if stacked:
        raise DataError(
            f"{ones[0].name}: {counts[0]} {name} but {counts[1]} {word} volumes "
            f"({volumes[stacked[0]]} of them in {stacked[0].name}); give as many of both, and no "
            f"echo twice"
        )
    raise DataError(
        f"{ones[0].name}: {len(ones)} {name} but {len(others)} {word} images; "
        f"add the missing {short} files"
    )


def _expected(path: Path, part: str) -> str:
    label = next(key for key, value in PARTS.items() if value == part)
    entity = f"part-{parse_name(path)[0].get('part')}"
    return path.name.replace(entity, f"part-{label}")


def _beside(paths: Sequence[Path]) -> str:
    """Names of images beside `paths` that may be what is missing; at most three."""
    visit = {k: v for k, v in parse_name(paths[0])[0].items() if k in ("sub", "ses")}
    found = [
        path.name
        for path in sorted(paths[0].parent.glob("*.nii*"))
        if path not in paths
        and visit.items() <= parse_name(path)[0].items()
        and (parse_name(path)[1] in SUFFIXES or "mag" in path.name.lower())
    ]
    return " or ".join(found[:3])


def coils_of(main: Sequence[Path], volumes: Mapping[Path, int]) -> int:
    """Coils of uncombined data: of `coil-` or `ch-` files, or volumes of each echo's file."""
    stacked = volumes[main[0]]
    if stacked > 1:
        if any(volumes[path] != stacked for path in main):
            raise DataError(
                f"{main[0].name}: {stacked} volumes, and another number in other echoes' files; "
                f"give every coil of every echo"
            )
        return stacked if len(main) > 1 else 1
    echoes: dict[int, list[int]] = {}
    for path in main:
        entities = parse_name(path)[0]
        if "coil" in entities or "ch" in entities:
            echo, coil, _ = echo_order(path)
            echoes.setdefault(echo, []).append(coil)
    if not echoes:
        return 1
    first = next(iter(echoes.values()))
    if any(coils != first for coils in echoes.values()) or len(first) * len(echoes) != len(main):
        raise DataError(
            f"{main[0].name}: not every echo has the same coils; add the missing files"
        )
    return len(first)
