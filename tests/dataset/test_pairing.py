"""Names that mean the same are paired, contradictions stop; one table for each."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.dataset.acquisitions import Selection, find_acquisitions

SHAPE = (6, 5, 4)
COMMON = {"MagneticFieldStrength": 3}


def write(root: Path, name: str, *, volumes=1, affine=None, unit="mm", **metadata) -> Path:
    """An image `name` (with its folder if that is not anat) and its sidecar, of sub-01."""
    folder, _, stem = name.rpartition("/")
    path = root / "sub-01" / (folder or "anat") / f"{stem}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = SHAPE if volumes == 1 else (*SHAPE, volumes)
    shape = (*SHAPE, 1) if volumes == 0 else shape
    image = nib.Nifti1Image(np.zeros(shape, np.int16), np.eye(4) if affine is None else affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    path.with_name(f"{stem}.json").write_text(json.dumps({**COMMON, **metadata}))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return tmp_path


def pairs(root, mag, phase, echoes=(1, 2), **metadata):
    """Echoes at 5, 10 … ms; {e} in the names is the echo's number."""
    for e in echoes:
        for name in (mag, phase):
            write(root, name.format(e=e), **{"EchoTime": 0.005 * e, **metadata})


def names(paths) -> list[str]:
    return [Path(p).name.removesuffix(".nii.gz").removeprefix("sub-01_") for p in paths]


def mixed_zeros(root):
    pairs(root, "sub-01_run-1_echo-{e}_part-mag_MEGRE", "sub-01_run-01_echo-0{e}_part-phase_MEGRE")


def stacked_magnitude(root):
    write(root, "sub-01_part-mag_MEGRE", volumes=2, EchoTime=[0.005, 0.01])
    for e in (1, 2):
        write(root, f"sub-01_echo-{e}_part-phase_MEGRE", EchoTime=0.005 * e)


def stacked_phase(root):
    write(root, "sub-01_part-phase_MEGRE", volumes=2)
    for e in (1, 2):
        write(root, f"sub-01_echo-{e}_part-mag_MEGRE", EchoTime=0.005 * e)


def single_axes(root):
    for part, volumes in (("mag", 0), ("phase", 1)):
        write(root, f"sub-01_part-{part}_GRE", volumes=volumes, EchoTime=0.01)


def shifted(root):
    """Affines apart by a hundredth of a voxel, as two exports of one grid."""
    affine = np.diag([3.0, 3, 3, 1])
    write(root, "sub-01_part-mag_GRE", affine=affine, EchoTime=0.01)
    affine = affine + np.outer([1, 0, 0, 0], [0, 0.001, 0, 0.03])
    write(root, "sub-01_part-phase_GRE", affine=affine, EchoTime=0.01)


def against_time(root):
    for e, time in ((1, 0.02), (2, 0.005), (3, 0.01)):
        for part in ("mag", "phase"):
            write(root, f"sub-01_echo-{e}_part-{part}_MEGRE", EchoTime=time)


def stacked_field_map(root):
    times = {"EchoTime1": 0.005, "EchoTime2": 0.0075}
    write(root, "fmap/sub-01_phasediff", **times)
    write(root, "fmap/sub-01_magnitude", volumes=2)


def field_map_beside_magnitudes(root):
    write(root, "sub-01_part-mag_GRE", EchoTime=0.01)
    write(root, "fmap/sub-01_magnitude1", volumes=2)
    for n in (1, 2):
        write(root, f"fmap/sub-01_phase{n}", EchoTime=0.0025 * n)


def spare_magnitude(root):
    pairs(root, "sub-01_echo-{e}_part-mag_MEGRE", "sub-01_echo-{e}_part-phase_MEGRE")
    write(root, "sub-01_echo-1_MEGRE", EchoTime=0.005)


def all_four_parts(root):
    for part in ("real", "imag", "phase"):
        write(root, f"sub-01_part-{part}_GRE", EchoTime=0.01)


#: What is there → its label, times in ms, phase or real files, magnitude or imaginary files.
TAKEN = {
    "order of entities": (
        lambda r: pairs(
            r,
            "sub-01_acq-a_echo-{e}_part-mag_MEGRE",
            "sub-01_part-phase_echo-{e}_acq-a_MEGRE",
        ),
        "sub-01_acq-a",
        "5 10",
        [f"part-phase_echo-{e}_acq-a_MEGRE" for e in (1, 2)],
        [f"acq-a_echo-{e}_part-mag_MEGRE" for e in (1, 2)],
    ),
    "leading zeros": (
        mixed_zeros,
        "sub-01_run-01",
        "5 10",
        [f"run-01_echo-0{e}_part-phase_MEGRE" for e in (1, 2)],
        [f"run-1_echo-{e}_part-mag_MEGRE" for e in (1, 2)],
    ),
    "magnitude without part": (
        lambda r: pairs(r, "sub-01_T2starw", "sub-01_part-phase_T2starw", (1,)),
        "sub-01",
        "5",
        ["part-phase_T2starw"],
        ["T2starw"],
    ),
    "another suffix": (
        lambda r: pairs(r, "sub-01_T2starw", "sub-01_part-phase_GRE", (1,)),
        "sub-01",
        "5",
        ["part-phase_GRE"],
        ["T2starw"],
    ),
    "magnitude of a reconstruction": (
        lambda r: pairs(
            r, "sub-01_rec-norm_echo-{e}_part-mag_MEGRE", "sub-01_echo-{e}_part-phase_MEGRE"
        ),
        "sub-01",
        "5 10",
        [f"echo-{e}_part-phase_MEGRE" for e in (1, 2)],
        [f"rec-norm_echo-{e}_part-mag_MEGRE" for e in (1, 2)],
    ),
    "part-magnitude": (
        lambda r: pairs(r, "sub-01_part-magnitude_GRE", "sub-01_part-Phase_GRE", (1,)),
        "sub-01",
        "5",
        ["part-Phase_GRE"],
        ["part-magnitude_GRE"],
    ),
    "magnitudes in one image": (
        stacked_magnitude,
        "sub-01",
        "5 10",
        [f"echo-{e}_part-phase_MEGRE" for e in (1, 2)],
        ["part-mag_MEGRE"],
    ),
    "phases in one image": (
        stacked_phase,
        "sub-01",
        "5 10",
        ["part-phase_MEGRE"],
        [f"echo-{e}_part-mag_MEGRE" for e in (1, 2)],
    ),
    "axes of length one": (single_axes, "sub-01", "10", ["part-phase_GRE"], ["part-mag_GRE"]),
    "a hundredth of a voxel": (shifted, "sub-01", "10", ["part-phase_GRE"], ["part-mag_GRE"]),
    "numbers against times": (
        against_time,
        "sub-01",
        "5 10 20",
        [f"echo-{e}_part-phase_MEGRE" for e in (2, 3, 1)],
        [f"echo-{e}_part-mag_MEGRE" for e in (2, 3, 1)],
    ),
    "both magnitudes of a field map in one image": (
        stacked_field_map,
        "sub-01",
        "2.5",
        ["phasediff"],
        ["magnitude"],
    ),
    "a field map beside magnitudes only": (
        field_map_beside_magnitudes,
        "sub-01",
        "2.5 5",
        ["phase1", "phase2"],
        ["magnitude1"],
    ),
    "a magnitude too many": (
        spare_magnitude,
        "sub-01",
        "5 10",
        [f"echo-{e}_part-phase_MEGRE" for e in (1, 2)],
        [f"echo-{e}_part-mag_MEGRE" for e in (1, 2)],
    ),
    "no magnitude but real and imaginary": (
        all_four_parts,
        "sub-01",
        "10",
        ["part-real_GRE"],
        ["part-imag_GRE"],
    ),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_names_mean_is_paired(root, case):
    make, label, times, main, partners = TAKEN[case]
    make(root)
    (found,), bad = find_acquisitions(root, Selection())
    assert all(item.idle for item in bad)
    assert found.label == label
    assert " ".join(f"{1000 * t:g}" for t in found.echo_times) == times
    assert names(found.phase or found.real) == main
    assert names(found.magnitude or found.imaginary) == partners
    own = [entry.get("EchoTime") for entry in found.metadata]
    if len(main) > 1:  # sidecars follow their images
        assert own == pytest.approx(list(found.echo_times))


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("numbers against times", "both parts were sorted by time (5, 10, 20 ms)"),
        ("magnitude of a reconstruction", "the only one that fits the phase"),
        ("a magnitude too many", "sub-01_echo-1_MEGRE.nii.gz is left out"),
    ],
)
def test_what_was_decided_is_noted(root, case, said):
    TAKEN[case][0](root)
    (found,), _ = find_acquisitions(root, Selection())
    assert said in found.notes[0]


def test_each_volume_keeps_its_time_where_parts_are_stored_differently(root):
    # read as the node reads them: magnitude of volume e is that of the phase of echo e
    from qsm_nipype.interfaces.phase import read_stored

    times = (0.02, 0.005)
    write(root, "sub-01_part-phase_MEGRE", volumes=2)
    for e, time in enumerate(times, 1):
        path = write(root, f"sub-01_echo-{e}_part-mag_MEGRE", EchoTime=time)
        nib.save(nib.Nifti1Image(np.full(SHAPE, 1000 * time, np.int16), np.eye(4)), path)
    (found,), _ = find_acquisitions(root, Selection())
    assert found.echo_times == (0.005, 0.02)
    _, echoes = read_stored(found.magnitude, [dict(m) for m in found.metadata])
    assert [int(e.raw.max()) for e in echoes] == [5, 20]


def one_echo(**metadata):
    return lambda r: pairs(r, "sub-01_part-mag_GRE", "sub-01_part-phase_GRE", (1,), **metadata)


def two(first, second, key="EchoTime", part=("mag", "phase")):
    """Two echoes whose `key` has other values in the `part` named."""

    def make(root):
        pairs(root, "sub-01_echo-{e}_part-mag_MEGRE", "sub-01_echo-{e}_part-phase_MEGRE")
        for e, value in ((1, first), (2, second)):
            for name in part:
                write(root, f"sub-01_echo-{e}_part-{name}_MEGRE",
                      **{"EchoTime": 0.005 * e, key: value})  # fmt: skip

    return make


def moved(root):
    write(root, "sub-01_part-mag_GRE", EchoTime=0.01)
    affine = np.eye(4)
    affine[0, 3] = 0.2
    write(root, "sub-01_part-phase_GRE", affine=affine, EchoTime=0.01)


def in_units(edge, unit, **metadata):
    def make(root):
        for part in ("mag", "phase"):
            affine = np.diag([edge, edge, edge, 1])
            write(root, f"sub-01_part-{part}_GRE", affine=affine, unit=unit,
                  EchoTime=0.01, **metadata)  # fmt: skip

    return make


def hertz(root):
    write(root, "fmap/sub-01_fieldmap", Units="Hz")
    write(root, "fmap/sub-01_magnitude")


def alone(*images, **metadata):
    def make(root):
        for name in images:
            write(root, name, EchoTime=0.01, **metadata)

    return make


def three_in_two(root):
    write(root, "sub-01_part-mag_MEGRE", volumes=3, EchoTime=[0.005, 0.01, 0.015])
    for e in (1, 2):
        write(root, f"sub-01_echo-{e}_part-phase_MEGRE", EchoTime=0.005 * e)


def field_map_of_other_times(root):
    write(root, "fmap/sub-01_phasediff", EchoTime1=0.005, EchoTime2=0.0075)
    for n, time in ((1, 0.004), (2, 0.0075)):
        write(root, f"fmap/sub-01_magnitude{n}", EchoTime=time)


#: What is wrong → the sentence that is said of it.
REFUSED = {
    "7 T at 127.7 MHz": (
        one_echo(MagneticFieldStrength=7, ImagingFrequency=127.7),
        "MagneticFieldStrength 7 T contradicts ImagingFrequency 127.7 MHz, at which protons are "
        "at 3 T; correct the wrong one (3 T would fit the frequency, 298 MHz would fit the field)",
    ),
    "1.5 T at 123 MHz": (
        one_echo(MagneticFieldStrength=1.5, ImagingFrequency=123.2),
        "2.89 T would fit the frequency, 63.87 MHz would fit the field",
    ),
    "sodium": (
        one_echo(MagneticFieldStrength=3, ImagingFrequency=33.8),
        "contradicts ImagingFrequency 33.8 MHz",
    ),
    "a nucleus": (
        one_echo(ImagedNucleus="23Na"),
        "susceptibility is mapped from the phase of pro",
    ),
    "frequency in Hz": (
        one_echo(ImagingFrequency=127740000),
        "give the frequency in MHz, which is 127.74 if this is Hz",
    ),
    "frequency in Hz, no field": (
        one_echo(MagneticFieldStrength=None, ImagingFrequency=123250000),
        "ImagingFrequency is 1.2325e+08; give it in MHz, which is 123.25 if this is Hz",
    ),
    "millitesla": (one_echo(MagneticFieldStrength=3000), "which is 3 if these are millitesla"),
    "gauss": (one_echo(MagneticFieldStrength=15000), "which is 1.5 if these are gauss"),
    "gauss at 70 000": (one_echo(MagneticFieldStrength=70000), "which is 7 if these are gauss"),
    "text": (one_echo(MagneticFieldStrength="3T"), "is '3T'; give it in tesla, for instance 3"),
    "fields of echoes": (
        two(3, 1.5, "MagneticFieldStrength"),
        "MagneticFieldStrength is 3 for sub-01_echo-1_part-phase_MEGRE.nii.gz and 1.5 for",
    ),
    "fields of parts": (
        two(7, 7, "MagneticFieldStrength", ("mag",)),
        "MagneticFieldStrength is 3 for sub-01_echo-1_part-phase_MEGRE.nii.gz and 7 for sub-01_e",
    ),
    "milliseconds": (one_echo(EchoTime=20), "divide milliseconds by 1000 (0.02)"),
    "microseconds": (one_echo(EchoTime=20000), "divide microseconds by 1000000 (0.02)"),
    "divided twice": (one_echo(EchoTime=2e-5), "0.02 if it was divided by 1000 twice"),
    "the same time twice": (
        two(0.005, 0.005),
        "two of the echo times 0.005, 0.005 s are the same",
    ),
    "times of parts": (two(0.005, 0.02, part=("mag",)), "EchoTime is 0.01 s and that of sub-01_e"),
    "EchoNumber": (
        two(2, 1, "EchoNumber"),
        "EchoNumber 1 has a later EchoTime than EchoNumber 2 (sub-01_echo-1_part-phase_MEGRE.json",
    ),
    "repetition": (one_echo(EchoTime=0.02, RepetitionTime=0.015), "RepetitionTime 0.015 is short"),
    "spin echo": (one_echo(ScanningSequence="SE"), "a spin echo, which refocuses the phase"),
    "a fifth of a voxel": (
        moved,
        "orientation (affine) differs from that of sub-01_part-phase_GRE.nii.gz by up to 0.2 vox",
    ),
    "micrometres": (in_units(1000, "micron"), "lengths in micrometres (voxels of 1000 ×"),
    "metres": (in_units(0.001, "meter"), "(voxels of 0.001 × 0.001 × 0.001, so 1 × 1 × 1 mm)"),
    "metres as mm": (in_units(0.001, "mm"), "measure 0.001 × 0.001 × 0.001 mm by the header"),
    "slices of 16 mm": (in_units(1, "mm", SliceThickness=16), "voxels of 1 × 1 × 1 mm contradict"),
    "a dot": (
        alone("sub-01_acq-0.8mm_part-mag_GRE", "sub-01_acq-0.8mm_part-phase_GRE"),
        "a label may not have a dot; rename this acquisition's files, this one to "
        "sub-01_acq-0p8mm_part-mag_GRE.nii.gz",
    ),
    "small letters": (alone("sub-01_part-phase_megre"), "this one to sub-01_part-phase_MEGRE.nii"),
    "a converter's ending": (
        alone("sub-01_echo-1_MEGRE_ph"),
        "this one to sub-01_echo-1_part-phase_MEGRE.nii.gz",
    ),
    "echo and phase after the suffix": (
        alone("sub-01_acq-a_MEGRE_e2_ph"),
        "this one to sub-01_acq-a_echo-2_part-phase_MEGRE.nii.gz",
    ),
    "entities after the suffix": (
        alone("sub-01_GRE_part-phase"),
        "BIDS has the suffix GRE at the end; rename the files, this one to sub-01_part-phase_GRE",
    ),
    "magnitude of another acquisition": (
        alone("sub-01_acq-a_part-phase_GRE", "sub-01_acq-b_part-mag_GRE"),
        "add the missing magnitude files as sub-01_acq-a_part-mag_GRE.nii.gz (if that is "
        "sub-01_acq-b_part-mag_GRE.nii.gz, rename it)",
    ),
    "three volumes for two images": (
        three_in_two,
        "2 phase but 3 magnitude volumes (3 of them in",
    ),
    "echo-a": (alone("sub-01_echo-a_part-phase_GRE"), "echo-a is not a number"),
    "times of a field map": (
        field_map_of_other_times,
        "EchoTime1 is 0.005 s and EchoTime of magnitude1 0.004 s; correct the wrong one",
    ),
    "second phase alone": (
        alone("fmap/sub-01_phase2", "fmap/sub-01_magnitude1"),
        "there is no phase1 image beside it; add it (there is sub-01_magnitude1.nii.gz)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_contradicts_itself_is_refused(root, case):
    make, words = REFUSED[case]
    make(root)
    good, bad = find_acquisitions(root, Selection())
    faults = [item.reason for item in bad if not item.idle]
    assert not good and len(faults) == 1
    assert words in faults[0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (hertz, "sub-01_fieldmap.nii.gz: a field map in Hz cannot be used"),
        (alone("sub-01_rec-b_part-mag_GRE"), "there is no phase image; export part-phase"),
        (alone("sub-01_T2starw"), "sub-01_T2starw.nii.gz: there is no phase image"),
        (
            alone("sub-01_part-phase_T1w"),
            "no gradient-echo images, but sub-01_part-phase_T1w.nii.gz; if it is one, name its "
            'suffix in a --bids-filter-file: {"gre": {"suffix": "T1w"}}',
        ),
        (alone("sub-01_T1w"), "no gradient-echo images (MEGRE, GRE, T2starw) and no field map"),
    ],
)
def test_where_there_is_nothing_to_do_that_is_no_fault(root, make, words):
    make(root)
    good, (idle,) = find_acquisitions(root, Selection())
    assert not good and idle.idle and words in idle.reason


def test_thickness_that_no_edge_comes_near_is_a_warning(root):
    in_units(1, "mm", SliceThickness=3)(root)
    (found,), _ = find_acquisitions(root, Selection())
    assert "contradict SliceThickness 3 mm" in found.warnings[0]
    in_units(1, "mm", SliceThickness=1, SpacingBetweenSlices=2)(root)  # gaps
    assert (
        "smaller than SpacingBetweenSlices 2 mm"
        in find_acquisitions(root, Selection())[0][0].warnings[0]
    )
    in_units(1, "mm", SliceThickness=2, SpacingBetweenSlices=1)(root)  # interpolated slices
    assert not find_acquisitions(root, Selection())[0][0].warnings


@pytest.mark.parametrize(
    ("degrees", "said"), [(25, "its axes are 25.0° off those of ImageOrientation"), (1, "")]
)
def test_a_header_that_lost_the_tilt_is_a_warning(root, degrees, said):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    in_units(1, "mm", ImageOrientationPatientDICOM=[1, 0, 0, 0, c, s])(root)
    (found,), _ = find_acquisitions(root, Selection())
    assert [w for w in found.warnings if said in w] == list(found.warnings)
    assert bool(found.warnings) == bool(said)
    turned = np.array([[0, 1.0, 0, 0], [0, 0, c, 0], [-c, 0, s, 0], [0, 0, 0, 1]])
    turned[1:3, :3] = [[-s, 0, c], [c, 0, s]]  # sagittal storage of the tilted axes
    for part in ("mag", "phase"):
        write(root, f"sub-01_part-{part}_GRE", affine=turned, EchoTime=0.01,
              ImageOrientationPatientDICOM=[1, 0, 0, 0, c, -s])  # fmt: skip
    assert not find_acquisitions(root, Selection())[0][0].warnings


@pytest.mark.parametrize(
    ("link", "text", "cure"),
    [
        ("../../.git/annex/objects/aa/bb/MD5E-s1.nii.gz", None, "`datalad get"),
        (None, "/annex/objects/MD5E-s1.nii.gz\n", "`datalad get"),
        (None, "version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "lfs pull`"),
        ("elsewhere.nii.gz", None, "a link to elsewhere.nii.gz, which does not exist"),
    ],
)
def test_images_without_content_name_the_command_that_fetches_them(root, link, text, cure):
    one_echo()(root)
    path = root / "sub-01" / "anat" / "sub-01_part-phase_GRE.nii.gz"
    path.unlink()
    if link:
        path.symlink_to(link)
    else:
        path.write_text(text)
    good, (bad,) = find_acquisitions(root, Selection())
    assert not good and not bad.idle
    assert bad.reason.startswith(str(path)) and cure in bad.reason
