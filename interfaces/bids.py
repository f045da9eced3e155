"""The derivatives sink: which file goes where under which name, from one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    DynamicTraitedSpec,
    File,
    InputMultiObject,
    isdefined,
    traits,
)

from qsm_nipype.dataset.derivatives import (
    compress,
    derivative_path,
    lookup_table,
    outdated_mark,
    qc_table,
    sidecar_of,
    source_entities,
    table,
    without_ending,
)
from qsm_nipype.dataset.names import stem
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec, files_of
from qsm_nipype.system import manifest
from qsm_nipype.system.files import write_json, write_text


class _SinkInputSpec(DynamicTraitedSpec, QSMInputSpec):
    base_directory = traits.Str(mandatory=True, desc="the derivatives dataset")
    entities = traits.Dict(mandatory=True, desc="entities of the source acquisition")
    datatype = traits.Str("anat", usedefault=True, desc="folder below the subject's")
    in_record = File(exists=True, mandatory=True, desc="record of the acquisition: see record")
    descriptions = traits.Dict(desc="kind → desc- entities, one for each file of a list")


class _SinkOutputSpec(QSMOutputSpec):
    out_files = traits.List(File, desc="images and tables written")


class DerivativesSink(QSMInterface):
    """Write maps under their BIDS names with sidecars; one port for each kind of `kinds`.

    What an earlier run wrote for the acquisition and this one does not is removed: a map of
    other settings would pass for a result of these. `logs/records/files` remembers names, sizes
    and checksums.
    """

    input_spec = _SinkInputSpec
    output_spec = _SinkOutputSpec

    def __init__(self, kinds: Sequence[str] = (), **inputs: Any) -> None:
        super().__init__(**inputs)
        self.kinds = tuple(kinds)
        for kind in self.kinds:
            if kind not in table():
                raise KeyError(f"{kind!r} is not in derivatives.yml")
            self.inputs.add_trait(kind, InputMultiObject(File(exists=True)))
            for part in ("table", "columns"):
                if part in table()[kind]:
                    self.inputs.add_trait(f"{kind}_{part}", File(exists=True))
        self.inputs.trait_set(trait_change_notify=False)

    def targets(self) -> list[Path]:
        """The images that this node writes, as far as its static inputs tell."""
        base = Path(self.inputs.base_directory)
        return [
            base / f"{stem_}{'.tsv' if table()[kind].get('kind') == 'table' else '.nii.gz'}"
            for kind in self.kinds
            for stem_ in self._stems(kind, None)
        ]

    def damaged(self) -> dict[str, str]:
        """What is not as this node left it, by its path in the dataset: then it must run again."""
        base = Path(self.inputs.base_directory)
        mark = outdated_mark(base, self.inputs.entities, self.inputs.datatype)
        if mark.exists():
            return {str(mark.relative_to(base)): "marks maps of an earlier run"}
        found = {str(p.relative_to(base)): "is missing" for p in self.targets() if not p.exists()}
        return found | manifest.damage(self._memory(), base)

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
        manifest.announce(self._memory(), base, self.targets())  # should this be killed
        written = []
        for kind in self.kinds:
            files = files_of(getattr(self.inputs, kind))
            stems = self._stems(kind, len(files)) if files else []
            for place, (source, name) in enumerate(zip(files, stems, strict=True)):
                written.append(self._write(kind, Path(source), base / name, record, place))
        written.append(self._write_qc(base, record))
        for path in set(self._remembered(base)) - {f for p in written for f in _beside(p)}:
            path.unlink(missing_ok=True)
        outdated_mark(base, self.inputs.entities, self.inputs.datatype).unlink(missing_ok=True)
        every = [f for path in written for f in _beside(path) if f.exists()]
        manifest.remember(self._memory(), base, every)
        return {"out_files": [str(path) for path in written]}

    def _memory(self) -> Path:
        folder = Path(self.inputs.base_directory, manifest.FOLDER)
        return folder / f"{stem(self.inputs.entities)}.json"

    def _remembered(self, base: Path) -> list[Path]:
        """What earlier runs wrote, as far as the names are those of this acquisition."""
        folder = derivative_path("chi", self.inputs.entities, self.inputs.datatype).parent
        own = dict(self.inputs.entities)
        paths = [Path(name) for name in manifest.entries(self._memory())]
        known = [p for p in paths if p.parent == folder and source_entities(p) == own]
        return [base / other for path in known for other in _beside(path)]

    def _write(
        self, kind: str, source: Path, target: Path, record: Mapping[str, Any], place: int
    ) -> Path:
        """One file of a kind, the `place`-th, with its sidecar and its table."""
        row = table()[kind]
        sidecar = {} if row.get("kind") == "table" else sidecar_of(kind, record, inversion=place)
        if "columns" in row:
            columns = Path(getattr(self.inputs, f"{kind}_columns"))
            sidecar |= json.loads(columns.read_text(encoding="utf-8"))
        write_json(target.with_name(f"{target.name}.json"), sidecar)
        beside = target.with_name(f"{target.name}.tsv")
        if row.get("kind") == "table":
            write_text(beside, source.read_text(encoding="utf-8"))
            return beside
        if "labels" in row:
            write_text(beside, lookup_table(row["labels"]))
        elif "table" in row:
            rows = Path(getattr(self.inputs, f"{kind}_table"))
            write_text(beside, rows.read_text(encoding="utf-8"))
        image = target.with_name(f"{target.name}.nii.gz")
        compress(source, image)
        return image

    def _write_qc(self, base: Path, record: Mapping[str, Any]) -> Path:
        row, dictionary = qc_table(record)
        path = base / derivative_path("qc", self.inputs.entities, self.inputs.datatype)
        write_text(path.with_name(f"{path.name}.tsv"), row)
        write_json(path.with_name(f"{path.name}.json"), dictionary)
        return path.with_name(f"{path.name}.tsv")


def _beside(path: Path) -> list[Path]:
    """An image or table, its sidecar and its table: what is written under one name."""
    return [Path(f"{without_ending(path)}{ending}") for ending in (".nii.gz", ".json", ".tsv")]
