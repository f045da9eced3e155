"""Phase and magnitude as stored on disk → radians and magnitude, echoes last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, InputMultiObject, isdefined, traits

from qsm_nipype.errors import DataError
from qsm_nipype.interfaces.base import QSMInputSpec, QSMInterface, QSMOutputSpec
from qsm_nipype.methods import resolve
from qsm_nipype.volume import Volume, open_image, same_grid, save, stored_values


class _ReadPhaseInputSpec(QSMInputSpec):
    phase_files = InputMultiObject(File(exists=True), desc="phase, one per echo, or one 4-D")
    magnitude_files = InputMultiObject(File(exists=True), desc="magnitude of the same echoes")
    real_files = InputMultiObject(File(exists=True), desc="real parts instead of phase")
    imaginary_files = InputMultiObject(File(exists=True), desc="imaginary parts")
    metadata = traits.List(traits.Dict, desc="merged sidecar of each echo")
    coils = traits.Range(low=1, value=1, usedefault=True, desc="coils per echo, file by file")
    sign = traits.Enum(
        "auto", "positive", "negative", usedefault=True, desc="sign of the stored phase"
    )
    units = traits.Str(desc="unit of the stored phase, if it is to be stated (core.reading.units)")


class _ReadPhaseOutputSpec(QSMOutputSpec):
    out_phase = File(exists=True, desc="wrapped phase (rad), echoes last")
    out_magnitude = File(exists=True, desc="magnitude, echoes last")


class ReadPhase(QSMInterface):
    """Bring phase and magnitude of all echoes into one form, and write down what was decided.

    A phase difference with two magnitudes (Siemens field map) becomes one echo at TE₂ − TE₁.
    """

    input_spec = _ReadPhaseInputSpec
    output_spec = _ReadPhaseOutputSpec
    function = "qsm_nipype.core.reading.acquisition:read_acquisition"

    def _run(self, cwd: Path) -> dict[str, Any]:
        inputs = self.inputs
        metadata = list(inputs.metadata) if isdefined(inputs.metadata) else []
        parts = {
            name: read_stored(getattr(inputs, f"{name}_files"), metadata)
            for name in ("phase", "magnitude", "real", "imaginary")
            if isdefined(getattr(inputs, f"{name}_files"))
        }
        like = _one_grid([image for images, _ in parts.values() for image in images])
        result = resolve(self.function)(
            {name: echoes for name, (_, echoes) in parts.items()},
            like.voxel_size,
            like.b0_dir,
            coils=inputs.coils,
            sign=inputs.sign,
            units=inputs.units if isdefined(inputs.units) and inputs.units else None,
        )
        return {
            "out_phase": save(cwd / "phase.nii", result.phase, like),
            "out_magnitude": save(cwd / "magnitude.nii", result.magnitude, like),
            "record": result.record,
        }


def read_stored(
    files: Sequence[str], metadata: Sequence[dict[str, Any]]
) -> tuple[list[Volume], list[Any]]:
    """Images without their slope applied, split into echoes. Raises DataError.

    Returns one `Volume` per file (geometry) and one `StoredEcho` per volume.
    """
    from qsm_nipype.core.reading.stored import StoredEcho

    images: list[Volume] = []
    echoes: list[StoredEcho] = []
    for path in files:
        image = open_image(path)
        proxy = image.dataobj
        slope = float(getattr(proxy, "slope", 1.0))
        intercept = float(getattr(proxy, "inter", 0.0))
        raw = stored_values(proxy, path)
        raw = raw.reshape((*raw.shape[:3], *(n for n in raw.shape[3:] if n > 1)))
        images.append(Volume(raw, np.asarray(image.affine, dtype=float), str(path)))
        volumes = [raw[..., e] for e in range(raw.shape[3])] if raw.ndim == 4 else [raw]
        for number, volume in enumerate(volumes, start=1):
            name = str(path) if len(volumes) == 1 else f"{path} (volume {number})"
            place = 0 if len(metadata) == 1 else len(echoes)  # one sidecar for all echoes of 4-D
            sidecar = metadata[place] if place < len(metadata) else {}
            echoes.append(StoredEcho(name, volume, slope, intercept, sidecar))
    return images, echoes


def _one_grid(images: Sequence[Volume]) -> Volume:
    """The common geometry. Raises DataError where an image lies elsewhere."""
    if not images:
        raise DataError("no phase was given; name phase files, or real and imaginary files")
    first = images[0]
    for image in images:
        if image.data.ndim not in (3, 4):
            raise DataError(
                f"{image.path}: shape {image.data.shape} is not a 3-D volume; "
                "QSM needs the whole 3-D acquisition"
            )
        if not same_grid(first, image):
            raise DataError(
                f"{image.path}: shape or affine differs from {first.path}; "
                "give images of one acquisition"
            )
    return first
