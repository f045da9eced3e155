"""From a BIDS folder to checked acquisitions: what is there, and what is wrong with the rest."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.dataset import phasediff
from qsm_nipype.dataset.grids import check_grids, geometry_notes
from qsm_nipype.dataset.metadata import sidecar
from qsm_nipype.dataset.names import parse_name, stem
from qsm_nipype.dataset.own_files import OwnFiles, find_own_files
from qsm_nipype.dataset.witnesses import check_witnesses
from qsm_nipype.errors import DataError, UsageError

#: Suffixes of gradient-echo acquisitions; T2starw counts where it has echoes or parts.
SUFFIXES = ("MEGRE", "GRE", "T2starw")
#: What `part-` may say, and the name of the file list that it fills.
PARTS = {"phase": "phase", "mag": "magnitude", "real": "real", "imag": "imaginary"}
#: Entities that tell files of one acquisition apart, not acquisitions.
WITHIN = ("echo", "part", "coil", "ch")


@dataclass(frozen=True)
class Acquisition:
    """One gradient-echo acquisition; files are ordered by echo, and one 4-D file may hold all.

    `entities` is ordered as in the file name; times in s, `b0` in tesla, lengths in mm. Of
    uncombined data, the files (or the volumes of one file per echo) run over the `coils` of the
    first echo, then of the second. A phase difference is one echo at TE₂ − TE₁. `own` are the
    files that the user brings for it.
    """

    entities: Mapping[str, str]
    suffix: str
    datatype: str
    echo_times: tuple[float, ...]
    b0: float
    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float]
    phase: tuple[str, ...] = ()
    magnitude: tuple[str, ...] = ()
    real: tuple[str, ...] = ()
    imaginary: tuple[str, ...] = ()
    metadata: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    coils: int = 1
    own: OwnFiles = OwnFiles()

    @property
    def subject(self) -> str:
        """Label without `sub-`."""
        return self.entities["sub"]

    @property
    def session(self) -> str | None:
        """Label without `ses-`, if there are sessions."""
        return self.entities.get("ses")

    @property
    def label(self) -> str:
        """`sub-01_ses-1_run-2`: stem of every derivative's name."""
        return stem(self.entities)

    @property
    def name(self) -> str:
        """The label in letters, digits and underscores, as Nipype wants names."""
        return re.sub(r"\W+", "_", self.label)

    @property
    def files(self) -> tuple[str, ...]:
        """Every image of the acquisition."""
        return self.magnitude + self.phase + self.real + self.imaginary

    @property
    def voxels(self) -> int:
        """Voxels of one echo."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Refusal:
    """An acquisition that cannot be processed, and the one sentence that says why."""

    entities: Mapping[str, str]
    reason: str

    @property
    def label(self) -> str:
        """As `Acquisition.label`."""
        return stem(self.entities)

    @property
    def subject(self) -> str:
        """Label without `sub-`."""
        return self.entities["sub"]


@dataclass(frozen=True)
class Selection:
    """Which part of a dataset to look at; `own` names the user's files by kind (`own_files`)."""

    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    filters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    database: Path | None = None
    own: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))


def find_acquisitions(
    bids_dir: Path, selection: Selection
) -> tuple[list[Acquisition], list[Refusal]]:
    """Every gradient-echo acquisition of the selected participants.

    Where a participant's session has none, its field maps (fmap/, phase difference or two
    phases with magnitudes) are taken; a BIDS filter that asks for them takes them anyway.
    A faulty one does not disturb the others: it comes back as a Refusal. Raises UsageError when
    the dataset or the selection itself is unusable.
    """
    bids_dir = Path(os.path.abspath(bids_dir))
    groups: dict[tuple[Any, ...], list[Path]] = {}
    for path in _without_spare_field_maps(_images(bids_dir, selection)):
        groups.setdefault(_group_key(path), []).append(path)
    good: list[Acquisition] = []
    bad: list[Refusal] = []
    for key, paths in sorted(groups.items()):
        entities = dict(key[0])
        try:
            found = _acquisition(bids_dir, entities, sorted(paths))
            own = find_own_files(selection.own, bids_dir, entities, found.shape)
            good.append(replace(found, own=own))
        except DataError as exc:
            bad.append(Refusal(entities, str(exc)))
    return _without_collisions(good, bad)


def _images(bids_dir: Path, selection: Selection) -> list[Path]:
    if not bids_dir.is_dir():
        raise UsageError(f"{bids_dir}: no such folder; give the BIDS dataset's root")
    layout = _layout(bids_dir, selection.database)
    present = set(layout.get_subjects())
    wanted = [label.removeprefix("sub-") for label in selection.participants]
    missing = [label for label in wanted if label not in present]
    if missing:
        raise UsageError(
            f"{bids_dir}: no participant {', '.join(missing)}; there are "
            f"{', '.join(sorted(present)) or 'none'}"
        )
    wanted_suffixes = [*SUFFIXES, *phasediff.SUFFIXES]
    query: dict[str, Any] = {"suffix": wanted_suffixes, "extension": [".nii", ".nii.gz"]}
    if wanted:
        query["subject"] = wanted
    if selection.sessions:
        query["session"] = _known_sessions(bids_dir, layout, selection.sessions)
    query.update(_filter(selection.filters))
    return [Path(file.path) for file in layout.get(**query) if _is_gre(Path(file.path))]


def _known_sessions(bids_dir: Path, layout: Any, labels: Sequence[str]) -> list[str]:
    """`labels` without `ses-`. Raises UsageError naming those that no participant has."""
    wanted = [label.removeprefix("ses-") for label in labels]
    present = {str(label) for label in layout.get_sessions()}
    missing = [label for label in wanted if label not in present]
    if missing:
        raise UsageError(
            f"{bids_dir}: no session {', '.join(missing)}; there are "
            f"{', '.join(sorted(present)) or 'none'}"
        )
    return wanted


def _without_spare_field_maps(paths: Sequence[Path]) -> list[Path]:
    """`paths` less the field maps of sessions that have a gradient-echo acquisition."""

    def visit(path: Path) -> tuple[str | None, str | None]:
        entities, _ = parse_name(path)
        return entities.get("sub"), entities.get("ses")

    served = {visit(path) for path in paths if parse_name(path)[1] in SUFFIXES}
    return [p for p in paths if parse_name(p)[1] in SUFFIXES or visit(p) not in served]


def _layout(bids_dir: Path, database: Path | None) -> Any:
    from bids import BIDSLayout, BIDSLayoutIndexer

    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False)
    return BIDSLayout(
        bids_dir,
        validate=False,
        indexer=indexer,
        database_path=database,
        reset_database=False,
    )


def _filter(filters: Mapping[str, Any]) -> dict[str, Any]:
    """The `gre` entry of a BIDS filter file, with pybids' queries spelled as in fMRIPrep."""
    from bids.layout import Query

    unknown = set(filters) - {"gre"}
    if unknown:
        raise UsageError(
            f"the BIDS filter file has an entry {sorted(unknown)[0]!r}; the one known is 'gre'"
        )
    words = {"Query.NONE": Query.NONE, "Query.ANY": Query.ANY, None: Query.NONE, "*": Query.ANY}
    chosen = {}
    for key, value in filters.get("gre", {}).items():
        hashable = value is None or isinstance(value, str)
        chosen[key] = words.get(value, value) if hashable else value
    return chosen


def _is_gre(path: Path) -> bool:
    entities, suffix = parse_name(path)
    return suffix != "T2starw" or "echo" in entities or "part" in entities


def _group_key(path: Path) -> tuple[Any, ...]:
    entities, suffix = parse_name(path)
    return tuple(i for i in entities.items() if i[0] not in WITHIN), suffix, path.parent.name


def _acquisition(bids_dir: Path, entities: dict[str, str], paths: Sequence[Path]) -> Acquisition:
    suffix, datatype, notes = parse_name(paths[0])[1], paths[0].parent.name, []
    if suffix in phasediff.SUFFIXES:
        files = phasediff.files_of(paths[0])
        datatype, notes = "anat", [phasediff.NOTE]  # χ is an anatomical map wherever it came from
    else:
        files = _files_by_part(paths)
    main = files["phase"] or files["real"]
    sidecars = [sidecar(bids_dir, path) for path in main]
    check_witnesses(
        {part: [(p.name, sidecar(bids_dir, p)) for p in own] for part, own in files.items()}
    )
    shape, voxel_size, volumes = check_grids([p for part in files.values() for p in part])
    notes += geometry_notes(main[0], sidecars[0])
    coils = 1
    echo_times: tuple[float, ...]
    if suffix == "phasediff":
        sidecars = [
            phasediff.difference_sidecar(main[0], sidecars[0], lambda p: sidecar(bids_dir, p))
        ]
        echo_times = (float(sidecars[0]["EchoTime2"] - sidecars[0]["EchoTime1"]),)
    else:
        coils = _coils(main, volumes)
        step = coils if volumes == 1 else 1
        echo_times = _echo_times(main[::step], sidecars[::step], volumes)
        _check_partners(bids_dir, main, sidecars, files["magnitude"] or files["imaginary"])
        if volumes > 1 and coils > 1:  # a sidecar for each volume, as ReadPhase takes them
            sidecars = [s for s in sidecars for _ in range(coils)]
    b0 = _field_strength(main[0], sidecars[0], notes)
    return Acquisition(
        entities=MappingProxyType(entities),
        suffix=suffix,
        datatype=datatype,
        echo_times=echo_times,
        b0=b0,
        shape=shape,
        voxel_size=voxel_size,
        metadata=tuple(MappingProxyType(s) for s in sidecars),
        notes=tuple(notes),
        coils=coils,
        **{part: tuple(str(p) for p in found) for part, found in files.items()},  # type: ignore[arg-type]
    )


def _coils(main: Sequence[Path], volumes: int) -> int:
    """Coils of uncombined data: of `coil-` or `ch-` files, or volumes of each echo's file."""
    if volumes > 1:
        return volumes if len(main) > 1 else 1
    echoes: dict[str, list[str]] = {}
    for path in main:
        entities = parse_name(path)[0]
        coil = entities.get("coil", entities.get("ch"))
        if coil is not None:
            echoes.setdefault(entities.get("echo", "1"), []).append(coil)
    if not echoes:
        return 1
    first = next(iter(echoes.values()))
    if any(coils != first for coils in echoes.values()) or len(first) * len(echoes) != len(main):
        raise DataError(
            f"{main[0].name}: not every echo has the same coils; add the missing files"
        )
    return len(first)


def _files_by_part(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Files of each part, by echo; refuses what does not make pairs."""
    files: dict[str, list[Path]] = {name: [] for name in PARTS.values()}
    for path in sorted(paths, key=_echo_order):
        part = parse_name(path)[0].get("part", "mag")
        if part not in PARTS:
            raise DataError(
                f"{path.name}: part-{part} is not one of {', '.join(PARTS)}; rename it"
            )
        files[PARTS[part]].append(path)
    for one, other in (("phase", "magnitude"), ("real", "imaginary")):
        if files[one]:
            _check_pairs(one, files[one], other, files[other])
    if not files["phase"] and not files["real"]:
        raise DataError(
            f"{paths[0].name}: there is no phase image; export part-phase (or part-real and "
            f"part-imag) beside the magnitude"
        )
    return files


def _check_pairs(one: str, ones: Sequence[Path], other: str, others: Sequence[Path]) -> None:
    """Refuse images without their partner in the `other` part, and an image kept twice."""
    for twice in (ones, others):
        for path, following in zip(twice, twice[1:], strict=False):
            if path.name.split(".")[0] == following.name.split(".")[0]:
                raise DataError(f"{path.name}: {following.name} is there too; keep one of them")
    if len(ones) != len(others):
        short = other if len(others) < len(ones) else one
        raise DataError(
            f"{ones[0].name}: {len(ones)} {one} but {len(others)} {other} images; "
            f"add the missing {short} files"
        )
    for path, partner in zip(ones, others, strict=True):
        if _echo_order(path)[:2] != _echo_order(partner)[:2]:
            raise DataError(f"{path.name}: there is no {other} image of this echo; add it")


def _echo_order(path: Path) -> tuple[int, int, str]:
    entities = parse_name(path)[0]
    echo, coil = entities.get("echo", "1"), entities.get("coil", entities.get("ch", "0"))
    return (int(echo) if echo.isdigit() else 0, int(coil) if coil.isdigit() else 0, path.name)


def _echo_times(
    paths: Sequence[Path], sidecars: Sequence[Mapping[str, Any]], n_echoes: int
) -> tuple[float, ...]:
    times: list[float] = []
    for path, metadata in zip(paths, sidecars, strict=True):
        name = path.name.split(".")[0] + ".json"
        if "EchoTime" not in metadata:
            raise DataError(f"{name}: EchoTime is missing; add it (in seconds)")
        value = metadata["EchoTime"]
        values = value if isinstance(value, list) else [value]
        if len(paths) > 1 and len(values) > 1:
            raise DataError(
                f"{name}: EchoTime lists {len(values)} times, but each echo has its own file; "
                f"give that echo's time"
            )
        if not all(isinstance(v, (int, float)) and math.isfinite(v) and v > 0 for v in values):
            raise DataError(
                f"{name}: EchoTime is {value!r}; it must be a positive number of seconds"
            )
        if max(values) > 0.5:
            raise DataError(
                f"{name}: EchoTime is {max(values)}, which cannot be seconds; divide milliseconds "
                f"by 1000"
            )
        times.extend(float(v) for v in values)
    if len(paths) == 1 and len(times) != n_echoes:
        raise DataError(
            f"{paths[0].name}: {n_echoes} echoes in the image but {len(times)} in EchoTime; give "
            f"EchoTime as a list of {n_echoes} numbers"
        )
    if any(later <= earlier for earlier, later in zip(times, times[1:], strict=False)):
        listed = ", ".join(f"{t:g}" for t in times)
        raise DataError(
            f"{paths[0].name}: the echo times {listed} s do not increase; correct them"
        )
    return tuple(times)


def _check_partners(
    bids_dir: Path,
    main: Sequence[Path],
    sidecars: Sequence[Mapping[str, Any]],
    partners: Sequence[Path],
) -> None:
    """Refuse echoes whose two images tell different echo times: every map scales with them."""
    for path, metadata, partner in zip(main, sidecars, partners, strict=False):
        time, other = metadata["EchoTime"], sidecar(bids_dir, partner).get("EchoTime")
        if not isinstance(time, (int, float)) or not isinstance(other, (int, float)):
            continue
        if not math.isclose(time, other, rel_tol=0.01):
            raise DataError(
                f"{path.name.split('.')[0]}.json: EchoTime is {time:g} s and that of "
                f"{partner.name} {other:g} s; correct the wrong one"
            )


def _field_strength(path: Path, metadata: Mapping[str, Any], notes: list[str]) -> float:
    """B0 in tesla: from the frequency of the protons, else as stated (often a rounded number)."""
    name = path.name.split(".")[0] + ".json"
    b0 = metadata.get("MagneticFieldStrength")
    frequency = metadata.get("ImagingFrequency")
    measured = frequency / GYROMAGNETIC_RATIO if isinstance(frequency, (int, float)) else None
    if b0 is None and measured is not None:
        b0 = measured
        notes.append(f"MagneticFieldStrength is missing; {b0:.3f} T follows from ImagingFrequency")
    if b0 is None:
        raise DataError(f"{name}: MagneticFieldStrength is missing; add it (in tesla)")
    if not isinstance(b0, (int, float)) or not 0.01 <= b0 <= 25:
        raise DataError(
            f"{name}: MagneticFieldStrength is {b0!r}; give it in tesla, for instance 3"
        )
    if measured is not None and abs(measured - b0) < 0.1 * b0:
        return float(measured)
    return float(b0)


def _without_collisions(
    good: list[Acquisition], bad: list[Refusal]
) -> tuple[list[Acquisition], list[Refusal]]:
    """Refuse acquisitions whose derivatives would overwrite each other's."""
    seen: dict[str, Acquisition] = {}
    for acquisition in good:
        other = seen.setdefault(acquisition.label, acquisition)
        if other is not acquisition:
            reason = (
                f"{Path(acquisition.files[0]).name}: its results would have the same names as "
                f"those of {Path(other.files[0]).name}; tell them apart by acq- or run-"
            )
            bad.append(Refusal(acquisition.entities, reason))
    return list(seen.values()), bad
