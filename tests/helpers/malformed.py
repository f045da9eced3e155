"""Inputs as nobody should give them: each a name and what it does to a good dataset.

The dataset (`make_dataset`) has sub-01, which a case may spoil, and sub-02, which must come
through.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

Spoil = Callable[[Path], None]
NAME = "sub-{sub}_echo-{echo}_part-{part}_MEGRE"
PHASE = f"sub-01/anat/{NAME.format(sub='01', echo=1, part='phase')}"

#: Offset and struct format of fields of a NIfTI-1 header, and values that no file should have.
HEADER = {
    "sizeof_hdr": (0, "i", (0, 349, 540, -1)),
    "dim0": (40, "h", (0, -1, 1, 2, 8, 15, 32767)),
    "dim1": (42, "h", (0, -5, 1, 32767)),
    "dim3": (46, "h", (0, -32768, 1, 32767)),
    "dim4": (48, "h", (0, -1, 3, 32767)),
    "datatype": (70, "h", (0, 1, 32, 128, 255, 1536, 1792, 2304, 99, -1)),
    "bitpix": (72, "h", (0, 7, -16, 32767)),
    "pixdim0": (76, "f", (float("nan"), 0.0, 7.0)),
    "pixdim1": (80, "f", (0.0, -3.0, float("nan"), float("inf"), 1e30, 1e-30)),
    "vox_offset": (108, "f", (0.0, -5.0, 3.3, 1e9, float("nan"), float("inf"))),
    "scl_slope": (112, "f", (float("nan"), float("inf"), 0.0, -1.0, 1e38)),
    "scl_inter": (116, "f", (float("nan"), float("-inf"), 1e38)),
    "xyzt_units": (123, "b", (127, -1, 1, 3)),
    "qform_code": (252, "h", (-1, 99, 4)),
    "sform_code": (254, "h", (-1, 99, 4, 0)),
    "quatern_b": (256, "f", (float("nan"), 5.0, float("inf"))),
    "srow_x": (280, "f", (0.0, float("nan"), float("inf"), 1e30)),
    "magic": (344, "4s", (b"n+2\0", b"ni1\0", b"\0\0\0\0", b"abcd")),
    "extension": (348, "4s", (b"\1\0\0\0", b"\xff\xff\xff\xff")),
}

#: Keys of sidecars that are read, and values of every kind of JSON.
KEYS = (
    *("EchoTime", "MagneticFieldStrength", "ImagingFrequency", "Units", "ImageType", "EchoNumber"),
    *("RepetitionTime", "FlipAngle", "Manufacturer", "SliceThickness", "SpacingBetweenSlices"),
    *("ImageOrientationPatientDICOM", "ImagedNucleus", "ImageComments", "MRAcquisitionType"),
)
VALUES: tuple[Any, ...] = (
    *(None, [], {}, "", "x", -1, 0, True, float("nan"), float("inf"), 10**400, 1e-300),
    *([1, "a"], {"a": 1}, "\ud800", [[[]]], ["x" * 10**5], "7T", [0.004, 0.008, 0.012]),
)


def make_dataset(root: Path) -> Path:
    """Two participants of two echoes; voxels are few and large."""
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    image = nib.Nifti1Image(np.arange(16 * 16 * 12, dtype=np.int16).reshape(16, 16, 12),
                            np.diag([12.0, 12, 12, 1]))  # fmt: skip
    image.header.set_xyzt_units("mm", "sec")
    stream = io.BytesIO()
    image.to_stream(stream)
    for sub, echo, part in itertools.product(("01", "02"), (1, 2), ("mag", "phase")):
        path = root / f"sub-{sub}" / "anat" / f"{NAME.format(sub=sub, echo=echo, part=part)}.nii"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stream.getvalue())
        sidecar = {"EchoTime": 0.005 * echo, "MagneticFieldStrength": 3}
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    return root


def image_cases() -> Iterator[tuple[str, Spoil]]:
    """Headers of noise, and files that are no images."""
    for field, (offset, kind, values) in HEADER.items():
        for value in values:
            packed = struct.pack(f"<{kind}", value)
            yield f"{field}={value}", _patched(offset, packed)
    yield from {
        "empty": _bytes(lambda data: b""),
        "one byte": _bytes(lambda data: data[:1]),
        "half a header": _bytes(lambda data: data[:200]),
        "half the data": _bytes(lambda data: data[: len(data) // 2]),
        "text": _bytes(lambda data: b"<html>404 not found</html>" * 30),
        "zip": _bytes(lambda data: b"PK\3\4" + bytes(500)),
        "big endian length": _bytes(lambda data: data[3::-1] + data[4:]),
        "large extension": _bytes(
            lambda data: data[:348] + b"\1\0\0\0" + struct.pack("<ii", 2**31 - 16, 6) + data[352:]
        ),
        "negative extension": _bytes(
            lambda data: data[:348] + b"\1\0\0\0" + struct.pack("<ii", -32, 6) + data[352:]
        ),
        "gzip": _packed(lambda data: gzip.compress(data)),
        "gzip cut short": _packed(lambda data: gzip.compress(data)[:-20]),
        "gzip of a half": _packed(lambda data: gzip.compress(data[:300])),
        "gzip twice": _packed(lambda data: gzip.compress(gzip.compress(data))),
        "gzip of text": _packed(lambda data: gzip.compress(b"text")),
        "gzip with a bad sum": _packed(lambda data: gzip.compress(data)[:-8] + b"12345678"),
        "not packed": _packed(lambda data: data),
        "gzip bomb": _packed(lambda data: gzip.compress(data + bytes(30_000_000))),
        "a folder": _instead(lambda path: path.mkdir()),
        "a pipe": _instead(lambda path: os.mkfifo(path)),
        "a link to nothing": _instead(lambda path: path.symlink_to("nothing")),
        "a link to itself": _instead(lambda path: path.symlink_to(path.name)),
        "a link to a device": _instead(lambda path: path.symlink_to("/dev/zero")),
        "an annex pointer": _bytes(lambda data: b"/annex/objects/MD5E-s1--a.nii\n"),
        "a pointer of LFS": _bytes(lambda data: b"version https://git-lfs.github.com/spec/v1\n"),
    }.items()


def sidecar_cases() -> Iterator[tuple[str, Spoil]]:
    """Every key with every kind of value, drawn with a fixed seed, and files that are no JSON."""
    pairs = list(itertools.product(KEYS, range(len(VALUES))))
    for key, place in random.Random(1).sample(pairs, 90):
        yield f"{key}={VALUES[place]!r:.40}", _sidecar({key: VALUES[place]})
    for name, data in {
        "empty": b"",
        "null": b"null",
        "a list": b"[1, 2]",
        "no end": b'{"EchoTime": 0.005',
        "deep": b"[" * 200_000,
        "deep objects": b'{"a":' * 100_000,
        "latin": b'{"Manufacturer": "\xe4"}',
        "wide": '{"EchoTime": 1}'.encode("utf-16"),
        "zeros": bytes(1000),
        "large": b'{"a": "' + b"x" * 17_000_000 + b'"}',
        "long text": b'{"EchoTime": 0.005, "Manufacturer": "' + b"x" * 5_000_000 + b'"}',
        "a long number": b'{"EchoTime": ' + b"1" * 10_000 + b"}",
    }.items():
        yield name, _bytes(lambda _, data=data: data, ".json")
    yield "a pipe", _instead(lambda path: os.mkfifo(path), ".json")
    yield "a folder", _instead(lambda path: path.mkdir(), ".json")
    yield "a link to itself", _instead(lambda path: path.symlink_to(path.name), ".json")
    yield "a device", _instead(lambda path: path.symlink_to("/dev/zero"), ".json")


def name_cases() -> Iterator[tuple[str, Spoil]]:
    """Names that are not of BIDS, and folders that are none."""
    for name in (
        *("part-phase_MEGRE", "01_part-phase_MEGRE", "sub-_part-phase_MEGRE", "MEGRE", "_MEGRE"),
        *("sub-02_part-phase_MEGRE", "sub-01_echo-x_part-phase_MEGRE", "sub-01_part-_MEGRE"),
        *("sub-01_echo-1_part-foo_MEGRE", "sub-01_echo--1_part-phase_MEGRE", "sub-01__MEGRE"),
        *("sub-01_echo-1_echo-2_part-phase_MEGRE", "sub-01_run-1e9_part-phase_MEGRE"),
        *(
            "sub-01 echo-1_part-phase_MEGRE",
            "sub-01_acq-0.8mm_part-phase_MEGRE",
            "sub-01_ph_MEGRE",
        ),
        *(f"sub-01_acq-{'a' * 200}_part-phase_MEGRE", "sub-01_acq-ä%'_part-phase_MEGRE"),
        *("sub-01_acq-a\nb_part-phase_MEGRE", "sub-01_part-phase_megre", "sub-01_echo-²_MEGRE"),
        *("sub-01_echo-99999999999999999999_part-phase_MEGRE", "sub-01_acq-$(id)_part-phase_GRE"),
        "sub-01_acq-\udce4_part-phase_MEGRE",
    ):
        yield f"named {name!r:.60}", _added(name)
    yield from {
        "the folder is a file": lambda root: _replace(root / "sub-01", lambda p: p.touch()),
        "the folder is a link to itself": lambda root: _replace(
            root / "sub-01", lambda p: p.symlink_to(p)
        ),
        "the folder is a dead link": lambda root: _replace(
            root / "sub-01", lambda p: p.symlink_to("x")
        ),
        "the folder is empty": lambda root: _replace(root / "sub-01", lambda p: p.mkdir()),
        "a link upwards": lambda root: (root / "sub-01" / "anat" / "up").symlink_to(root),
        "a folder called sub-": lambda root: (root / "sub-").mkdir(),
        "no description": lambda root: (root / "dataset_description.json").unlink(),
        "a description of noise": lambda root: (root / "dataset_description.json").write_bytes(
            bytes(range(256))
        ),
    }.items()


#: Texts of a configuration.
CONFIGS = {
    "no mapping": "- a",
    "a scalar": "3",
    "unknown": "nonsense: 1",
    "mask null": "mask: null",
    "mask number": "mask: 3",
    "mask list": "mask: [quality]",
    "mask language": "mask: 'quality&&::'",
    "preset list": "preset: [default]",
    "preset none such": "preset: nonsense",
    "work_dir number": "work_dir: 3",
    "work_dir list": "work_dir: [a]",
    "nprocs inf": "nprocs: .inf",
    "nprocs nan": "nprocs: .nan",
    "nprocs text": "nprocs: many",
    "nprocs negative": "nprocs: -3",
    "nprocs huge": f"nprocs: {10**30}",
    "mem nan": "mem: .nan",
    "mem text": "mem: 3GB",
    "mem true": "mem: true",
    "boolean text": "save_unwrapped: 'yes, please'",
    "parameters list": "parameters: [1]",
    "parameters scalar": "parameters: 3",
    "parameters deep": "parameters: {inversion.tv: [1]}",
    "parameters unknown": "parameters: {inversion.tv: {nonsense: 1}}",
    "parameters number key": "parameters: {3: {a: 1}}",
    "parameter of another kind": "parameters: {inversion.whtv: {regularization: {a: 1}}}",
    "derivatives list": "derivatives: [masks]",
    "derivatives null": "derivatives: {masks: null}",
    "derivatives unknown": "derivatives: {nonsense: x}",
    "inversion number": "inversion: 3",
    "inversion twice": "inversion: [whtv, whtv]",
    "inversion none": "inversion: []",
    "inversion deep": "inversion: [[whtv]]",
    "weights number": "weights: {mask: 3}",
    "a tag": "mask: !!python/object/apply:os.system ['true']",
    "a line break in a path": 'bids_database_dir: "a\\nb"',
    "a zero in a path": 'bids_database_dir: "a\\0b"',
    "a date": "mask: 2020-01-01",
    "keys that are lists": "? [a, b]\n: 1",
    "no end": "mask: [",
    "a tab": "mask:\n\t- a",
    "aliases": "a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: [*b,*b]",
    "an alias of itself": "parameters: &a\n  b: *a",
    "deep": "[" * 5000,
    "deep mappings": "".join(f"{' ' * n}a:\n" for n in range(300)),
    "large": "a: " + "x" * 2_000_000,
}
#: Bytes of a configuration that are no text.
CONFIG_BYTES = {"latin": b"mask: \xe4", "wide": "mask: a".encode("utf-16"), "zeros": bytes(99)}
#: Texts of a BIDS filter file.
FILTERS = {
    "empty": "",
    "a list": "[]",
    "unknown": '{"t1w": {}}',
    "gre list": '{"gre": [1]}',
    "gre null": '{"gre": null}',
    "no such entity": '{"gre": {"nonsense": "a"}}',
    "deep": "[" * 100_000,
    "an object": '{"gre": {"acquisition": {"a": 1}}}',
    "a bad pattern": '{"gre": {"acquisition": "(", "regex_search": true}}',
    "a number": '{"gre": {"echo": 1e400}}',
    "no end": '{"gre": {',
}


def fuzzed(data: bytes, seed: int, most: int = 12) -> bytes:
    """`data` with some bytes changed, cut out, doubled or cut off, the same for the same seed."""
    rng = random.Random(seed)
    out = bytearray(data)
    for _ in range(rng.randint(1, most)):
        place = rng.randrange(len(out)) if out else 0
        kind = rng.randrange(5)
        if kind == 0 and out:
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and out:
            out[place] = rng.randrange(256)
        elif kind == 2:
            del out[place : place + rng.randint(1, 8)]
        elif kind == 3:
            out[place:place] = out[place : place + rng.randint(1, 16)]
        elif kind == 4 and rng.random() < 0.2:
            del out[place:]
    return bytes(out)


# ---- what a case does ------------------------------------------------------------------------


def _patched(offset: int, packed: bytes) -> Spoil:
    return _bytes(lambda data: data[:offset] + packed + data[offset + len(packed) :])


def _bytes(change: Callable[[bytes], bytes], ending: str = ".nii") -> Spoil:
    def spoil(root: Path) -> None:
        path = root / f"{PHASE}{ending}"
        path.write_bytes(change(path.read_bytes()))

    return spoil


def _packed(change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(root: Path) -> None:
        path = root / f"{PHASE}.nii"
        path.with_suffix(".nii.gz").write_bytes(change(path.read_bytes()))
        path.unlink()

    return spoil


def _sidecar(change: dict[str, Any]) -> Spoil:
    def spoil(root: Path) -> None:
        path = root / f"{PHASE}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    return spoil


def _instead(make: Callable[[Path], object], ending: str = ".nii") -> Spoil:
    return lambda root: _replace(root / f"{PHASE}{ending}", make)


def _added(name: str) -> Spoil:
    def spoil(root: Path) -> None:
        for ending in (".nii", ".json"):
            source = root / f"{PHASE}{ending}"
            shutil.copy(source, source.with_name(f"{name}{ending}"))

    return spoil


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    make(path)
