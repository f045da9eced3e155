"""Interfaces that draw the report: maps → pictures, records → the subject's page.

All pictures of an acquisition are one node: starting a process costs more than a picture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces.base import DynamicTraitedSpec, File, isdefined, traits

from qsm_nipype import __version__
from qsm_nipype.dataset.names import parse_name, stem
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec, files_of
from qsm_nipype.system import manifest
from qsm_nipype.system.files import write_bytes, write_text
from qsm_nipype.volume import load

if TYPE_CHECKING:
    from qsm_nipype.report.gallery import Picture
    from qsm_nipype.report.lesion_page import LesionPage
    from qsm_nipype.report.volumes import Viewer

#: Maps of an acquisition that may be drawn: field of the report's workflow → what it is.
MAPS = {
    "magnitude": "echoes last",
    "raw_phase": "wrapped phase, echoes last (rad)",
    "unwrapped": "unwrapped phase, echoes last (rad)",
    "mask": "brain",
    "mask_chi": "voxels with susceptibility",
    "residual": "of the field fit (rad)",
    "total_field": "(ppm)",
    "local_field": "(ppm)",
    "agreement": "SD over the inversions (ppm)",
    "r2star": "(1/s)",
    "r2prime": "(1/s)",
    "paramagnetic": "χ⁺ (ppm)",
    "diamagnetic": "χ⁻ (ppm)",
    "veins": "mask",
    "bleeds": "candidates 1, 2 …",
    "dentate": "dentate nuclei, 1 left, 2 right",
    "deepgrey": "deep grey nuclei (core.deep_grey.NAMES)",
    "dentate_box": "box that was searched for them",
    "lesions": "lesions 1, 2 …",
    "flair": "FLAIR on the same grid",
}


class _PicturesInputSpec(DynamicTraitedSpec, QSMInputSpec):
    out_dir = traits.Str(mandatory=True, desc="the derivatives dataset")
    label = traits.Str(mandatory=True, desc="of the acquisition")
    in_record = File(exists=True, mandatory=True, desc="record without pictures (JSON)")
    written = traits.List(traits.Str, desc="images and tables already in the dataset")
    in_chi = traits.List(File(exists=True), mandatory=True, desc="susceptibility, by inversion")
    in_lesions_table = File(exists=True, desc="one row for each lesion (TSV)")
    in_swi = traits.List(File(exists=True), desc="susceptibility-weighted images, by method")
    in_minip = traits.List(File(exists=True), desc="their minimum intensity projections")


class _PicturesOutputSpec(QSMOutputSpec):
    out_acquisition = File(exists=True, desc="record with pictures (JSON), inside the dataset")


class AcquisitionPictures(QSMInterface):
    """Draw an acquisition's maps into the dataset and complete its record there.

    One port `in_MAP` for each of `MAPS`. Pictures that an earlier run drew and this one does not
    are removed.
    """

    input_spec = _PicturesInputSpec
    output_spec = _PicturesOutputSpec

    def __init__(self, **inputs: Any) -> None:
        super().__init__(**inputs)
        for name, text in MAPS.items():
            self.inputs.add_trait(f"in_{name}", File(exists=True, desc=text))
        self.inputs.trait_set(trait_change_notify=False)

    def targets(self) -> list[Path]:
        """The file that stands for everything this node writes."""
        return [Path(self.inputs.out_dir) / "logs" / "records" / f"{self.inputs.label}.json"]

    def damaged(self) -> dict[str, str]:
        """What is not as this node left it, by its path in the dataset: then it must run again."""
        root, (target,) = Path(self.inputs.out_dir), self.targets()
        found = {} if target.exists() else {str(target.relative_to(root)): "is missing"}
        return found | manifest.damage(self._memory(), root)

    def _memory(self) -> Path:
        folder = Path(self.inputs.out_dir, manifest.FOLDER, manifest.PICTURES)
        return folder / f"{self.inputs.label}.json"

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.report import gallery
        from qsm_nipype.report.lesion_page import draw_lesion_page
        from qsm_nipype.report.stored import place_of_thumbnail
        from qsm_nipype.report.thumbnail import draw_thumbnail

        record = json.loads(Path(self.inputs.in_record).read_text(encoding="utf-8"))
        labels = gallery.chi_labels(record.get("steps", []))
        weighted = [s["method"] for s in record.get("steps", []) if s["step"] == "swi"]
        maps, affine = self._maps(labels, weighted)
        table = self.inputs.in_lesions_table
        rows = Path(table).read_text(encoding="utf-8") if isdefined(table) else None
        echo_times = record["acquisition"]["echo_times"]
        drawn = gallery.draw_acquisition(maps, affine, labels, echo_times, rows)
        viewer = gallery.viewer(maps, affine, labels)
        root, own = Path(self.inputs.out_dir), record["entities"]
        folder, name = root / f"sub-{own['sub']}" / "figures", stem(own)
        page = rows and draw_lesion_page(
            maps, affine, rows, own, folder=f"{name}_lesions", version=__version__
        )
        more = {"rims": _write_lesions(page or None, root, folder / f"{name}_lesions")}
        record["figures"] = _write_figures(drawn, root, folder, name, more)
        record["viewer"] = _write_volumes(viewer, root, folder / f"{name}_viewer")
        thumbnail = draw_thumbnail(maps["chi"], affine, maps.get("mask_chi", maps["mask"]))
        write_bytes(root / place_of_thumbnail(own), thumbnail)
        written = self.inputs.written if isdefined(self.inputs.written) else []
        record["maps"] = _named([Path(path) for path in written], root)
        (target,) = self.targets()
        write_text(target, json.dumps(record, indent=1, default=float))
        files = [root / figure["path"] for figure in record["figures"]]
        files += [f for f in (folder / f"{name}_viewer").rglob("*") if f.is_file()]
        manifest.remember(self._memory(), root, [*files, root / place_of_thumbnail(own), target])
        return {"out_acquisition": str(target)}

    def _maps(
        self, chis: Mapping[str, str], weighted: Sequence[str]
    ) -> tuple[dict[str, Any], Any]:
        """What is to be drawn by name, the first echo of the magnitude; and the affine."""
        volumes = {name: load(path) for name, path in zip(chis, self.inputs.in_chi, strict=True)}
        for kind in ("swi", "minip") if weighted else ():
            files = files_of(getattr(self.inputs, f"in_{kind}"))
            volumes |= {f"{kind}_{m}": load(f) for m, f in zip(weighted, files, strict=True)}
        for name in MAPS:
            for path in files_of(getattr(self.inputs, f"in_{name}")):
                volumes[name] = load(path)
        maps = {name: volume.data for name, volume in volumes.items()}
        if "magnitude" in maps and maps["magnitude"].ndim == 4:
            maps["magnitude"] = maps["magnitude"][..., 0]
        return maps, next(iter(volumes.values())).affine


class _SubjectReportInputSpec(QSMInputSpec):
    in_records = traits.List(
        File(exists=True), mandatory=True, desc="record of each acquisition (qsm_nipype.record)"
    )
    out_dir = traits.Directory(mandatory=True, desc="folder of the derivatives dataset")
    subject = traits.Str(mandatory=True, desc="the subject's label")


class _SubjectReportOutputSpec(QSMOutputSpec):
    out_file = File(exists=True, desc="the page (HTML)")


class SubjectReport(QSMInterface):
    """The page of one subject, with its pictures beside it in the derivatives dataset."""

    input_spec = _SubjectReportInputSpec
    output_spec = _SubjectReportOutputSpec

    def damaged(self) -> dict[str, str]:
        """The page, where it is missing or cut short: then it must be written again."""
        fault = manifest.damaged_page(Path(self.inputs.out_dir), self.inputs.subject)
        return {f"sub-{self.inputs.subject}.html": fault} if fault else {}

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.report.publish import publish_subject

        page = publish_subject(
            self.inputs.in_records,
            self.inputs.out_dir,
            subject=self.inputs.subject,
            version=__version__,
        )
        return {"out_file": str(page)}


def _write_figures(
    drawn: Sequence[Picture], root: Path, folder: Path, name: str, pages: Mapping[str, str]
) -> list[dict[str, str]]:
    """Write the pictures of acquisition `name`, remove those of before; entries of its record.

    `pages` are pages that show more, by picture.
    """
    paths = [folder / f"{name}_desc-{p.name.replace('_', '')}_figure.png" for p in drawn]
    for path, picture in zip(paths, drawn, strict=True):
        write_bytes(path, picture.png)
    for old in set(folder.glob(f"{name}_desc-*_figure.png")) - set(paths):
        old.unlink()
    return [
        {
            "name": picture.name,
            "title": picture.title,
            "caption": picture.caption,
            "alt": picture.alt,
            "path": path.relative_to(root).as_posix(),
            "page": pages.get(picture.name, ""),
        }
        for path, picture in zip(paths, drawn, strict=True)
    ]


def _write_lesions(page: LesionPage | None, root: Path, folder: Path) -> str:
    """Write the page of the lesions beside the `folder` of its pictures, remove those of before.

    Its path relative to `root`; empty, and nothing is left, where there is none.
    """
    place = folder.with_name(f"{folder.name}.html")
    pictures = page.pictures if page else {}
    for file, content in pictures.items():
        write_bytes(folder / file, content)
    for old in set(folder.glob("*")) - {folder / file for file in pictures}:
        old.unlink()
    if page is None:
        place.unlink(missing_ok=True)
        return ""
    write_text(place, page.html)
    return place.relative_to(root).as_posix()


def _write_volumes(viewer: Viewer, root: Path, folder: Path) -> dict[str, Any]:
    """Write the volumes of the viewer, remove those of before; its entry in the record."""
    for file, content in viewer.files.items():
        write_bytes(folder / file, content)
    for old in set(folder.glob("*")) - {folder / file for file in viewer.files}:
        old.unlink()
    return {**viewer.manifest, "folder": folder.relative_to(root).as_posix()}


def _named(written: list[Path], root: Path) -> dict[str, str]:
    """Paths relative to `root` by what their names add to the acquisition's: `desc-brain_mask`."""
    found = {}
    for path in written:
        known = stem({k: v for k, v in parse_name(path)[0].items() if k not in ("part", "desc")})
        name = path.name.split(".")[0].removeprefix(f"{known}_")
        found[name] = path.relative_to(root).as_posix()
    return found
