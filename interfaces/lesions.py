"""MS lesions as nodes: mask and FLAIR brought to the map, instances, rims, table, picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, Str, TraitedSpec, isdefined, traits

from qsm_nipype.dataset.derivatives import compress, derivative_path, sidecar_of
from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface
from qsm_nipype.system.files import write_bytes, write_json, write_text
from qsm_nipype.volume import Volume, load, same_grid, save


class _FindLesionsInputSpec(QSMInputSpec):
    in_lesions = File(exists=True, mandatory=True, desc="mask or labels, FLAIR or GRE space")
    in_flair = File(exists=True, mandatory=True, desc="FLAIR of the session")
    in_magnitude = File(exists=True, mandatory=True, desc="gradient echoes, last axis echo")
    method = traits.Str(parameter=True, desc="split or components")


class _FindLesionsOutputSpec(TraitedSpec):
    out_instances = File(desc="lesions 1, 2 … on the grid of the magnitude")
    out_flair = File(desc="FLAIR on that grid")
    out_record = File(desc="JSON: space of the mask, registration, warnings")


class FindLesions(QSMInterface):
    """FLAIR and lesion mask → both on the magnitude's grid, lesions numbered.

    What cannot be used becomes a warning in the record and an empty image, so that the maps of
    the acquisition are not lost with it.
    """

    input_spec = _FindLesionsInputSpec
    output_spec = _FindLesionsOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        import numpy as np

        magnitude = load(self.inputs.in_magnitude)
        shape = magnitude.data.shape[:3]
        try:
            instances, flair, record = self._find(magnitude)
        except DataError as exc:
            instances, flair = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
            record = {"warnings": [f"Lesions were not looked at: {exc}"]}
        return {
            "out_instances": save(cwd / "instances.nii", instances, magnitude),
            "out_flair": save(cwd / "flair.nii", flair, magnitude),
            "out_record": write_json(cwd / "record.json", record),
        }

    def _find(self, magnitude: Volume) -> tuple[Any, Any, dict[str, Any]]:
        import numpy as np

        from qsm_nipype.core.lesions import find_instances
        from qsm_nipype.core.registration import resample
        from qsm_nipype.interfaces.registration import register

        flair = load(self.inputs.in_flair)
        mask = load(self.inputs.in_lesions)
        space = lesion_space(mask, flair, magnitude)
        found = register(magnitude, flair, threads=self.inputs.num_threads)
        onto = magnitude.data.shape[:3], magnitude.affine
        moved = resample(flair.data, flair.affine, *onto, found.matrix)
        labels = np.nan_to_num(mask.data).round().astype("int32")
        if space == "FLAIR":
            labels = resample(labels, mask.affine, *onto, found.matrix, labels=True)
        binary = labels > 0 if labels.max(initial=0) <= 1 else labels
        instances = find_instances(binary, magnitude.voxel_size, **self.parameters())
        lost = int(mask.data.max(initial=0) > 0 and instances.max(initial=0) == 0)
        record = {
            "parameters": {"space": space, **self.parameters()},
            "similarity": round(found.similarity, 4),
            "rotation": round(found.rotation, 2),
            "warnings": [],
        }
        if not (mask.data > 0).any():
            record["warnings"] = [f"{Path(mask.path).name}: the lesion mask is empty."]
        elif lost:
            record["warnings"] = [
                f"{Path(mask.path).name}: no lesion lies in the gradient-echo volume."
            ]
        return instances, moved, record


def lesion_space(mask: Volume, flair: Volume, magnitude: Volume) -> str:
    """Whether a lesion mask lies in "FLAIR" or "GRE" space, by its grid. Raises DataError."""
    if mask.data.ndim != 3:
        raise DataError(
            f"{Path(mask.path).name}: the lesion mask has {mask.data.ndim} axes; "
            "give one volume of three"
        )
    if same_grid(mask, flair, tolerance=0.01):
        return "FLAIR"
    if same_grid(mask, magnitude, tolerance=0.01):
        return "GRE"
    raise DataError(
        f"{Path(mask.path).name}: the lesion mask is on the grid neither of "
        f"{Path(flair.path).name} nor of the gradient echoes; resample it to one of them"
    )


class _RimNetInputSpec(QSMInputSpec):
    weights = Str(desc="weight file; undefined: the shipped weights")
    in_chi = traits.Either(
        File(exists=True), traits.List(File(exists=True)), mandatory=True,
        desc="susceptibility (ppm); of several maps the first",
    )  # fmt: skip
    in_mask = File(exists=True, mandatory=True, desc="where it is known")
    in_instances = File(exists=True, mandatory=True, desc="lesions 1, 2 …")
    in_flair = File(exists=True, mandatory=True, desc="FLAIR on the same grid")
    in_record = File(exists=True, mandatory=True, desc="of how the lesions were found (JSON)")
    min_volume = traits.Float(
        mandatory=True, parameter=True, desc="smallest lesion classified (mm³)"
    )


class _RimNetOutputSpec(TraitedSpec):
    out_table = File(desc="one row for each lesion (TSV)")
    out_record = File(desc="JSON: counts, warnings")


class QSMRimNet(QSMInterface):
    """Lesions → probability of a paramagnetic rim (see `qsm_nipype.models.rim_table`)."""

    input_spec = _RimNetInputSpec
    output_spec = _RimNetOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.models.registry import read_weights
        from qsm_nipype.models.rim import trained
        from qsm_nipype.models.rim_table import classify

        chi = self.inputs.in_chi if isinstance(self.inputs.in_chi, str) else self.inputs.in_chi[0]
        volume, mask = load(chi), load(self.inputs.in_mask)
        weights = self.inputs.weights if isdefined(self.inputs.weights) else None
        found = classify(
            volume.data,
            load(self.inputs.in_flair).data,
            mask.data > 0.5,
            load(self.inputs.in_instances, dtype="int32").data,
            volume.affine,
            trained(read_weights("rim", weights)),
            device=self.device,
            **self.parameters(),
        )
        record = json.loads(Path(self.inputs.in_record).read_text(encoding="utf-8"))
        record["warnings"] = [*record["warnings"], *found.warnings]
        record["numbers"] = found.numbers()
        return {
            "out_table": write_text(cwd / "lesions.tsv", found.tsv()),
            "out_record": write_json(cwd / "record.json", record),
        }


class _LesionSinkInputSpec(QSMInputSpec):
    base_directory = traits.Str(mandatory=True, desc="the derivatives dataset")
    entities = traits.Dict(mandatory=True, desc="entities of the source acquisition")
    datatype = traits.Str("anat", usedefault=True, desc="folder below the subject's")
    in_record = File(exists=True, mandatory=True, desc="record of the acquisition (JSON)")
    in_instances = File(exists=True, mandatory=True, desc="lesions 1, 2 …")
    in_table = File(exists=True, mandatory=True, desc="one row for each (TSV)")
    in_flair = File(exists=True, mandatory=True, desc="FLAIR on the same grid")
    in_chi = traits.List(File(exists=True), mandatory=True, desc="susceptibility (ppm)")


class _LesionSinkOutputSpec(TraitedSpec):
    out_files = traits.List(File, desc="images and table written")
    out_figures = traits.List(traits.Dict, desc="entries of the record's figures")


class LesionSink(QSMInterface):
    """Write labels, table, FLAIR and the picture of the rim lesions into the dataset."""

    input_spec = _LesionSinkInputSpec
    output_spec = _LesionSinkOutputSpec

    def targets(self) -> list[Path]:
        """The files that this node writes."""
        lesions, flair = (self._stem(kind) for kind in ("lesions", "flair"))
        ends = [(lesions, ".nii.gz"), (lesions, ".tsv"), (flair, ".nii.gz")]
        return [stem.with_name(stem.name + end) for stem, end in ends]

    def _stem(self, kind: str) -> Path:
        base = Path(self.inputs.base_directory)
        return base / derivative_path(kind, self.inputs.entities, self.inputs.datatype)

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.models.rim_table import COLUMNS
        from qsm_nipype.report.lesions import draw_rims

        record = json.loads(Path(self.inputs.in_record).read_text(encoding="utf-8"))
        labels, table, flair = self.targets()
        compress(Path(self.inputs.in_instances), labels)
        compress(Path(self.inputs.in_flair), flair)
        write_text(table, Path(self.inputs.in_table).read_text(encoding="utf-8"))
        for kind in ("lesions", "flair"):
            stem = self._stem(kind)
            columns = {name: {"Description": text} for name, text in COLUMNS.items()}
            own = sidecar_of(kind, record) | (columns if kind == "lesions" else {})
            write_json(stem.with_name(f"{stem.name}.json"), own)
        chi = load(self.inputs.in_chi[0])
        png, caption = draw_rims(
            chi.data,
            load(self.inputs.in_flair).data,
            load(self.inputs.in_instances, dtype="int32").data,
            table.read_text(encoding="utf-8"),
            chi.affine,
        )
        base = Path(self.inputs.base_directory)
        folder = base / f"sub-{self.inputs.entities['sub']}" / "figures"
        name = labels.name.split("_desc-")[0]
        picture = folder / f"{name}_desc-rims_figure.png"
        write_bytes(picture, png)
        figure = {
            "name": "rims",
            "title": "Lesions with a paramagnetic rim",
            "caption": caption,
            "path": picture.relative_to(base).as_posix(),
        }
        return {"out_files": [str(p) for p in self.targets()], "out_figures": [figure]}
