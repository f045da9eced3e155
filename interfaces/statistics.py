"""Maps in regions: one tidy table per acquisition with its data dictionary."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nipype.interfaces.base import DynamicTraitedSpec, File, isdefined, traits

from qsm_nipype.core.deep_grey import NAMES, PALLIDUM_NAMES, pallidum
from qsm_nipype.dataset.own_arrays import read_labels
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.interfaces.segmentation import DENTATE
from qsm_nipype.system.files import write_json, write_text
from qsm_nipype.volume import load

#: Column → its entry in the data dictionary.
COLUMNS: dict[str, dict[str, str]] = {
    "participant_id": {"Description": "participant"},
    "acquisition": {"Description": "entities of the acquisition"},
    "segmentation": {"Description": "which segmentation; 'brain' is all voxels of the map"},
    "index": {"Description": "label of the region in its segmentation; 0: the whole brain"},
    "region": {"Description": "name of the region"},
    "map": {"Description": "BIDS suffix of the map; of further inversions with their name"},
    "unit": {"Description": "unit of the map, and of every statistic that has no other"},
    "voxels": {"Description": "voxels of the region in which the map is known"},
    "volume": {"Description": "volume of the whole region", "Units": "mm3"},
    "coverage": {"Description": "share of the region in which the map is known, 0 to 1"},
    "mean": {"Description": "mean; of susceptibility relative to the map's reference"},
    "sd": {"Description": "standard deviation over the voxels (n - 1)"},
    "median": {"Description": "median"},
    "p5": {"Description": "5th percentile"},
    "p25": {"Description": "25th percentile"},
    "p75": {"Description": "75th percentile"},
    "p95": {"Description": "95th percentile"},
    "minimum": {"Description": "smallest value"},
    "maximum": {"Description": "largest value"},
    "difference": {"Description": "mean minus that of the same region of the other side"},
    "asymmetry": {
        "Description": "volume minus that of the other side, over the mean of both",
        "Units": "%",
    },
}
#: Names of what pipelines derived from FreeSurfer label without a look-up table.
ASEG = {
    **{2: "Left-Cerebral-White-Matter", 3: "Left-Cerebral-Cortex", 4: "Left-Lateral-Ventricle"},
    **{7: "Left-Cerebellum-White-Matter", 8: "Left-Cerebellum-Cortex", 10: "Left-Thalamus"},
    **{11: "Left-Caudate", 12: "Left-Putamen", 13: "Left-Pallidum", 14: "3rd-Ventricle"},
    **{15: "4th-Ventricle", 16: "Brain-Stem", 17: "Left-Hippocampus", 18: "Left-Amygdala"},
    **{24: "CSF", 26: "Left-Accumbens-area", 28: "Left-VentralDC", 31: "Left-choroid-plexus"},
    **{41: "Right-Cerebral-White-Matter", 42: "Right-Cerebral-Cortex"},
    **{43: "Right-Lateral-Ventricle", 46: "Right-Cerebellum-White-Matter"},
    **{47: "Right-Cerebellum-Cortex", 49: "Right-Thalamus", 50: "Right-Caudate"},
    **{51: "Right-Putamen", 52: "Right-Pallidum", 53: "Right-Hippocampus"},
    **{54: "Right-Amygdala", 58: "Right-Accumbens-area", 60: "Right-VentralDC"},
    **{63: "Right-choroid-plexus", 77: "WM-hypointensities", 85: "Optic-Chiasm"},
}


class _RegionStatisticsInputSpec(DynamicTraitedSpec, QSMInputSpec):
    entities = traits.Dict(mandatory=True, desc="entities of the acquisition")
    segmentations = traits.List(traits.Str, desc="their names, one for each of in_labels")
    tables = traits.List(traits.Str, desc="look-up table (TSV) of each segmentation; '' for none")
    in_labels = traits.List(File(exists=True), desc="segmentations on the maps' grid")
    inversions = traits.List(traits.Str, desc="names of the inversions behind in_chi")
    in_chi = traits.List(File(exists=True), mandatory=True, desc="susceptibility (ppm)")
    in_r2star = File(exists=True, desc="(1/s)")
    in_t2star = File(exists=True, desc="(s)")
    in_paramagnetic = File(exists=True, desc="χ⁺ (ppm)")
    in_diamagnetic = File(exists=True, desc="χ⁻ (ppm)")
    in_mask_chi = File(exists=True, mandatory=True, desc="voxels with susceptibility")
    in_mask = File(exists=True, mandatory=True, desc="brain, where R2* and T2* are known")


class _RegionStatisticsOutputSpec(QSMOutputSpec):
    out_table = File(exists=True, desc="TSV, a row for each region and map")
    out_dictionary = File(exists=True, desc="JSON, what the columns mean")


class RegionStatistics(QSMInterface):
    """Segmentations × maps → one table (see `qsm_nipype.core.roi`)."""

    input_spec = _RegionStatisticsInputSpec
    output_spec = _RegionStatisticsOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        import numpy as np

        from qsm_nipype.core.roi import table
        from qsm_nipype.dataset.names import stem

        chi = [load(path) for path in self.inputs.in_chi]
        known, brain = load(self.inputs.in_mask_chi), load(self.inputs.in_mask)
        maps = {
            name: (volume.data, known.data > 0.5, "ppm")
            for name, volume in zip(self._chi_names(len(chi)), chi, strict=True)
        }
        for source in ("paramagnetic", "diamagnetic"):
            path = getattr(self.inputs, f"in_{source}")
            if isdefined(path):
                maps[f"Chimap {source}"] = (load(path).data, known.data > 0.5, "ppm")
        for port, name, unit in (("r2star", "R2starmap", "1/s"), ("t2star", "T2starmap", "s")):
            path = getattr(self.inputs, f"in_{port}")
            if isdefined(path):
                values = load(path).data
                maps[name] = (values, (brain.data > 0.5) & (values > 0), unit)
        rows = table(self._segmentations(), maps, float(np.prod(chi[0].voxel_size)))
        head = {
            "participant_id": f"sub-{self.inputs.entities['sub']}",
            "acquisition": stem(self.inputs.entities),
        }
        return {
            "out_table": write_text(cwd / "regions.tsv", to_tsv([head | row for row in rows])),
            "out_dictionary": write_json(cwd / "columns.json", COLUMNS),
        }

    def _chi_names(self, count: int) -> list[str]:
        given = self.inputs.inversions if isdefined(self.inputs.inversions) else []
        return ["Chimap", *(f"Chimap {name}" for name in given[1:])][:count]

    def _segmentations(self) -> dict[str, tuple[Any, Mapping[int, str]]]:
        if not isdefined(self.inputs.in_labels):
            return {}
        names = self.inputs.segmentations
        tables = self.inputs.tables if isdefined(self.inputs.tables) else [""] * len(names)
        found: dict[str, tuple[Any, Mapping[int, str]]] = {}
        for name, look_up, path in zip(names, tables, self.inputs.in_labels, strict=True):
            labels = read_labels(path).data
            ours = {"dentate": DENTATE, "deepgrey": NAMES}.get(name)
            found[name] = (labels, names_of(look_up, labels) if ours is None else ours)
            if name == "deepgrey":
                found["pallidum"] = (pallidum(labels), PALLIDUM_NAMES)
        return found


def names_of(look_up: str, labels: Any) -> dict[int, str]:
    """Index → name from a BIDS look-up table (`index`, `name`), else FreeSurfer's for its labels.

    Raises DataError for a table without those columns.
    """
    import numpy as np

    from qsm_nipype.errors import DataError

    if look_up:
        text = Path(look_up).read_text(encoding="utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
        try:
            return {int(float(row["index"])): row["name"] for row in rows}
        except (KeyError, TypeError, ValueError) as exc:
            raise DataError(
                f"{look_up}: not a look-up table; it needs the columns index and name"
            ) from exc
    present = set(np.unique(labels).tolist()) - {0}
    subcortical = {11, 12, 13, 50, 51, 52}  # caudate, putamen, pallidum of both sides
    return {i: ASEG[i] for i in present & set(ASEG)} if subcortical <= present else {}


def to_tsv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table; what is not known is n/a."""
    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join(_cell(row[name]) for name in COLUMNS) for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else "n/a"
    return str(value)
