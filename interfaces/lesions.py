"""MS lesions as nodes: mask and FLAIR brought to the map, instances, rims, table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, Str, isdefined, traits

from qsm_nipype.dataset.own_arrays import read_lesions
from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.methods import resolve
from qsm_nipype.system.files import write_json, write_text
from qsm_nipype.volume import Volume, load, load_one, same_grid, save

#: How the warning begins that stands in for the lesions.
LEFT_OUT = "Lesions were not looked at: "


class _FindLesionsInputSpec(QSMInputSpec):
    in_lesions = File(exists=True, mandatory=True, desc="mask or labels, FLAIR or GRE space")
    in_flair = File(exists=True, mandatory=True, desc="FLAIR of the session")
    in_magnitude = File(exists=True, mandatory=True, desc="gradient echoes, last axis echo")
    said = traits.List(traits.Str, desc="notes on how the files were chosen")
    method = traits.Str(parameter=True, desc="split or components")


class _FindLesionsOutputSpec(QSMOutputSpec):
    out_instances = File(desc="lesions 1, 2 … on the grid of the magnitude")
    out_flair = File(desc="FLAIR on that grid")


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
            record = {"notes": self._said(), "warnings": [f"{LEFT_OUT}{exc}"]}
        return {
            "out_instances": save(cwd / "instances.nii", instances, magnitude),
            "out_flair": save(cwd / "flair.nii", flair, magnitude),
            "record": record,
        }

    def _said(self) -> list[str]:
        return list(self.inputs.said) if isdefined(self.inputs.said) else []

    def _find(self, magnitude: Volume) -> tuple[Any, Any, dict[str, Any]]:

        from qsm_nipype.core.lesions import find_instances
        from qsm_nipype.core.registration import resample
        from qsm_nipype.interfaces.registration import register

        flair = load_one(self.inputs.in_flair)
        mask, read = read_lesions(self.inputs.in_lesions)
        space = lesion_space(mask, flair, magnitude)
        found = register(magnitude, flair, threads=self.inputs.num_threads)
        onto = magnitude.data.shape[:3], magnitude.affine
        moved = resample(flair.data, flair.affine, *onto, found.matrix)
        labels = mask.data
        if space == "FLAIR":
            labels = resample(labels, mask.affine, *onto, found.matrix, labels=True)
        binary = labels > 0 if labels.max(initial=0) <= 1 else labels
        instances = find_instances(binary, magnitude.voxel_size, **self.parameters())
        lost = int(mask.data.max(initial=0) > 0 and instances.max(initial=0) == 0)
        record = {
            "parameters": {"space": space, **self.parameters()},
            "similarity": round(found.similarity, 4),
            "rotation": round(found.rotation, 2),
            "notes": [*self._said(), *([read] if read else [])],
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
    if same_grid(mask, flair):
        return "FLAIR"
    if same_grid(mask, magnitude):
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
    min_volume = traits.Float(mandatory=True, desc="smallest lesion classified (mm³)")


class _RimNetOutputSpec(QSMOutputSpec):
    out_table = File(exists=True, desc="one row for each lesion (TSV)")
    out_columns = File(exists=True, desc="what its columns mean (JSON)")


class QSMRimNet(QSMInterface):
    """Lesions → probability of a paramagnetic rim (see `qsm_nipype.models.rim_table`)."""

    input_spec = _RimNetInputSpec
    output_spec = _RimNetOutputSpec
    function = "qsm_nipype.models.rim_table:classify"

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.models.registry import read_weights
        from qsm_nipype.models.rim import load_network
        from qsm_nipype.models.rim_table import COLUMNS

        chi = self.inputs.in_chi if isinstance(self.inputs.in_chi, str) else self.inputs.in_chi[0]
        volume, mask = load(chi), load(self.inputs.in_mask)
        weights = self.inputs.weights if isdefined(self.inputs.weights) else None
        found = resolve(self.function)(
            volume.data,
            load(self.inputs.in_flair).data,
            mask.data > 0.5,
            load(self.inputs.in_instances, dtype="int32").data,
            volume.affine,
            load_network(read_weights("rim", weights)),
            device=self.device,
            min_volume=self.inputs.min_volume,
        )
        columns = {name: {"Description": text} for name, text in COLUMNS.items()}
        return {
            "out_table": write_text(cwd / "lesions.tsv", found.tsv()),
            "out_columns": write_json(cwd / "columns.json", columns),
            "record": {
                "notes": list(found.notes),
                "warnings": list(found.warnings),
                "numbers": found.numbers(),
            },
        }
