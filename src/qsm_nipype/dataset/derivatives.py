"""Names, sidecars and tables of what the pipeline writes; data/derivatives.yml lists the kinds."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from qsm_nipype.dataset.names import parse_name, stem
from qsm_nipype.system import yaml_text
from qsm_nipype.system.files import atomic


@lru_cache(maxsize=1)
def table() -> dict[str, dict[str, Any]]:
    """The rows of data/derivatives.yml."""
    text = (resources.files("qsm_nipype.data") / "derivatives.yml").read_text(encoding="utf-8")
    return yaml_text.parse(text)


def ignored() -> list[str]:
    """Patterns for .bidsignore: names that BIDS has no suffix for."""
    named = {f"*_{row['suffix']}.*" for row in table().values() if row.get("ignore")}
    return sorted({*named, "*_OUTDATED.txt"})


def derivative_path(
    kind: str, entities: Mapping[str, str], datatype: str, *, desc: str | None = None
) -> Path:
    """Path of a derivative without extension, below the output folder.

    `desc` replaces the table's. The entities are those of the source image.
    """
    row = table()[kind]
    parts = [stem(entities)]
    if "part" in row:
        parts.append(f"part-{row['part']}")
    desc = desc or row.get("desc")
    if desc:
        parts.append(f"desc-{desc}")
    folders = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    return Path(*folders, datatype, "_".join([*parts, row["suffix"]]))


def outdated_mark(out_dir: Path, entities: Mapping[str, str], datatype: str) -> Path:
    """The file that stands beside an acquisition's maps while they are of an earlier run."""
    folder = derivative_path("chi", entities, datatype).parent
    return out_dir / folder / f"{stem(entities)}_OUTDATED.txt"


def without_ending(path: Path) -> Path:
    return path.with_name(path.name.split(".")[0])


def source_entities(path: Path) -> dict[str, str]:
    """Entities of the acquisition that a derivative belongs to."""
    return {k: v for k, v in parse_name(path)[0].items() if k not in ("part", "desc")}


def lookup_table(labels: Mapping[int, str]) -> str:
    """The look-up table of a segmentation (TSV)."""
    return "index\tname\n" + "".join(f"{index}\t{name}\n" for index, name in labels.items())


#: Columns that every row of a participant's table has.
QC_COLUMNS = {
    "participant_id": {"Description": "participant"},
    "acquisition": {"Description": "entities of the acquisition"},
}


#: Columns that say how good a map is; of acquisitions without a verdict there are none.
VERDICT_COLUMNS: dict[str, dict[str, Any]] = {
    "verdict": {
        "Description": "traffic light of the map",
        "Levels": {
            "green": "nothing was found against this map",
            "yellow": "look before you trust this map",
            "red": "do not use this map",
        },
    },
    "errors": {"Description": "number of findings for which the map must not be used"},
    "warnings": {"Description": "number of findings to look at before the map is trusted"},
}


def qc_table(record: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The record's verdict and numbers as one row of a TSV, and their data dictionary."""
    label = stem(record["entities"])
    row = {"participant_id": f"sub-{record['entities']['sub']}", "acquisition": label}
    dictionary: dict[str, Any] = dict(QC_COLUMNS)
    if record.get("verdict"):
        severities = [finding["severity"] for finding in record.get("findings", [])]
        row["verdict"] = record["verdict"]["light"]
        row |= {f"{s}s": str(severities.count(s)) for s in ("error", "warning")}
        dictionary |= VERDICT_COLUMNS
    for name, number in record.get("numbers", {}).items():
        row[name] = f"{number['value']:.6g}"
        dictionary[name] = {"Description": number["description"], "Units": number["unit"]}
    return "\t".join(row) + "\n" + "\t".join(row.values()) + "\n", dictionary


def compress(source: Path, target: Path) -> None:
    """Copy a .nii or .nii.gz file to .nii.gz; the same bytes in give the same bytes out."""
    opener = gzip.open if source.suffix == ".gz" else open
    with (
        atomic(target) as partial,
        opener(source, "rb") as plain,
        partial.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=1, mtime=0) as packed,
    ):
        shutil.copyfileobj(plain, packed, 1 << 20)


#: The last step that a susceptibility-weighted image rests on, beside the mask, by its method.
_SWI_RESTS_ON = {"homodyne": "offset", "clear": "fit"}


def _steps_of_swi(every: list[dict[str, Any]], place: int) -> list[dict[str, Any]]:
    """The steps that led to the `place`-th susceptibility-weighted image."""
    own = [step for step in every if step["step"] == "swi"][place : place + 1]
    last = _SWI_RESTS_ON.get(own[0]["method"], "reference") if own else "reference"
    names = [step["step"] for step in every]
    end = len(names) - names[::-1].index(last) if last in names else 0
    inversions = [step for step in every if step["step"] == "inversion"]
    before = [s for n, s in enumerate(every) if n < end or s["step"] == "mask"]
    return [s for s in before if s not in inversions[1:]] + own


#: Steps that maps of the decay rest on, in their order; what a segmentation does not rest on, and
#: what the veins and bleeds beside their own method do not.
_DECAY = ("relaxometry", "r2prime")
_ASIDE = (*_DECAY, "separation")
_BESIDE = (*_ASIDE, "segmentation", "regions", "lesions", "swi", "vessels")


def sidecar_of(kind: str, record: Mapping[str, Any], *, inversion: int = 0) -> dict[str, Any]:
    """Sidecar of a map: the table's entries, sources, and the steps that led to it.

    Of several inversions, only the one that made the map (by its place) is among the steps; of
    several susceptibility-weighted images likewise.
    """
    row = table()[kind]
    sidecar = dict(row["sidecar"])
    every = record.get("steps", [])
    own = [step for step in every if step["step"] == "inversion"]
    if kind != "agreement":
        own = own[inversion : inversion + 1]
    names = [step["step"] for step in every]
    until = row["until"] if row["until"] in names or "given" not in names else "mask"
    last = len(names) - names[::-1].index(until) if until in names else len(names)
    steps = [step for step in every[:last] if step["step"] != "inversion" or step in own]
    if row["until"] in _DECAY:
        place = _DECAY.index(row["until"])
        steps = [step for step in every if step["step"] in _DECAY[: place + 1]]
    elif row["until"] == "swi":
        steps = _steps_of_swi(every, inversion)
    elif row["until"] == "vessels":
        steps = [s for s in steps if s["step"] not in _BESIDE or s["method"] == kind]
    elif row["until"] == "read":
        steps = []
    elif row["until"] == "segmentation":
        steps = [step for step in steps if step["step"] not in _ASIDE]
        which = row.get("when", "")
        steps = [s for s in steps if s["step"] != "segmentation" or which in ("", s["method"])]
        sidecar.update(record.get("segmentation", {}).get(which, {}))
    own_mask = record.get("own_mask") if any(s["method"] == "user" for s in steps) else None
    masks = [own_mask["uri"]] if own_mask else []
    sidecar["Sources"] = [*record.get("source_uris", []), *masks]
    sidecar["ProcessingSteps"] = [
        {key: step[key] for key in ("step", "method", "parameters") if key in step}
        for step in steps
    ]
    if kind == "chi" and own:
        sidecar["Inversion"] = own[0]["method"]
    if row["until"] == "reference":
        references = record.get("references") or [{}]
        sidecar.update(references[min(inversion, len(references) - 1)])
        if verdict := record.get("verdict"):
            sidecar["Verdict"] = verdict["light"]
            sidecar["VerdictReasons"] = list(verdict["reasons"])
    versions = record.get("versions", {})
    sidecar["SoftwareVersions"] = ", ".join(f"{k} {v}" for k, v in versions.items())
    return sidecar
