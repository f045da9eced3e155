"""Choices that cannot work are refused, as far as no disk is needed."""

from __future__ import annotations

import re

from qsm_nipype import methods
from qsm_nipype.core.given import KINDS as GIVEN_KINDS
from qsm_nipype.core.mask_language import parse_operations
from qsm_nipype.core.reading.units import parse_units
from qsm_nipype.dataset.own_files import KINDS
from qsm_nipype.errors import UsageError, did_you_mean
from qsm_nipype.settings.files import named_paths
from qsm_nipype.settings.options import NETWORKS, Settings, options

#: Above any number of processors, gigabytes, ppm or mm³ that an option takes.
_LARGEST = 1e6
#: Steps that may be left out.
_OPTIONAL = tuple(f.name for f in options() if f.metadata.get("optional"))


def check(settings: Settings) -> None:
    """Refuse choices that cannot work, as far as no disk is needed. Raises UsageError."""
    settings.chosen()
    _check_paths(settings)
    _check_languages(settings)
    for name in settings.derivatives:
        if name not in KINDS:
            raise UsageError(
                f"-d {name}: there is no such kind{did_you_mean(name, KINDS)}; "
                f"give {', '.join(KINDS)}"
            )
    _check_start(settings)
    if settings.reference in ("csf", "region") and "reference" not in settings.derivatives:
        raise UsageError(f"--reference {settings.reference}: give its mask by -d reference=PATH")
    if settings.two_stage < 0:
        raise UsageError(f"--two-stage {settings.two_stage:g}: give a susceptibility above 0 ppm")
    methods.check_parameters(settings.parameters)
    if "threshold" in settings.parameters.get("two_stage.robust", {}):
        raise UsageError("two_stage.robust.threshold: give it by --two-stage PPM")
    for network in settings.weights:
        if network not in NETWORKS:
            raise UsageError(
                f"--weights {network}: there is no such network; choose from {', '.join(NETWORKS)}"
            )
    _check_numbers(settings)
    _check_twice(settings)
    _check_jobs(settings)
    for option in options():
        allowed = option.metadata.get("choices")
        value = getattr(settings, option.name)
        if allowed and value is not None and value not in allowed:
            raise UsageError(
                f"{option.name} cannot be {getattr(settings, option.name)!r}; choose from "
                f"{', '.join(allowed)}"
            )


def _check_paths(settings: Settings) -> None:
    """Refuse paths that no job script and no table could hold in a line. Raises UsageError."""
    for path in named_paths(settings):
        if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", str(path)):
            raise UsageError(
                f"{str(path)!r}: a path with a line break, a control character or bytes that are "
                f"no text cannot be used; rename it"
            )


def _check_start(settings: Settings) -> None:
    """Refuse what a run that starts at a given map cannot do. Raises UsageError."""
    given = [kind for kind in GIVEN_KINDS if kind in settings.derivatives]
    if not given:
        if settings.map_units != "auto":
            raise UsageError(
                f"--map-units {settings.map_units}: no map is given; give it by -d chi=PATH, "
                f"localfield=PATH or totalfield=PATH, or leave the unit out"
            )
        return
    if len(given) > 1:
        raise UsageError(f"-d {given[0]} and -d {given[1]}: a run starts at one map; give one")
    (kind,) = given
    if settings.bids_filter_file is not None:
        raise UsageError(
            f"--bids-filter-file chooses gradient echoes, and the run starts at -d {kind}; leave "
            f"it out, or choose by --participant-label"
        )
    if kind == "totalfield":
        return
    if settings.two_stage:
        raise UsageError(
            f"--two-stage needs the total field; give -d totalfield=PATH and not -d {kind}"
        )
    for name in settings.inversion if kind == "localfield" else ():
        if methods.get("inversion", name).from_total_field:
            raise UsageError(
                f"--inversion {name} works on the total field; give -d totalfield=PATH, or "
                f"another inversion"
            )


def _check_languages(settings: Settings) -> None:
    """Refuse what cannot be read of the small languages. Raises UsageError."""
    parse_operations(settings.mask_operations)
    if settings.phase_units:
        parse_units(settings.phase_units)


def _check_numbers(settings: Settings) -> None:
    """Refuse negative numbers: 0 leaves the choice to the program. Raises UsageError."""
    for option in options():
        value = getattr(settings, option.name)
        if isinstance(value, (int, float)) and not 0 <= value < _LARGEST:
            raise UsageError(
                f"{option.metadata['flags'][0]} {value:g}: give 0 or more, and less than "
                f"{_LARGEST:g}"
            )


def _check_twice(settings: Settings) -> None:
    """Refuse a method that is named twice for one step. Raises UsageError."""
    for step in methods.CHOSEN:
        value = getattr(settings, step)
        names = value if isinstance(value, tuple) else ()
        if value == () and step not in _OPTIONAL:
            raise UsageError(
                f"--{step} names no method; choose from {', '.join(methods.names(step))}"
            )
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"--{step} {','.join(names)}: name {name} once only")


def _check_jobs(settings: Settings) -> None:
    """Refuse jobs for what takes seconds. Raises UsageError."""
    if settings.submit is None:
        return
    if settings.analysis_level == "group":
        raise UsageError(
            f"--submit {settings.submit}: the group level takes seconds; run it without --submit, "
            f"or submit the participant level, which adds a group job"
        )
    if settings.reports_only:
        raise UsageError(
            f"--submit {settings.submit}: reports take seconds; run --reports-only without it"
        )
