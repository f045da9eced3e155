"""The derivatives sink: which file goes where under which name, from one table."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from nipype.interfaces.base import DynamicTraitedSpec, File, TraitedSpec, isdefined, traits

from qsm_nipype.bids import parse_name, stem
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface
from qsm_nipype.interfaces.files import write_json, write_text


@lru_cache(maxsize=1)
def table() -> dict[str, dict[str, Any]]:
    """The rows of data/derivatives.yml."""
    text = (resources.files("qsm_nipype.data") / "derivatives.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def ignored() -> list[str]:
    """Patterns for .bidsignore: names that BIDS has no suffix for."""
    return sorted({f"*_{row['suffix']}.*" for row in table().values() if row.get("ignore")})


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


class _SinkInputSpec(DynamicTraitedSpec, QSMInputSpec):
    base_directory = traits.Str(mandatory=True, desc="the derivatives dataset")
    entities = traits.Dict(mandatory=True, desc="entities of the source acquisition")
    datatype = traits.Str("anat", usedefault=True, desc="folder below the subject's")
    in_record = File(
        exists=True, mandatory=True, desc="record of the acquisition: see report.records"
    )
    descriptions = traits.Dict(desc="kind → desc- entities, one for each file of a list")


class _SinkOutputSpec(TraitedSpec):
    out_files = traits.List(File, desc="images and tables written")


class DerivativesSink(QSMInterface):
    """Write maps under their BIDS names with sidecars; one port for each kind of `kinds`.

    What an earlier run wrote for the acquisition and this one does not is removed: a map of
    other settings would pass for a result of these. `logs/records/files` remembers the names.
    """

    input_spec = _SinkInputSpec
    output_spec = _SinkOutputSpec

    def __init__(self, kinds: Sequence[str] = (), **inputs: Any) -> None:
        super().__init__(**inputs)
        self.kinds = tuple(kinds)
        for kind in self.kinds:
            if kind not in table():
                raise KeyError(f"{kind!r} is not in derivatives.yml")
            self.inputs.add_trait(kind, traits.Either(File, traits.List(File)))
        self.inputs.trait_set(trait_change_notify=False)

    def targets(self) -> list[Path]:
        """The images that this node writes, as far as its static inputs tell."""
        base = Path(self.inputs.base_directory)
        return [
            base / f"{stem_}{'.tsv' if table()[kind].get('kind') == 'table' else '.nii.gz'}"
            for kind in self.kinds
            for stem_ in self._stems(kind, None)
        ]

    def _stems(self, kind: str, count: int | None) -> list[Path]:
        chosen = self.inputs.descriptions if isdefined(self.inputs.descriptions) else {}
        descs: list[str | None] = list(chosen.get(kind, [None]))
        if count is not None and len(descs) != count:
            raise ValueError(f"{kind}: {count} files for {len(descs)} names")
        entities, datatype = self.inputs.entities, self.inputs.datatype
        return [derivative_path(kind, entities, datatype, desc=desc) for desc in descs]

    def _run(self, cwd: Path) -> dict[str, Any]:
        record = json.loads(Path(self.inputs.in_record).read_text(encoding="utf-8"))
        base = Path(self.inputs.base_directory)
        self._remember([*self._remembered(base), *self.targets()])  # should this be killed
        written = []
        for kind in self.kinds:
            value = getattr(self.inputs, kind)
            if not isdefined(value):
                continue
            files = [value] if isinstance(value, str) else value
            if table()[kind].get("kind") == "table":
                written.append(self._write_table(base, kind, Path(files[0])))
                continue
            for source, name in zip(files, self._stems(kind, len(files)), strict=True):
                written.append(base / f"{name}.nii.gz")
                compress(Path(source), written[-1])
                own = sidecar_of(kind, record, inversion=files.index(source))
                write_json(base / f"{name}.json", own)
                if "labels" in table()[kind]:
                    write_text(base / f"{name}.tsv", look_up(table()[kind]["labels"]))
        written.append(self._write_qc(base, record))
        for path in set(self._remembered(base)) - set(written):
            for ending in (".nii.gz", ".json", ".tsv"):
                Path(f"{_without_ending(path)}{ending}").unlink(missing_ok=True)
        self._remember(written)
        return {"out_files": [str(path) for path in written]}

    def _memory(self) -> Path:
        folder = Path(self.inputs.base_directory, "logs", "records", "files")
        return folder / f"{stem(self.inputs.entities)}.json"

    def _remembered(self, base: Path) -> list[Path]:
        """What earlier runs wrote, as far as the names are those of this acquisition."""
        try:
            names = json.loads(self._memory().read_text(encoding="utf-8"))["files"]
            paths = [Path(name) for name in names]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        folder = derivative_path("chi", self.inputs.entities, self.inputs.datatype).parent
        own = dict(self.inputs.entities)
        return [base / p for p in paths if p.parent == folder and _source_entities(p) == own]

    def _remember(self, paths: Sequence[Path]) -> None:
        base = Path(self.inputs.base_directory)
        names = sorted({path.relative_to(base).as_posix() for path in paths})
        write_json(self._memory(), {"files": names})

    def _write_table(self, base: Path, kind: str, source: Path) -> Path:
        """A node's table with the data dictionary `columns.json` beside it."""
        path = base / derivative_path(kind, self.inputs.entities, self.inputs.datatype)
        for file, ending in ((source, ".tsv"), (source.with_name("columns.json"), ".json")):
            write_text(path.with_name(path.name + ending), file.read_text(encoding="utf-8"))
        return path.with_name(f"{path.name}.tsv")

    def _write_qc(self, base: Path, record: Mapping[str, Any]) -> Path:
        table, dictionary = qc_table(record)
        path = base / derivative_path("qc", self.inputs.entities, self.inputs.datatype)
        write_text(path.with_name(f"{path.name}.tsv"), table)
        write_json(path.with_name(f"{path.name}.json"), dictionary)
        return path.with_name(f"{path.name}.tsv")


def _without_ending(path: Path) -> Path:
    return path.with_name(path.name.split(".")[0])


def _source_entities(path: Path) -> dict[str, str]:
    """Entities of the acquisition that a derivative belongs to."""
    return {k: v for k, v in parse_name(path)[0].items() if k not in ("part", "desc")}


def look_up(labels: Mapping[int, str]) -> str:
    """The look-up table of a segmentation (TSV)."""
    return "index\tname\n" + "".join(f"{index}\t{name}\n" for index, name in labels.items())


#: Columns that every row of a participant's table has.
QC_COLUMNS = {
    "participant_id": {"Description": "participant"},
    "acquisition": {"Description": "entities of the acquisition"},
}


def qc_table(record: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The record's numbers as one row of a TSV, and their data dictionary."""
    label = stem(record["entities"])
    row = {"participant_id": f"sub-{record['entities']['sub']}", "acquisition": label}
    dictionary: dict[str, Any] = dict(QC_COLUMNS)
    for name, number in record.get("numbers", {}).items():
        row[name] = f"{number['value']:.6g}"
        dictionary[name] = {"Description": number["description"], "Units": number["unit"]}
    return "\t".join(row) + "\n" + "\t".join(row.values()) + "\n", dictionary


def compress(source: Path, target: Path) -> None:
    """Copy a .nii or .nii.gz file to .nii.gz; the same bytes in give the same bytes out."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial-{os.getpid()}-{target.name}")
    opener = gzip.open if source.suffix == ".gz" else open
    with (
        opener(source, "rb") as plain,
        partial.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=1, mtime=0) as packed,
    ):
        shutil.copyfileobj(plain, packed, 1 << 20)
    os.replace(partial, target)


def sidecar_of(kind: str, record: Mapping[str, Any], *, inversion: int = 0) -> dict[str, Any]:
    """Sidecar of a map: the table's entries, sources, and the steps that led to it.

    Of several inversions, only the one that made the map (by its place) is among the steps.
    """
    row = table()[kind]
    sidecar = dict(row["sidecar"])
    every = record.get("steps", [])
    own = [step for step in every if step["step"] == "inversion"][inversion : inversion + 1]
    names = [step["step"] for step in every]
    last = len(names) - names[::-1].index(row["until"]) if row["until"] in names else len(names)
    steps = [step for step in every[:last] if step["step"] != "inversion" or step in own]
    if row["until"] == "relaxometry":
        steps = [step for step in every if step["step"] == "relaxometry"]
    elif row["until"] == "read":
        steps = []
    elif row["until"] == "segmentation":
        steps = [step for step in steps if step["step"] != "relaxometry"]
        sidecar.update(record.get("segmentation", {}))
    own_mask = record.get("own_mask") if any(s["method"] == "user" for s in steps) else None
    masks = [own_mask["uri"]] if own_mask else []
    sidecar["Sources"] = [*record.get("source_uris", []), *masks]
    sidecar["ProcessingSteps"] = [
        {key: step[key] for key in ("step", "method", "parameters") if key in step}
        for step in steps
    ]
    if row["until"] == "reference":
        references = record.get("references", [{}])
        sidecar.update(references[min(inversion, len(references) - 1)])
    versions = record.get("versions", {})
    sidecar["SoftwareVersions"] = ", ".join(f"{k} {v}" for k, v in versions.items())
    return sidecar
