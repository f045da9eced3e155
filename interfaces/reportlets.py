"""Interfaces that draw the report: maps → pictures, records → the subject's page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterface, File, TraitedSpec, isdefined, traits

from qsm_nipype import __version__
from qsm_nipype.interfaces.base import QSMInputSpec


class _PictureOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the picture (PNG)")


class _Reportlet(BaseInterface):
    """Like QSMInterface, without torch: a picture must not cost the import."""

    def _run_interface(self, runtime: Any) -> Any:
        self._results = self._run(Path(runtime.cwd))
        return runtime

    def _run(self, cwd: Path) -> dict[str, Any]:
        raise TypeError(f"{type(self).__name__} does not say what it runs")

    def _list_outputs(self) -> dict[str, Any]:
        return self._results


class _MapFigureInputSpec(QSMInputSpec):
    in_file = File(exists=True, mandatory=True, desc="map to draw, or labels over in_background")
    in_mask = File(exists=True, desc="mask: slices are chosen inside it, its outline is drawn")
    in_background = File(exists=True, desc="map under the labels of in_file")
    style = traits.Str("other", usedefault=True, desc="kind of map (qsm_nipype.report.styles)")
    layout = traits.Enum("planes", "mosaic", usedefault=True, desc="three planes, or axial slices")
    window = traits.Tuple(traits.Float, traits.Float, desc="window instead of the style's")
    cmap = traits.Str(desc="matplotlib colours instead of the style's")
    unit = traits.Str(desc="unit instead of the style's")
    title = traits.Str(desc="title; the style's label if unset")


class MapFigure(_Reportlet):
    """One map as slices, with the fixed window of its kind."""

    input_spec = _MapFigureInputSpec
    output_spec = _PictureOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        from dataclasses import replace

        from qsm_nipype.report.figures import mosaic, three_planes
        from qsm_nipype.report.styles import style_of

        own = {k: getattr(self.inputs, k) for k in ("window", "cmap", "unit")}
        style = replace(
            style_of(self.inputs.style), **{k: v for k, v in own.items() if isdefined(v)}
        )
        draw = mosaic if self.inputs.layout == "mosaic" else three_planes
        data, affine = _volume(self.inputs.in_file)
        figure = draw(
            data,
            affine,
            mask=_array(self.inputs.in_mask),
            background=_array(self.inputs.in_background),
            style=style,
            title=self.inputs.title if isdefined(self.inputs.title) else style.label,
        )
        return {"out_file": _write_png(figure, cwd / f"{self.inputs.style}.png")}


class _EchoFigureInputSpec(QSMInputSpec):
    in_wrapped = File(exists=True, mandatory=True, desc="measured phase (X, Y, Z, echoes), rad")
    in_unwrapped = File(exists=True, desc="unwrapped phase (X, Y, Z, echoes), rad")
    in_mask = File(exists=True, desc="mask of the unwrapped phase")
    echo_times = traits.List(traits.Float, desc="echo times in s")
    title = traits.Str("Phase of the echoes", usedefault=True, desc="title")


class EchoFigure(_Reportlet):
    """The phase of every echo, measured above and unwrapped below."""

    input_spec = _EchoFigureInputSpec
    output_spec = _PictureOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.report.figures import echoes

        wrapped, affine = _volume(self.inputs.in_wrapped)
        times = self.inputs.echo_times
        figure = echoes(
            wrapped,
            affine,
            unwrapped=_array(self.inputs.in_unwrapped),
            mask=_array(self.inputs.in_mask),
            echo_times=times if isdefined(times) else (),
            title=self.inputs.title,
        )
        return {"out_file": _write_png(figure, cwd / "echoes.png")}


class _ViewerSpritesInputSpec(QSMInputSpec):
    in_files = traits.List(File(exists=True), mandatory=True, desc="maps on one grid")
    styles = traits.List(traits.Str, mandatory=True, desc="kind of each map, as in MapFigure")
    in_mask = File(exists=True, mandatory=True, desc="mask")
    budget = traits.Int(2_000_000, usedefault=True, desc="most bytes of all sheets together")


class _ViewerSpritesOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="manifest (JSON); its `folder` holds the sheets")
    viewer = traits.Dict(desc="the manifest, for the key `viewer` of the acquisition's record")


class ViewerSprites(_Reportlet):
    """The slices of several maps for the viewer of the page."""

    input_spec = _ViewerSpritesInputSpec
    output_spec = _ViewerSpritesOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.report.sprites import Layer, render_viewer
        from qsm_nipype.report.styles import style_of

        mask, affine = _volume(self.inputs.in_mask)
        maps = zip(self.inputs.in_files, self.inputs.styles, strict=True)
        layers = [Layer(style, _volume(file)[0], style_of(style)) for file, style in maps]
        viewer = render_viewer(layers, affine, mask, budget=self.inputs.budget)
        folder = cwd / "viewer"
        folder.mkdir(exist_ok=True)
        for name, sheet in viewer.sheets.items():
            (folder / name).write_bytes(sheet)
        manifest = {**viewer.manifest, "folder": str(folder)}
        out_file = cwd / "viewer.json"
        out_file.write_text(json.dumps(manifest), encoding="utf-8")
        return {"out_file": str(out_file), "viewer": manifest}


class _SubjectReportInputSpec(QSMInputSpec):
    in_records = traits.List(
        traits.Either(File(exists=True), traits.Dict),
        mandatory=True,
        desc="one record per acquisition (qsm_nipype.report.records): JSON files or dictionaries",
    )
    figures = traits.List(
        traits.Dict,
        desc="figures {name, title, caption, path, record} added to the record of that index "
        "(default 0)",
    )
    out_dir = traits.Directory(mandatory=True, desc="folder of the derivatives dataset")
    subject = traits.Str(mandatory=True, desc="the subject's label")


class _SubjectReportOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the page (HTML)")


class SubjectReport(_Reportlet):
    """The page of one subject, with its pictures beside it in the derivatives dataset."""

    input_spec = _SubjectReportInputSpec
    output_spec = _SubjectReportOutputSpec

    def _run(self, cwd: Path) -> dict[str, Any]:
        from qsm_nipype.report.publish import publish_subject
        from qsm_nipype.report.records import with_figures

        figures = self.inputs.figures if isdefined(self.inputs.figures) else []
        page = publish_subject(
            with_figures(self.inputs.in_records, figures),
            self.inputs.out_dir,
            subject=self.inputs.subject,
            version=__version__,
        )
        return {"out_file": str(page)}


def _volume(path: str) -> tuple[Any, Any]:
    """Data and affine of an image."""
    from qsm_nipype.interfaces.volume import load

    volume = load(path)
    return volume.data, volume.affine


def _array(path: Any) -> Any:
    return _volume(path)[0] if isdefined(path) else None


def _write_png(figure: Any, path: Path) -> str:
    from qsm_nipype.report.figures import png

    path.write_bytes(png(figure))
    return str(path)
