"""The deep grey nuclei on the susceptibility map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, Str, isdefined, traits

from qsm_nipype.core.deep_grey import NAMES
from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.methods import resolve
from qsm_nipype.volume import canonical, load, load_like, save


class _DeepGreyInputSpec(QSMInputSpec):
    in_file = traits.Either(
        File(exists=True),
        traits.List(File(exists=True)),
        mandatory=True,
        desc="susceptibility (ppm); of several, the first",
    )
    in_mask = File(exists=True, mandatory=True, desc="voxels with susceptibility")
    weights = Str(desc="nnU-Net v2 folder or zip; undefined: the shipped model")


class _DeepGreyOutputSpec(QSMOutputSpec):
    out_labels = File(exists=True, desc="numbers of core.deep_grey.NAMES")


class DeepGrey(QSMInterface):
    """Susceptibility → deep grey nuclei by two nnU-Nets (see `qsm_nipype.models.regions`)."""

    input_spec = _DeepGreyInputSpec
    output_spec = _DeepGreyOutputSpec
    function = "qsm_nipype.models.regions:segment"

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.models.regions import GAINS
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
                localiser=read_nnunet("regionsplace"),
                segmenter=read_nnunet("regions", own),
                device=self.device,
                **({} if own else {"gains": GAINS}),
            )
        except DataError as exc:
            raise DataError(f"{chi.path}: {exc}") from exc
        labels = back(found.labels)
        record = {
            "method": "deepgrey",
            "status": found.status,
            "warnings": list(found.warnings),
            "notes": list(found.notes),
            "nuclei": nuclei(labels, chi.data, mask.data > 0.5, chi.voxel_size),
        }
        return {"out_labels": save(cwd / "deepgrey.nii", labels, chi), "record": record}


def nuclei(
    labels: np.ndarray, chi: np.ndarray, known: np.ndarray, voxel_size: Any
) -> list[dict[str, Any]]:
    """Of each nucleus: index, name, volume (mm³), and mean, median, SD of χ (ppm)."""
    from qsm_nipype.core.roi import statistics

    volume = float(np.prod(voxel_size))
    return [
        {
            "index": index,
            "name": name,
            "volume": round(own.volume, 2),
            "mean": round(own.mean, 6),
            "median": round(own.median, 6),
            "sd": round(own.sd, 6) if np.isfinite(own.sd) else None,
        }
        for index, name, own in statistics(labels, NAMES, chi, known, volume)
        if own.voxels
    ]
