"""Which converted images belong together: echoes, magnitude and phase of one acquisition."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import nibabel as nib
import numpy as np

from qsm_nipype.errors import DataError
from qsm_nipype.volume import same_space

#: How dcm2niix ends ImageType, and the value of BIDS' entity `part`.
PARTS = {"MAGNITUDE": "mag", "PHASE": "phase", "REAL": "real", "IMAGINARY": "imag"}
#: The image that goes with a phase or a real one.
PARTNER = {"phase": "mag", "real": "imag"}


@dataclass(frozen=True)
class Image:
    """One volume as dcm2niix wrote it; `echo_time` in s, `part` as in BIDS."""

    file: Path
    series: int
    description: str
    part: str
    echo_time: float
    shape: tuple[int, ...]
    affine: np.ndarray = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)

    @property
    def seconds(self) -> float:
        """Time of the day of the acquisition, in s; 0 where it is not stated."""
        found = re.match(r"(\d+):(\d+):([\d.]+)", str(self.metadata.get("AcquisitionTime", "")))
        hours, minutes, seconds = map(float, found.groups()) if found else (0.0, 0.0, 0.0)
        return 3600 * hours + 60 * minutes + seconds


@dataclass(frozen=True)
class Recording:
    """One acquisition; `images` maps the end of its BIDS names to an image."""

    folder: str
    description: str
    images: Mapping[str, Image]


def read_image(file: Path, series: int, description: str, metadata: Mapping[str, Any]) -> Image:
    """The image `file` that dcm2niix wrote with the sidecar `metadata`.

    Raises DataError for what is neither magnitude nor phase nor real nor imaginary part.
    """
    kind = [str(word).upper() for word in metadata.get("ImageType", [])]
    known = [PARTS[word] for word in kind if word in PARTS]
    if "FIELDMAPHZ" in kind:
        raise DataError(
            f"series {series}: a field in Hz from the scanner; phase of each echo is needed"
        )
    if "EchoTime" not in metadata:
        raise DataError(f"series {series}: the images tell no echo time")
    header = nib.load(file)
    return Image(
        file=file,
        series=series,
        description=description,
        part=known[-1] if known else "mag",
        echo_time=float(metadata["EchoTime"]),
        shape=tuple(header.shape),  # type: ignore[attr-defined]
        affine=np.asarray(header.affine),  # type: ignore[attr-defined]
        metadata=MappingProxyType(dict(metadata)),
    )


def find_recordings(images: Sequence[Image]) -> tuple[list[Recording], list[str]]:
    """The acquisitions that are complete, and one sentence for each phase that is not.

    Phase (or the real part) of a series goes with the magnitude (imaginary part) of the same
    series, or of the one on the same grid with the same echo times that is nearest: same
    ImageType, then time, then number. One phase and two magnitudes, the phase at the later echo
    time, are a field map with a phase difference (Siemens).
    """
    series: dict[int, list[Image]] = {}
    for image in sorted(images, key=lambda i: (i.series, i.echo_time)):
        series.setdefault(image.series, []).append(image)
    found: list[Recording] = []
    faults: list[str] = []
    used: set[tuple[int, str]] = set()
    for number, members in series.items():
        part = next((p for p in PARTNER if any(i.part == p for i in members)), None)
        if part is None:
            continue
        main = [i for i in members if i.part == part]
        try:
            _check(main)
            partners = _partners(main, series, used)
            found.append(_recording(main, partners))
            used.add((partners[0].series, partners[0].part))
        except DataError as exc:
            faults.append(f"series {number}: {exc}")
    return found, faults


def _check(main: Sequence[Image]) -> None:
    if any(len(i.shape) != 3 for i in main):
        raise DataError(
            "several volumes of one echo (repetitions or single coils); convert them yourself"
        )
    times = [_microseconds(i) for i in main]
    if len(set(times)) < len(times):
        raise DataError("several phase images of one echo time; convert them yourself")


def _partners(
    main: Sequence[Image], series: Mapping[int, Sequence[Image]], used: set[tuple[int, str]]
) -> list[Image]:
    """The images that go with `main`, ordered by echo."""
    want = PARTNER[main[0].part]
    choices = [
        (_distance(main[0], group[0]), group)
        for number, members in series.items()
        if (group := [i for i in members if i.part == want]) and (number, want) not in used
        if all(_same_grid(main[0], i) for i in group)
    ]
    groups = [group for _, group in sorted(choices, key=lambda c: c[0])]
    echoes = [_microseconds(i) for i in main]
    for group in groups:
        if [_microseconds(i) for i in group] == echoes:
            return group
    for group in groups:  # a phase difference
        if len(group) == 2 and [_microseconds(group[1])] == echoes:
            return group
    times = ", ".join(f"{1e3 * i.echo_time:g}" for i in main)
    word = {"mag": "magnitude", "imag": "imaginary"}[want]
    raise DataError(
        f"no {word} images at its echo times ({times} ms) on its grid; export them too"
    )


def _distance(main: Image, other: Image) -> tuple[bool, int, float, int]:
    def kind(image: Image) -> set[str]:
        return {str(w) for w in image.metadata.get("ImageType", [])} - {"M", "P", *PARTS}

    return (
        other.series != main.series,
        len(kind(main) ^ kind(other)),
        abs(other.seconds - main.seconds),
        abs(other.series - main.series),
    )


def _same_grid(a: Image, b: Image) -> bool:
    return a.shape == b.shape and same_space(a.affine, b.affine, a.shape)


def _microseconds(image: Image) -> int:
    return round(1e6 * image.echo_time)


def _recording(main: Sequence[Image], partners: Sequence[Image]) -> Recording:
    images: dict[str, Image] = {}
    if len(partners) > len(main):
        images["phasediff"] = main[0]
        images.update({f"magnitude{n}": image for n, image in enumerate(partners, 1)})
        return Recording("fmap", main[0].description, images)
    for n, pair in enumerate(zip(partners, main, strict=True), 1):
        echo, suffix = (f"echo-{n}_", "MEGRE") if len(main) > 1 else ("", "T2starw")
        images.update({f"{echo}part-{i.part}_{suffix}": i for i in pair})
    return Recording("anat", main[0].description, images)


def names(recordings: Sequence[Recording]) -> Iterator[dict[str, str]]:
    """Entities that tell the acquisitions of a session apart: none for a single one.

    Otherwise `acq` from the series' description, and `run` where descriptions are the same.
    """
    for recording in recordings:
        rivals = [r for r in recordings if r.folder == recording.folder]
        label = _label(recording)
        same = [r for r in rivals if _label(r) == label]
        entities: dict[str, str] = {}
        if len(rivals) > 1 and label:
            entities["acq"] = label
        if len(same) > 1:
            entities["run"] = str(1 + [r is recording for r in same].index(True))
        yield entities


def _label(recording: Recording) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", recording.description)
