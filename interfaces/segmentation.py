"""Structures on the susceptibility map, and the user's own labels brought onto its grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, Str, isdefined, traits

from qsm_nipype.dataset.own_arrays import read_labels
from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.methods import resolve
from qsm_nipype.volume import canonical, load, load_like, load_one, same_grid, save

#: Index and name of the dentate nuclei, as in their look-up table.
DENTATE = {1: "left dentate nucleus", 2: "right dentate nucleus"}


class _DentateInputSpec(QSMInputSpec):
    in_file = traits.Either(
        File(exists=True),
        traits.List(File(exists=True)),
        mandatory=True,
        desc="susceptibility (ppm); of several, the first",
    )
    in_mask = File(exists=True, mandatory=True, desc="voxels with susceptibility")
    weights = Str(desc="nnU-Net v2 folder or zip; undefined: the shipped model")


class _DentateOutputSpec(QSMOutputSpec):
    out_labels = File(exists=True, desc="1 left, 2 right")
    out_cerebellum = File(exists=True, desc="mask")
    out_box = File(exists=True, desc="mask of the box that was searched")


class Dentate(QSMInterface):
    """Susceptibility → dentate nuclei by two nnU-Nets (see `qsm_nipype.models.dentate`)."""

    input_spec = _DentateInputSpec
    output_spec = _DentateOutputSpec
    function = "qsm_nipype.models.dentate:segment"

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.models.registry import read_nnunet

        path = self.inputs.in_file if isinstance(self.inputs.in_file, str) else None
        chi = load(path or self.inputs.in_file[0])
        mask = load_like(chi, self.inputs.in_mask)
        turned, back = canonical(chi)
        inside, _ = canonical(mask)
        own = self.inputs.weights if isdefined(self.inputs.weights) else None
        try:
            found = resolve(self.function)(
                turned.data,
                inside.data > 0.5,
                turned.voxel_size,
                localiser=read_nnunet("cerebellum"),
                segmenter=read_nnunet("dentate", own),
                device=self.device,
                mirrored=own is None,
            )
        except DataError as exc:
            raise DataError(f"{chi.path}: {exc}") from exc
        box = np.zeros(turned.data.shape, dtype=bool)
        if found.box is not None:
            box[tuple(slice(a, a + n) for a, n in zip(*found.box, strict=True))] = True
        labels, box = back(found.labels), back(box)
        record = {
            "method": "dentate",
            "status": found.status,
            "errors" if found.status == "reversed sign" else "warnings": list(found.notes),
            "box": _bounds(box),
            "numbers": dentate_numbers(labels, chi.data, mask.data > 0.5, chi.voxel_size),
        }
        return {
            "out_labels": save(cwd / "dentate.nii", labels, chi),
            "out_cerebellum": save(cwd / "cerebellum.nii", back(found.cerebellum), chi),
            "out_box": save(cwd / "box.nii", box, chi),
            "record": record,
        }


def _bounds(box: np.ndarray) -> dict[str, list[int]]:
    """First voxel and size of a box, in the image's own axes."""
    where = np.argwhere(box)
    if not len(where):
        return {}
    first = where.min(0)
    return {"first": first.tolist(), "size": (where.max(0) - first + 1).tolist()}


def dentate_numbers(
    labels: np.ndarray, chi: np.ndarray, known: np.ndarray, voxel_size: Any
) -> dict[str, dict[str, Any]]:
    """Volume (mm³) and mean susceptibility (ppm) of both sides, and their asymmetry."""
    from qsm_nipype.core.roi import sides, statistics

    volume = float(np.prod(voxel_size))
    found = {i: own for i, _, own in statistics(labels, DENTATE, chi, known, volume)}
    numbers = {}
    for index, side in ((1, "left"), (2, "right")):
        if found[index].voxels:
            words = f"of the {side} dentate nucleus"
            numbers[f"dentate_{side}_volume"] = _number(
                found[index].volume, "mm³", f"volume {words}"
            )
            numbers[f"dentate_{side}_chi"] = _number(
                found[index].mean, "ppm", f"mean susceptibility {words}"
            )
    if len(numbers) == 4:
        share = sides(found[1], found[2])["asymmetry"]
        numbers["dentate_asymmetry"] = _number(
            share, "%", "left minus right volume of the dentate nuclei over their mean"
        )
    return numbers


def _number(value: float, unit: str, description: str) -> dict[str, Any]:
    return {"value": float(value), "unit": unit, "description": description}


class _AlignLabelsInputSpec(QSMInputSpec):
    in_labels = File(exists=True, mandatory=True, desc="segmentation in any space of the head")
    in_anatomical = File(exists=True, desc="image in the labels' space, to register by")
    in_reference = File(exists=True, mandatory=True, desc="magnitude whose grid is wanted")


class _AlignLabelsOutputSpec(QSMOutputSpec):
    out_labels = File(exists=True, desc="on the magnitude's grid")


class AlignLabels(QSMInterface):
    """The user's labels on the acquisition's grid: as they are, or by rigid registration.

    Labels on the same grid are taken as they are. Otherwise `in_anatomical` is registered to the
    magnitude; without it the scanner coordinates of both are believed, with a warning.
    """

    input_spec = _AlignLabelsInputSpec
    output_spec = _AlignLabelsOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.core.registration import resample
        from qsm_nipype.interfaces.registration import register

        reference = load(self.inputs.in_reference)
        labels = read_labels(self.inputs.in_labels)
        record: dict[str, Any] = {"method": "none", "warnings": []}
        data = labels.data
        if not same_grid(labels, reference):
            matrix = None
            if isdefined(self.inputs.in_anatomical):
                moving = load_one(self.inputs.in_anatomical)
                found = register(reference, moving, threads=self.inputs.num_threads)
                matrix = found.matrix
                record |= {
                    "method": "rigid",
                    "matrix": found.matrix.round(6).tolist(),
                    "similarity": round(found.similarity, 4),
                    "similarity_before": round(found.before, 4),
                }
            else:
                record |= {"method": "scanner coordinates"}
                record["warnings"] = [
                    f"{Path(labels.path).name}: no T1w image to register by, so its scanner "
                    "coordinates were believed."
                ]
            shape = reference.data.shape[:3]
            data = resample(
                labels.data, labels.affine, shape, reference.affine, matrix, labels=True
            )
        if not data.any():
            raise DataError(
                f"{labels.path}: none of its regions lies in the acquisition's field of view; "
                "check the file, or leave it out"
            )
        return {
            "out_labels": save(cwd / "labels.nii", data, reference),
            "record": record,
        }
