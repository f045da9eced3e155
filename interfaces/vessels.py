"""Veins, and candidates for bleeds and calcifications, on a susceptibility map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, traits

from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.methods import resolve
from qsm_nipype.system.files import write_json, write_text
from qsm_nipype.volume import Volume, load, load_like, save

#: Column of the table of spots → its entry in the data dictionary.
COLUMNS: dict[str, dict[str, str]] = {
    "index": {"Description": "number of the spot in the image, the most compact first"},
    "kind": {"Description": "bleed: paramagnetic, iron; calcification: diamagnetic, calcium"},
    "volume": {"Description": "where χ is above 0.4 times its peak", "Units": "mm3"},
    "diameter": {"Description": "of the ball of the same volume", "Units": "mm"},
    "mean": {"Description": "mean susceptibility there", "Units": "ppm"},
    "peak": {"Description": "strongest susceptibility there", "Units": "ppm"},
    "compactness": {"Description": "curvature in the least curved direction", "Units": "ppm"},
    "x": {"Description": "place in the scanner, right positive", "Units": "mm"},
    "y": {"Description": "place in the scanner, front positive", "Units": "mm"},
    "z": {"Description": "place in the scanner, up positive", "Units": "mm"},
    "depth": {"Description": "below the surface of the mask", "Units": "mm"},
}


class _VesselsInputSpec(QSMInputSpec):
    in_chi = traits.Either(
        File(exists=True),
        traits.List(File(exists=True)),
        mandatory=True,
        desc="susceptibility (ppm); of several, the first",
    )
    in_mask = File(exists=True, mandatory=True, desc="voxels with susceptibility")


class _VesselsOutputSpec(QSMOutputSpec):
    out_file = File(exists=True, desc="mask or labels")
    out_table = File(desc="one row for each spot (TSV)")
    out_columns = File(desc="what its columns mean (JSON)")


class _Vessels(QSMInterface):
    output_spec = _VesselsOutputSpec
    function = ""

    def _found(self) -> tuple[Volume, Any]:
        path = self.inputs.in_chi
        chi = load(path if isinstance(path, str) else path[0])
        mask = load_like(chi, self.inputs.in_mask).mask()
        find = resolve(self.function)
        return chi, find(chi.tensor(), mask, chi.voxel_size, chi.b0_dir, **self.parameters())


class _VeinsInputSpec(_VesselsInputSpec):
    strong = traits.Float(parameter=True, desc="tubeness that makes a vein (ppm)")
    weak = traits.Float(parameter=True, desc="tubeness that goes on with one (ppm)")
    least_chi = traits.Float(parameter=True, desc="least χ of a voxel (ppm)")
    length = traits.Range(low=0.0, parameter=True, desc="from end to end at least (mm)")


class Veins(_Vessels):
    """Mask of the veins."""

    input_spec = _VeinsInputSpec
    function = "qsm_nipype.core.vessels.veins:veins"

    def _run(self, cwd: Path) -> dict[str, Any]:
        import math

        chi, found = self._found()
        volume = float(found.mask.sum()) * math.prod(chi.voxel_size) / 1000
        number = {"value": round(volume, 3), "unit": "cm³", "description": "volume of the veins"}
        return {
            "out_file": save(cwd / "veins.nii", found.mask, chi),
            "record": {"parameters": self.parameters(), "numbers": {"vein_volume": number}},
        }


class _BleedsInputSpec(_VesselsInputSpec):
    threshold = traits.Float(parameter=True, desc="least compactness (ppm)")
    least_chi = traits.Float(parameter=True, desc="least |χ| of a spot's peak (ppm)")
    least_volume = traits.Range(low=0.0, parameter=True, desc="of a spot (mm³)")
    margin = traits.Range(low=0.0, parameter=True, desc="left out below the surface (mm)")


class Bleeds(_Vessels):
    """Candidates for bleeds and calcifications, numbered, with a table."""

    input_spec = _BleedsInputSpec
    function = "qsm_nipype.core.vessels.bleeds:bleeds"

    def _run(self, cwd: Path) -> dict[str, Any]:
        chi, spots = self._found()
        lines = ["\t".join(COLUMNS)]
        for spot in spots.found:
            x, y, z = (chi.affine @ (*spot.center, 1))[:3]
            kind = "bleed" if spot.sign > 0 else "calcification"
            values = (spot.volume, spot.diameter, spot.mean, spot.peak, spot.blobness, x, y, z,
                      spot.depth)  # fmt: skip
            lines.append("\t".join([str(spot.number), kind, *(f"{v:.4g}" for v in values)]))
        counts = {
            f"{name}_candidates": {
                "value": sum(spot.sign == sign for spot in spots.found),
                "unit": "",
                "description": f"candidates for {text}",
            }
            for name, sign, text in (("bleed", 1, "bleeds"), ("calcium", -1, "calcifications"))
        }
        return {
            "out_file": save(cwd / "bleeds.nii", spots.labels, chi),
            "out_table": write_text(cwd / "bleeds.tsv", "\n".join(lines) + "\n"),
            "out_columns": write_json(cwd / "columns.json", COLUMNS),
            "record": {"parameters": self.parameters(), "numbers": counts},
        }
