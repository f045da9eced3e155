"""Acquisitions that start at a map which the user gives, whether or not there are raw images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from qsm_nipype.dataset import given
from qsm_nipype.dataset.acquisitions import Acquisition, Refusal, unexpected
from qsm_nipype.dataset.grids import check_grids, geometry_warnings
from qsm_nipype.dataset.layout import Selection
from qsm_nipype.dataset.metadata import kept
from qsm_nipype.dataset.names import parse_name
from qsm_nipype.dataset.own_checks import check_own_files
from qsm_nipype.dataset.own_files import find_own_files
from qsm_nipype.errors import DataError, UsageError


def find_given(bids_dir: Path, selection: Selection) -> tuple[list[Acquisition], list[Refusal]]:
    """An acquisition for each map that the user gives, and what is refused.

    No gradient echoes are needed: participants are those of the maps. Raises UsageError where
    there is no map, or none of a participant that was asked for.
    """
    if not bids_dir.is_dir():
        raise UsageError(
            f"{bids_dir}: no such folder; give a BIDS dataset's root, if only of maps"
        )
    good: list[Acquisition] = []
    bad: list[Refusal] = []
    for entities, files in given.find_maps(bids_dir, selection):
        try:
            if reason := given.ambiguous(entities, files):
                raise DataError(reason)
            found = _acquisition(bids_dir, selection, entities, files[0])
            own = check_own_files(found.own, found.files, found.magnitude, found.label)
            good.append(_with_mask_said(replace(found, own=own)))
        except DataError as exc:
            bad.append(Refusal(entities, str(exc)))
        except Exception as exc:  # what nobody thought of must not cost the other maps
            bad.append(Refusal(entities, unexpected(files[0], exc)))
    return good, bad


def _acquisition(
    bids_dir: Path, selection: Selection, entities: Mapping[str, str], file: Path
) -> Acquisition:
    """The acquisition of the map `file`. Raises DataError."""
    kind = given.kind_of(selection.own)
    place = selection.own[kind]
    grid = check_grids([file])
    if grid.volumes[file] != 1:
        raise DataError(
            f"{file.name}: it has {grid.volumes[file]} volumes; give one map of three axes"
        )
    magnitudes = given.magnitudes_of(bids_dir, entities, file)
    metadata = given.metadata_of(bids_dir, place, file, magnitudes)
    own = find_own_files(selection.own, bids_dir, entities, grid.shape)
    one = given.check_map(kind, place, file, metadata, selection.units, own.mask)
    notes = [] if one.unit.name == "ppm" else [f"{file.name}: {one.unit.name} was made ppm"]
    times = metadata.get("EchoTime") if given.echo_of(metadata) else ()
    return Acquisition(
        entities=MappingProxyType(dict(entities)),
        suffix=parse_name(file)[1],
        datatype="anat",
        echo_times=tuple(times) if isinstance(times, (list, tuple)) else (float(times or 0.0),),
        b0=given.field_of(metadata) or 0.0,
        shape=grid.shape,
        voxel_size=grid.voxel_size,
        magnitude=tuple(str(path) for path in magnitudes),
        metadata=(kept(metadata),),
        notes=tuple(notes),
        warnings=() if kind == "chi" else tuple(geometry_warnings(file, metadata)),
        own=own,
        given=one,
    )


def _with_mask_said(found: Acquisition) -> Acquisition:
    """`found` with a sentence on which voxels are taken for the brain. Raises DataError."""
    one = found.given
    if one is None or found.own.mask is not None:
        return found
    if one.beyond and one.kind != "chi":
        raise DataError(
            f"{one.file.name}: {one.beyond}, so that it does not tell where the brain is; give "
            f"the brain's mask by -d masks=PATH"
        )
    if one.beyond:
        said = (
            f"{one.file.name}: {one.beyond}, and all of that was taken for brain; give the mask "
        )
        return replace(found, warnings=(*found.warnings, said + "by -d masks=PATH"))
    said = f"{one.file.name}: the mask is where the map has a value other than 0"
    return replace(found, notes=(*found.notes, said))
