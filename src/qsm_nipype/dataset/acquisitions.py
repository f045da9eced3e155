"""From a BIDS folder to checked acquisitions: what is there, and what is wrong with the rest."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qsm_nipype.dataset import layout, phasediff, timing
from qsm_nipype.dataset.field_strength import TOLERANCE, field_strength
from qsm_nipype.dataset.given import GivenMap
from qsm_nipype.dataset.grids import Grid, check_grids, geometry_warnings
from qsm_nipype.dataset.layout import SUFFIXES, Selection
from qsm_nipype.dataset.metadata import Sidecars, kept
from qsm_nipype.dataset.names import stem
from qsm_nipype.dataset.own_checks import check_own_files
from qsm_nipype.dataset.own_files import OwnFiles, find_own_files
from qsm_nipype.dataset.pairing import (
    PARTS,
    Group,
    coils_of,
    files_by_part,
    group,
    partners_of,
)
from qsm_nipype.dataset.witnesses import check_witnesses
from qsm_nipype.errors import DataError

__all__ = ["PARTS", "SUFFIXES", "Acquisition", "Selection", "find_acquisitions"]

#: Why there is nothing to do for a participant.
NOTHING = (
    f"no gradient-echo images ({', '.join(SUFFIXES)}) and no field map with phase; name others by "
    "--bids-filter-file"
)


@dataclass(frozen=True)
class Acquisition:
    """One gradient-echo acquisition; files are ordered by echo, and one 4-D file may hold all.

    `entities` are in BIDS order; times in s, `b0` in tesla, lengths in mm. Of
    uncombined data, the files (or the volumes of one file per echo) run over the `coils` of the
    first echo, then of the second. A phase difference is one echo at TE₂ − TE₁. `own` are the
    files that the user brings for it. `notes` are harmless decisions, `warnings` what must be
    looked at, a sentence each. Where a map is `given`, it is the first of the files, the
    magnitudes are those on its grid, and what is not known of B0 and echo times is 0 and empty.
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
    warnings: tuple[str, ...] = ()
    coils: int = 1
    own: OwnFiles = OwnFiles()
    given: GivenMap | None = None

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
        first = () if self.given is None else (str(self.given.file),)
        return first + self.magnitude + self.phase + self.real + self.imaginary

    @property
    def voxels(self) -> int:
        """Voxels of one echo."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Refusal:
    """What is not processed, and the one sentence that says why.

    `idle`: there is nothing to do, which is no failure: an acquisition without phase, or a
    participant without gradient echoes.
    """

    entities: Mapping[str, str]
    reason: str
    idle: bool = False

    @property
    def label(self) -> str:
        """As `Acquisition.label`."""
        return stem(self.entities)

    @property
    def subject(self) -> str:
        """Label without `sub-`."""
        return self.entities["sub"]


def find_acquisitions(
    bids_dir: Path, selection: Selection
) -> tuple[list[Acquisition], list[Refusal]]:
    """Every gradient-echo acquisition of the selected participants, and what is not processed.

    Where a participant's session has none with phase, its field maps (fmap/, phase difference or
    two phases with magnitudes) are taken; a BIDS filter that asks for them takes them anyway.
    A faulty one does not disturb the others: it comes back as a Refusal, and so does, `idle`, what
    leaves nothing to do. Raises UsageError when the dataset or the selection itself is unusable.
    """
    bids_dir = Path(os.path.abspath(bids_dir))
    contents = layout.contents(bids_dir, selection)
    good: list[Acquisition] = []
    bad = [Refusal({"sub": label}, why) for label, why in contents.unreadable.items()]
    sidecars = Sidecars(bids_dir)
    misnamed = layout.misnamed(bids_dir, selection, contents.participants)
    bad += [Refusal(entities, said) for entities, said in misnamed]
    groups = group(contents.images)
    for one in _without_spare_field_maps(groups):
        if reason := _idle(one):
            bad.append(Refusal(one.entities, reason, idle=True))
            continue
        try:
            found = _acquisition(sidecars, one)
            own = find_own_files(selection.own, bids_dir, one.entities, found.shape)
            own = check_own_files(own, found.files, found.magnitude, found.label)
            good.append(replace(found, own=own))
        except DataError as exc:
            bad.append(Refusal(one.entities, str(exc)))
        except Exception as exc:  # what nobody thought of must not cost the other acquisitions
            bad.append(Refusal(one.entities, unexpected(one.paths[0], exc)))
    seen = {item.subject for item in good} | {item.subject for item in bad}
    for participant in contents.participants:
        if participant not in seen:
            reason = layout.other_phase(bids_dir, participant) or NOTHING
            bad.append(Refusal({"sub": participant}, reason, idle=True))
    return _without_collisions(good, bad)


def unexpected(path: Path, exc: Exception) -> str:
    """The sentence of an error that nobody foresaw when `path` was looked at."""
    said = " ".join(str(exc).split())[:200]
    return (
        f"{path.name}: this acquisition cannot be read ({type(exc).__name__}: {said}); convert "
        f"its images and sidecars again"
    )


def _is_field_map(one: Group) -> bool:
    return one.suffix in (*phasediff.SUFFIXES, *phasediff.OTHERS)


def _without_spare_field_maps(groups: Sequence[Group]) -> list[Group]:
    """`groups` less the field maps of sessions that have a gradient echo with phase.

    A second phase belongs to the first. A field map in Hz is kept where it is the only one.
    """
    served = {one.visit for one in groups if not _is_field_map(one) and one.has_phase}
    usable = {one.visit for one in groups if one.suffix in phasediff.SUFFIXES}
    kept = []
    for one in groups:
        spare = _is_field_map(one) and one.visit in served
        if spare or one.suffix in phasediff.OTHERS and one.visit in usable:
            continue
        kept.append(one)
    return kept


def _idle(one: Group) -> str:
    """Why there is nothing to do for a group of images; empty where there is."""
    first = one.paths[0].name
    if one.suffix == "fieldmap":
        return (
            f"{first}: a field map in Hz cannot be used, its background and the phase are not in "
            f"it; export the phase images (phasediff, or phase1 and phase2) with the magnitudes"
        )
    if _is_field_map(one) or one.has_phase:
        return ""
    return (
        f"{first}: there is no phase image; export part-phase (or part-real and part-imag) beside "
        f"the magnitude"
    )


def _acquisition(sidecar: Sidecars, one: Group) -> Acquisition:
    datatype, notes = one.paths[0].parent.name, list(one.notes)
    if _is_field_map(one):
        files = phasediff.files_of(one.paths[0])
        datatype = "anat"  # χ is an anatomical map wherever it came from
        notes.append(phasediff.NOTE)
    else:
        files = files_by_part(one, notes)
    check_witnesses({part: [(p.name, sidecar(p)) for p in own] for part, own in files.items()})
    grid = check_grids([p for part in files.values() for p in part])
    echoes = (_difference if one.suffix == "phasediff" else _echoes)(sidecar, files, grid, notes)
    first = echoes.main[0]
    warnings = geometry_warnings(first, echoes.sidecars[0])
    warnings += timing.thickness_warnings(first, echoes.sidecars[0], grid.voxel_size)
    b0 = field_strength(timing.json_name(first), echoes.sidecars[0], notes)
    return Acquisition(
        entities=MappingProxyType(one.entities),
        suffix=one.suffix,
        datatype=datatype,
        echo_times=echoes.times,
        b0=b0,
        shape=grid.shape,
        voxel_size=grid.voxel_size,
        metadata=tuple(kept(s) for s in echoes.sidecars),
        notes=tuple(notes),
        warnings=tuple(warnings),
        coils=echoes.coils,
        **{part: tuple(str(p) for p in found) for part, found in echoes.files.items()},  # type: ignore[arg-type]
    )


@dataclass(frozen=True)
class _Echoes:
    """The files of each part in the order of the echo `times` (s); sidecars of the `main` one."""

    main: Sequence[Path]
    files: Mapping[str, Sequence[Path]]
    sidecars: Sequence[Mapping[str, Any]]
    times: tuple[float, ...]
    coils: int = 1


def _difference(
    sidecar: Sidecars, files: Mapping[str, list[Path]], grid: Grid, notes: list[str]
) -> _Echoes:
    """A phase difference: one echo at TE₂ − TE₁. Raises DataError."""
    main = files["phase"]
    if grid.volumes[main[0]] != 1 or sum(grid.volumes[p] for p in files["magnitude"]) > 2:
        raise DataError(
            f"{main[0].name}: a phase difference is one volume with one or two of magnitude; give "
            f"those of one field map"
        )
    own = phasediff.difference_sidecar(main[0], sidecar(main[0]), sidecar)
    theirs = [sidecar(path) for path in files["magnitude"]]
    _check_one_scanner(main, [own], files["magnitude"], theirs)
    return _Echoes(main, files, [own], (float(own["EchoTime2"] - own["EchoTime1"]),))


def _echoes(
    sidecar: Sidecars, files: dict[str, list[Path]], grid: Grid, notes: list[str]
) -> _Echoes:
    """The echoes of phase, or of real and imaginary parts, by their times. Raises DataError."""
    main, partners = partners_of(files, grid.volumes)
    sidecars = [sidecar(path) for path in main]
    theirs = [sidecar(path) for path in partners]
    coils = coils_of(main, grid.volumes)
    stacked = grid.volumes[main[0]]
    if coils > 1 and len(main) != len(partners):
        raise DataError(
            f"{partners[0].name}: of uncombined coils each image needs its partner; give as many "
            f"files of both parts"
        )
    if len(main) == 1 < len(partners):
        times = _of_stack(main[0], sidecars, partners, theirs, notes)
    else:
        step = coils if stacked == 1 else 1
        times = timing.echo_times(main[::step], sidecars[::step], stacked)
        if len(main) == len(partners):
            timing.check_partners(main, sidecars, partners, theirs)
        order = _by_time(times, notes)
        times = tuple(times[n] for n in order)
        places = [n * step + coil for n in order for coil in range(step)]
        main, sidecars = [main[n] for n in places], [sidecars[n] for n in places]
        if len(partners) == len(places):
            partners, theirs = [partners[n] for n in places], [theirs[n] for n in places]
        if len(partners) == 1 < len(main):
            _check_stack(main[0], times, partners[0], theirs[0], order)
    step = max(1, len(main) // len(times))
    timing.check_sidecars(main[::step], sidecars[::step], times)
    _check_one_scanner(main, sidecars, partners, theirs)
    one, other = ("phase", "magnitude") if files["phase"] else ("real", "imaginary")
    if stacked > 1 and coils > 1:  # a sidecar for each volume, as ReadPhase takes them
        sidecars = [s for s in sidecars for _ in range(coils)]
    return _Echoes(main, {**files, one: main, other: partners}, sidecars, times, coils)


def _of_stack(
    main: Path,
    sidecars: list[dict[str, Any]],
    partners: list[Path],
    theirs: list[dict[str, Any]],
    notes: list[str],
) -> tuple[float, ...]:
    """Echo times of one 4-D image whose partners are one per echo, which are sorted by time.

    Where its sidecar lists none, those of the partners are taken. Raises DataError.
    """
    own, known = sidecars[0].get("EchoTime"), all("EchoTime" in s for s in theirs)
    if known:
        times = timing.echo_times(partners, theirs, 1)
        order = _by_time(times, notes)
        partners[:], theirs[:] = [partners[n] for n in order], [theirs[n] for n in order]
        if not isinstance(own, list):
            sidecars[0]["EchoTime"] = sorted(times)
    listed = timing.echo_times([main], sidecars, len(partners))
    if known:
        timing.check_volumes(main, listed, partners[0], {"EchoTime": sorted(times)})
    return listed


def _by_time(times: Sequence[float], notes: list[str]) -> list[int]:
    """The order of the echoes in time, with a note where that is not their order by name."""
    order = sorted(range(len(times)), key=times.__getitem__)
    if order != sorted(order):
        shown = ", ".join(f"{1000 * times[n]:.4g}" for n in order)
        notes.append(
            f"the echoes' names do not follow their EchoTime: both parts were sorted by time "
            f"({shown} ms)"
        )
    return order


def _check_stack(
    main: Path,
    times: Sequence[float],
    partner: Path,
    metadata: Mapping[str, Any],
    order: Sequence[int],
) -> None:
    """Refuse one 4-D `partner` of one image per echo if the order of its volumes is not known."""
    timing.check_volumes(main, times, partner, metadata)
    if list(order) != sorted(order) and not isinstance(metadata.get("EchoTime"), list):
        raise DataError(
            f"{partner.name}: its volumes cannot be told apart, for the echoes of {main.name} are "
            f"not numbered by their times; give EchoTime as a list there"
        )


def _check_one_scanner(
    main: Sequence[Path],
    sidecars: Sequence[Mapping[str, Any]],
    partners: Sequence[Path],
    theirs: Sequence[Mapping[str, Any]],
) -> None:
    """Refuse images of one acquisition that state different fields. Raises DataError."""
    every = dict(zip([p.name for p in (*main, *partners)], [*sidecars, *theirs], strict=True))
    for key, tolerance in (("MagneticFieldStrength", TOLERANCE), ("ImagingFrequency", 0.001)):
        values = {name: own.get(key) for name, own in every.items()}
        timing.check_same(timing.json_name(main[0]), key, values, tolerance)


def _without_collisions(
    good: list[Acquisition], bad: list[Refusal]
) -> tuple[list[Acquisition], list[Refusal]]:
    """Refuse acquisitions whose derivatives would overwrite each other's."""
    seen: dict[str, Acquisition] = {}
    for acquisition in good:  # names: folders of the work folder are called so
        other = seen.setdefault(acquisition.name, acquisition)
        if other is not acquisition:
            reason = (
                f"{Path(acquisition.files[0]).name}: its results would have the same names as "
                f"those of {Path(other.files[0]).name}; tell them apart by acq- or run-"
            )
            bad.append(Refusal(acquisition.entities, reason))
    return list(seen.values()), bad
