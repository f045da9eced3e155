"""What is known of an acquisition before it runs: the static part of its record."""

from __future__ import annotations

import inspect
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from qsm_nipype import __version__, methods
from qsm_nipype.core.given import KINDS
from qsm_nipype.dataset.acquisitions import Acquisition, Refusal
from qsm_nipype.dataset.own_files import OwnFiles, folder_of
from qsm_nipype.dataset.participants import age_of
from qsm_nipype.dataset.r2_files import R2Files
from qsm_nipype.methods import STEPS, Method
from qsm_nipype.record import Finding
from qsm_nipype.settings import NO_METHOD, Settings, load_config, presets
from qsm_nipype.verdict import reported

#: Sidecar fields that may reach an output: scanner and sequence, never a person, place or date.
_SHOWN = {
    "Manufacturer": "manufacturer",
    "ManufacturersModelName": "model",
    "RepetitionTime": "repetition_time",
    "FlipAngle": "flip_angle",
    "MRAcquisitionType": "sequence",
}
#: Voxel edge (mm) above which the map is doubted.
LARGEST_VOXEL = 4.0
#: Options about steps that a run from a given map may pass over.
_UNUSED_OPTIONS = (
    *("phase_sign", "phase_units", "offset", "unwrapping", "fit", "mask", "mask_operations"),
    *("trim", "background", "inversion", "relaxometry", "swi", "separation", "save_unwrapped"),
)
_VERSIONED = ("nipype", "nibabel", "numpy", "scipy", "torch", "numba")


def identifier(text: str) -> str:
    """Letters, digits and underscores only, as Nipype wants node names."""
    return re.sub(r"\W+", "_", text)


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of this package and of what computes in it."""
    found = {"qsm-nipype": __version__, "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in _VERSIONED}


def steps(
    settings: Settings,
    *,
    decays: bool = True,
    lesions: bool | None = None,
    r2: R2Files | None = None,
) -> list[dict[str, Any]]:
    """Every step with its method and all parameters, in the order of the pipeline.

    `decays`: whether there are several echoes; `lesions`: whether a lesion mask and a FLAIR were
    found (None: if a mask was promised); `r2`: where R2 comes from.
    """
    left_out = {"read"} | ({"relaxometry", "r2prime", "separation"} if not decays else set())
    left_out |= {"lesions"} if lesions is False else set()
    found = _given_steps(settings)
    for method in settings.chosen():
        if method.step in left_out:
            continue
        if method.step == "r2prime" and r2 is not None:
            method = methods.get("r2prime", r2.method)
        if method.step == "trim" and (edits := _edits(settings)):
            found.append(edits)
        entry = {
            "step": method.step,
            "method": method.name,
            "label": method.label,
            "parameters": _parameters(settings, method),
        }
        if method.step == "mask" and "masks" in settings.derivatives:
            entry = {"step": "mask", "method": "user", "label": "User's mask", "parameters": {}}
        if entry not in found:
            found.append(entry)
    return found


def _given_steps(settings: Settings) -> list[dict[str, Any]]:
    """The steps in place of those that a given map makes needless; none without such a map."""
    if not settings.start:
        return []
    own = "masks" in settings.derivatives
    mask = ("user", "User's mask") if own else ("values", "Where the map has a value")
    name = f"The user's {KINDS[settings.start].removeprefix('the ')}"
    chosen = [("given", settings.start, name), ("mask", *mask)]
    return [{"step": s, "method": m, "label": text, "parameters": {}} for s, m, text in chosen]


def _parameters(settings: Settings, method: Method) -> dict[str, Any]:
    """A method's parameters in this run, those that are unset left out."""
    found = {**method.parameters(), **settings.parameters_of(method)}
    if weights := settings.weights_of(method):
        found["weights"] = weights.name
    found |= _supplied(settings).get(method.key, {})
    return {k: v for k, v in found.items() if v is not None and v is not inspect.Parameter.empty}


def _supplied(settings: Settings) -> dict[str, dict[str, Any]]:
    """Parameters that follow from other options, by method."""
    rims = {"method": settings.lesion_instances, "min_volume": settings.lesion_volume}
    found: dict[str, dict[str, Any]] = {
        "two_stage.robust": {"threshold": settings.two_stage},
        "lesions.rimnet": rims,
        "reference.none": {"erosion": None},
    }
    if settings.reference == "csf":
        found["inversion.medi"] = {"uniform": "cerebrospinal fluid"}
    return found


def _edits(settings: Settings) -> dict[str, Any]:
    """What was done to the masks before trimming; empty where one was taken as it is."""
    rule = "" if "masks" in settings.derivatives else settings.mask
    if "&" in rule:
        chosen = {"step": "mask", "method": "combined", "label": "Intersection of masks"}
    elif ":" in rule or settings.mask_operations:
        chosen = {"step": "mask", "method": "edited", "label": "Edited mask"}
    else:
        return {}
    given = {"rule": rule, "operations": settings.mask_operations}
    return {**chosen, "parameters": {k: v for k, v in given.items() if v}}


def static_part(settings: Settings, acquisition: Acquisition) -> dict[str, Any]:
    """Entities, sources and scanner of an acquisition. Holds nothing that names a person."""
    first: Mapping[str, Any] = acquisition.metadata[0] if acquisition.metadata else {}
    scanner = {name: first[key] for key, name in _SHOWN.items() if _is_plain(first.get(key))}
    age = age_of(settings.bids_dir, acquisition.entities)
    return {
        **({} if age is None else {"age": age}),
        "own_mask": own_mask(acquisition.own),
        "entities": dict(acquisition.entities),
        "datatype": acquisition.datatype,
        "source_files": [Path(f).name for f in acquisition.files],
        "source_uris": _source_uris(settings, acquisition),
        "acquisition": {
            **scanner,
            "field_strength": acquisition.b0 or None,
            "echo_times": list(acquisition.echo_times),
            "voxel_size": [round(v, 4) for v in acquisition.voxel_size],
            "shape": list(acquisition.shape),
        },
        "findings": [asdict(finding) for finding in findings(settings, acquisition)],
        "versions": versions(),
    }


def _source_uris(settings: Settings, acquisition: Acquisition) -> list[str]:
    """BIDS URIs of an acquisition's files; of a given map that below its own folder."""
    first = [] if acquisition.given is None else [acquisition.given.uri]
    return first + [uri(settings.bids_dir, f) for f in acquisition.files[len(first) :]]


def findings(settings: Settings, acquisition: Acquisition) -> list[Finding]:
    """What is known of an acquisition's map before it is made, beside what was read of its files.

    What the user promised and could not be used is a warning, as is what makes a map doubtful.
    """
    warnings = [*acquisition.warnings, *acquisition.own.notes, *_left_out(settings, acquisition)]
    warnings += _doubts(settings, acquisition)
    return reported({"notes": acquisition.notes, "warnings": warnings})


def _left_out(settings: Settings, acquisition: Acquisition) -> list[str]:
    """What was asked for and will not be done, with the cure; what a user did not say is not."""
    own_mask = "masks" in settings.derivatives
    used = [m for m in settings.chosen() if m.step != "mask" or not own_mask]
    found = [
        f"--{name.replace('_', '-')} was not used: the run starts at -d {settings.start}"
        for name in _UNUSED_OPTIONS
        if settings.start and _is_passed_over(settings, name)
    ]
    wanted = settings.relaxometry != NO_METHOD and not settings.start
    if wanted and len(acquisition.echo_times) == 1:
        found.append(
            "R2* and T2* were not mapped: the acquisition has one echo; give --relaxometry "
            f"{NO_METHOD} if they are not wanted"
        )
    found += _without_r2(settings, acquisition)
    if own_mask and settings.mask != Settings.mask and not settings.start:
        found.append(f"--mask {settings.mask} was not used: the mask of -d masks takes its place")
    if "reference" in settings.derivatives and settings.reference not in ("csf", "region"):
        found.append(
            f"the region of -d reference was not used: --reference is {settings.reference}; give "
            "--reference region (or csf)"
        )
    if "lesions" not in settings.derivatives and (
        settings.lesion_volume != Settings.lesion_volume
        or settings.lesion_instances != Settings.lesion_instances
    ):
        found.append("no lesions were looked at: give their masks by -d lesions=PATH")
    for network in sorted(set(settings.weights) - {m.network for m in used}):
        found.append(f"--weights {network} was not used: no step of this run has that network")
    for key in sorted(set(settings.parameters) - {m.key for m in used} - _preset_keys(settings)):
        found.append(f"the parameters of {key} were not used: the method was not chosen")
    return found


def _without_r2(settings: Settings, acquisition: Acquisition) -> list[str]:
    """What `--separation` could not do for want of R2 or R2*, and a map of `-d r2` left unused."""
    own, asked = acquisition.own, settings.separation != NO_METHOD
    if not asked:
        unused = "r2" in settings.derivatives
        return ["the map of -d r2 was not used: give --separation joint"] if unused else []
    if settings.start:
        return []
    if settings.relaxometry == NO_METHOD or len(acquisition.echo_times) == 1:
        return ["sources were not separated: that needs R2*, of two echoes and --relaxometry"]
    if own.r2 is not None or settings.separation == "r2star-qsm":
        return []
    why = f" ({own.r2_fault})" if own.r2_fault else ""
    return [
        f"R2 was not measured{why}: R2′ is assumed to be the same share of R2* everywhere, "
        "which white matter, oedema and lesions break; give a map by -d r2=PATH or MESE images"
    ]


def _is_passed_over(settings: Settings, name: str) -> bool:
    """Whether an option was given that no step of a run from a given map looks at."""
    step = name if name in STEPS else "read"
    changed = getattr(settings, name) != getattr(Settings, name)
    return changed and step in settings.passed_over() and getattr(settings, name) != NO_METHOD


def _preset_keys(settings: Settings) -> set[str]:
    """Methods whose parameters are those of a preset, which may be given beside other methods."""
    known = _preset_parameters()
    return {k for k, v in settings.parameters.items() for own in known if own.get(k) == v}


@lru_cache(maxsize=1)
def _preset_parameters() -> list[Mapping[str, Any]]:
    return [load_config(path).get("parameters", {}) for path in presets().values()]


def _doubts(settings: Settings, acquisition: Acquisition) -> list[str]:
    """What makes a map doubtful that will be made all the same."""
    found = []
    largest = max(acquisition.voxel_size)
    if largest > LARGEST_VOXEL:
        found.append(
            f"voxels of {largest:.3g} mm are too large for susceptibility: above "
            f"{LARGEST_VOXEL:g} mm the field beside air cavities changes too much within a voxel"
        )
    own_mask = "masks" in settings.derivatives or settings.start
    if settings.mask == "magnitude" and not own_mask:
        found.append(
            "the mask holds all that has signal (--mask magnitude): in a head the field of fat "
            "and bone spoils the map of the brain; use the default mask there"
        )
    return found


def _is_plain(value: Any) -> bool:
    """Whether a sidecar's value is text, a number or a list of them: nothing else is shown."""
    if isinstance(value, list):
        return bool(value) and all(_is_plain(v) for v in value)
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def own_mask(own: OwnFiles) -> dict[str, str]:
    """Name and BIDS URI of the user's brain mask; empty where there is none."""
    return {} if own.mask is None else {"file": own.mask.name, "uri": own.mask_uri}


def with_own_mask(
    steps: Sequence[Mapping[str, Any]], own: Mapping[str, str]
) -> list[dict[str, Any]]:
    """`steps` (see `steps`), with the file among the parameters where the user's mask is taken."""
    file = {"parameters": {"file": own["file"]}} if own else {}
    return [{**s, **(file if s["method"] == "user" else {})} for s in steps]


def links(settings: Settings) -> dict[str, str]:
    """DatasetLinks of the results: the raw dataset, the folders of the user's masks and maps.

    Paths are relative to the results, so that they move together and name no more folders than
    they must.
    """
    found = {"raw": _relative(settings, settings.bids_dir)}
    for kind in ("masks", *KINDS):
        if kind in settings.derivatives:
            found[kind] = _relative(settings, folder_of(Path(settings.derivatives[kind])))
    return found


def _relative(settings: Settings, folder: Path) -> str:
    """`folder` as seen from the results, as the path of a URI."""
    path = os.path.relpath(folder.absolute(), settings.output_dir.absolute())
    return quote(Path(path).as_posix())


def uri(bids_dir: Path, file: str) -> str:
    """BIDS URI of a file of the raw dataset."""
    return f"bids:raw:{Path(file).absolute().relative_to(bids_dir.absolute()).as_posix()}"


def describe(
    settings: Settings,
    acquisitions: Sequence[Acquisition],
    refusals: Sequence[Refusal],
    warnings: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> str:
    """What a run would do, as text; `warnings` are further sentences by acquisition."""
    lines = [f"qsm-nipype {__version__}: {len(acquisitions)} acquisitions to process"]
    faulty = [item for item in refusals if not item.idle]
    for item in acquisitions:
        echoes = ", ".join(f"{1000 * t:.4g}" for t in item.echo_times)
        size = " × ".join(f"{v:.3g}" for v in item.voxel_size)
        shape = "×".join(str(n) for n in item.shape)
        scan = f"{item.b0:.4g} T, TE {echoes} ms, " if item.given is None else ""
        lines.append(f"  {item.label}: {scan}{shape} of {size} mm")
        lines.append(f"    {_found(item)}")
        lines += [f"    {f.severity}: {f.text}" for f in findings(settings, item)]
        lines += [f"    warning: {text}" for text in warnings.get(item.label, ())]
    lines += [f"  {item.label}: NOT PROCESSED: {item.reason}" for item in faulty]
    lines += [f"  {text}" for text in nothing_to_do(refusals)]
    lines.append("steps")
    for step in steps(settings):
        chosen = ", ".join(f"{k} = {v}" for k, v in step["parameters"].items())
        lines.append(f"  {step['step']}: {step['method']}" + (f" ({chosen})" if chosen else ""))
    lines.append(f"results go to {settings.output_dir}, intermediate files to {settings.work_dir}")
    return "\n".join(lines)


def _found(acquisition: Acquisition) -> str:
    """Which files make an acquisition, and what the user brings for it."""
    parts = {"phase": acquisition.phase, "magnitude": acquisition.magnitude,
             "real": acquisition.real, "imaginary": acquisition.imaginary}  # fmt: skip
    words = [f"{len(files)} {part}" for part, files in parts.items() if files]
    coils = f" of {acquisition.coils} coils" if acquisition.coils > 1 else ""
    first = Path((*acquisition.phase, *acquisition.real, *acquisition.files)[0]).name
    if acquisition.given is not None:
        words.insert(0, f"1 {acquisition.given.kind}")
    own = acquisition.own
    given = {"mask": own.mask, "reference region": own.region}
    brought = [f"{kind} {file.name}" for kind, file in given.items() if file is not None]
    brought += [f"segmentation {atlas.file.name}" for atlas in own.atlases]
    brought += [f"lesions {own.lesions.mask.name}"] if own.lesions is not None else []
    files = (
        f"{', '.join(words)} images{coils} ({first}{' …' if len(acquisition.files) > 1 else ''})"
    )
    return "; ".join([files, *brought])


def nothing_to_do(refusals: Sequence[Refusal]) -> list[str]:
    """One line for each reason why there is nothing to do, with those that it holds for."""
    found: dict[str, list[Refusal]] = {}
    for item in refusals:
        if item.idle:
            found.setdefault(re.sub(r"^\S+\.nii(\.gz)?: ", "", item.reason), []).append(item)
    lines = []
    for reason, own in found.items():
        shown = ", ".join(item.label for item in own[:5])
        more = f" … ({len(own)} in all)" if len(own) > 5 else ""
        lines.append(f"{shown}{more}: nothing to do: {own[0].reason if len(own) == 1 else reason}")
    return lines
