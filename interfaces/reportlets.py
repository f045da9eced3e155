"""Interfaces that draw the report: maps → pictures, records → the subject's page.

All pictures of an acquisition are one node: starting a process costs more than a picture.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, TraitedSpec, isdefined, traits

from qsm_nipype import __version__
from qsm_nipype.dataset.names import parse_name, stem
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface
from qsm_nipype.system.files import write_bytes, write_text
from qsm_nipype.volume import Volume, load

_MAPS = ("mask", "mask_chi", "residual", "total_field", "local_field", "agreement", "r2star")


class _PicturesInputSpec(QSMInputSpec):
    out_dir = traits.Str(mandatory=True, desc="the derivatives dataset")
    in_record = File(exists=True, mandatory=True, desc="record without pictures (JSON)")
    written = traits.List(traits.Str, desc="images and tables already in the dataset")
    in_magnitude = File(exists=True, mandatory=True, desc="echoes last")
    in_raw_phase = File(exists=True, mandatory=True, desc="wrapped phase, echoes last (rad)")
    in_unwrapped = File(exists=True, mandatory=True, desc="unwrapped phase, echoes last (rad)")
    in_chi = traits.List(File(exists=True), mandatory=True, desc="susceptibility, by inversion")
    in_mask = File(exists=True, mandatory=True, desc="brain")
    in_mask_chi = File(exists=True, mandatory=True, desc="voxels with susceptibility")
    in_residual = File(exists=True, desc="of the field fit (rad)")
    in_total_field = File(exists=True, desc="(ppm)")
    in_local_field = File(exists=True, desc="(ppm)")
    in_agreement = File(exists=True, desc="SD over the inversions (ppm)")
    in_r2star = File(exists=True, desc="(1/s)")
    in_dentate = File(exists=True, desc="dentate nuclei, 1 left, 2 right")
    in_dentate_box = File(exists=True, desc="box that was searched for them")
    in_figures = traits.List(traits.Dict, desc="further pictures already in the dataset")
    label = traits.Str(mandatory=True, desc="of the acquisition")


class _PicturesOutputSpec(TraitedSpec):
    out_record = File(desc="record with pictures (JSON), inside the dataset")


class AcquisitionPictures(QSMInterface):
    """Draw an acquisition's maps into the dataset and complete its record there."""

    input_spec = _PicturesInputSpec
    output_spec = _PicturesOutputSpec

    def targets(self) -> list[Path]:
        """The file that stands for everything this node writes."""
        return [Path(self.inputs.out_dir) / "logs" / "records" / f"{self.inputs.label}.json"]

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.report import gallery

        record = json.loads(Path(self.inputs.in_record).read_text(encoding="utf-8"))
        magnitude = load(self.inputs.in_magnitude)
        labels = gallery.chi_labels(record.get("steps", []))
        chis = dict(zip(labels, self.inputs.in_chi, strict=True))
        maps = {name: load(path).data for name, path in chis.items()}
        maps["magnitude"] = _first(magnitude)
        for name in _MAPS:
            path = getattr(self.inputs, f"in_{name}")
            if isdefined(path):
                maps[name] = load(path).data
        root = Path(self.inputs.out_dir)
        folder = root / f"sub-{record['entities']['sub']}" / "figures"
        phase = gallery.draw_phase(
            load(self.inputs.in_raw_phase).data,
            load(self.inputs.in_unwrapped).data,
            maps["mask"],
            magnitude.affine,
            record["acquisition"]["echo_times"],
        )
        drawn = [phase, *gallery.draw(maps, magnitude.affine, labels)]
        if isdefined(self.inputs.in_dentate):
            nuclei, box = load(self.inputs.in_dentate), load(self.inputs.in_dentate_box)
            drawn.append(
                gallery.draw_dentate(nuclei.data, box.data, maps["chi"], magnitude.affine)
            )
        pictures = []
        for name, title, caption, png in drawn:
            path = folder / f"{stem(record['entities'])}_desc-{name.replace('_', '')}_figure.png"
            write_bytes(path, png)
            pictures.append(
                {
                    "name": name,
                    "title": title,
                    "caption": caption,
                    "path": path.relative_to(root).as_posix(),
                }
            )
        sheets = folder / f"{stem(record['entities'])}_viewer"
        viewer = gallery.viewer(maps, magnitude.affine, labels)
        for name, content in viewer.sheets.items():
            write_bytes(sheets / name, content)
        further = self.inputs.in_figures if isdefined(self.inputs.in_figures) else []
        record["figures"] = [*pictures, *further]
        written = self.inputs.written if isdefined(self.inputs.written) else []
        record["maps"] = _named([Path(path) for path in written], root)
        record["viewer"] = {**viewer.manifest, "folder": sheets.relative_to(root).as_posix()}
        (target,) = self.targets()
        write_text(target, json.dumps(record, indent=1, default=float))
        return {"out_record": str(target)}


class _SubjectReportInputSpec(QSMInputSpec):
    in_records = traits.List(
        traits.Either(File(exists=True), traits.Dict),
        mandatory=True,
        desc="one record per acquisition (qsm_nipype.record): JSON files or dictionaries",
    )
    out_dir = traits.Directory(mandatory=True, desc="folder of the derivatives dataset")
    subject = traits.Str(mandatory=True, desc="the subject's label")


class _SubjectReportOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the page (HTML)")


class SubjectReport(QSMInterface):
    """The page of one subject, with its pictures beside it in the derivatives dataset."""

    input_spec = _SubjectReportInputSpec
    output_spec = _SubjectReportOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.report.publish import publish_subject

        page = publish_subject(
            self.inputs.in_records,
            self.inputs.out_dir,
            subject=self.inputs.subject,
            version=__version__,
        )
        return {"out_file": str(page)}


def _named(written: list[Path], root: Path) -> dict[str, str]:
    """Paths relative to `root` by what their names add to the acquisition's: `desc-brain_mask`."""
    found = {}
    for path in written:
        known = stem({k: v for k, v in parse_name(path)[0].items() if k not in ("part", "desc")})
        name = path.name.split(".")[0].removeprefix(f"{known}_")
        found[name] = path.relative_to(root).as_posix()
    return found


def _first(magnitude: Volume) -> Any:
    return magnitude.data if magnitude.data.ndim == 3 else magnitude.data[..., 0]
