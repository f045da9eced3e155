"""The reconstruction in memory: equal to the pipeline's, step by step and as a whole; refusals."""

import inspect
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import qsm_nipype
from qsm_nipype import chain, cli, methods
from qsm_nipype.core.fieldmap import FieldMap
from qsm_nipype.errors import DataError, UsageError
from qsm_nipype.settings import Settings
from qsm_nipype.simulation.signal import Protocol, Scan
from qsm_nipype.simulation.subject import simulate_subject
from qsm_nipype.volume import load

#: Largest difference (ppm) from the pipeline's maps: float32 sums by another number of threads.
TOLERANCE = 1e-5
GOOD = {"echo_times": (0.004, 0.008), "b0": 3.0, "voxel_size": (2.0, 2.0, 2.0)}
SCAN = chain.ScanParameters(**GOOD)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small volumes: more threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scan() -> Scan:
    """A simulated head of 5 mm, three echoes, tilted."""
    protocol = Protocol(echo_times=(0.004, 0.012, 0.020), angles=(12.0, -5.0, 0.0))
    return simulate_subject(21, shape=(36, 44, 36), voxel_size=5.0, protocol=protocol)


@pytest.fixture(scope="module")
def known(scan) -> dict:
    """What `reconstruct` is given beside the images."""
    times, b0 = scan.protocol.echo_times, scan.protocol.b0
    geometry = {"voxel_size": scan.head.voxel_size, "b0_dir": scan.head.b0_dir}
    return {"echo_times": times, "b0": b0, **geometry}


@pytest.fixture(scope="module")
def maps(scan, known) -> chain.Maps:
    """By defaults, but for the quick inversion."""
    return chain.reconstruct(scan.phase, scan.magnitude, **known, inversion="tkd")


# ---- the same as the pipeline -----------------------------------------------------------------


@pytest.mark.slow
def test_defaults_give_the_maps_of_the_command(tmp_path):
    bids, out, work = (tmp_path / name for name in ("bids", "out", "work"))
    assert cli.main(
        ["simulate", str(bids), "--n", "1", "--voxel-size", "4.5", "--angles", "15", "5", "0"]
    ) == 0  # fmt: skip
    less = ["--segmentation", "none", "--skip-bids-validation", "--nprocs", "2", "--mem", "6"]
    assert cli.main([str(bids), str(out), "participant", "-w", str(work), *less]) == 0
    (read,) = work.glob("*/sub_01/phase_wf/read")
    phase, magnitude = (load(read / f"{part}.nii") for part in ("phase", "magnitude"))
    sidecars = sorted((bids / "sub-01" / "anat").glob("*part-phase*.json"))
    about = [json.loads(path.read_text()) for path in sidecars]
    found = qsm_nipype.reconstruct(
        phase.data,
        magnitude.data,
        echo_times=[entry["EchoTime"] for entry in about],
        b0=about[0]["MagneticFieldStrength"],
        voxel_size=phase.voxel_size,
        b0_dir=phase.b0_dir,
    )
    for name, ours in {
        "Chimap": found.chi,
        "desc-chi_mask": found.mask_chi,
        "desc-brain_mask": found.mask,
        "desc-total_fieldmap": found.total_field,
        "desc-noise_fieldmap": found.field_noise,
        "desc-local_fieldmap": found.local_field,
    }.items():
        theirs = nib.load(out / "sub-01" / "anat" / f"sub-01_{name}.nii.gz").get_fdata()
        assert np.abs(ours.numpy() - theirs).max() < TOLERANCE, name
        assert theirs.std() > 0


def test_the_steps_one_by_one_give_the_same(scan, known, maps):
    given = chain.ScanParameters(**known)
    magnitude = torch.from_numpy(scan.magnitude)
    removed = chain.remove_offset(scan.phase, magnitude, given)
    unwrapped = chain.unwrap(removed.phase, magnitude, given)
    fitted = chain.fit_field(unwrapped.phase, magnitude, given)
    mask = chain.make_mask(magnitude, unwrapped.quality, given)
    trimmed, warnings = chain.trim_mask(mask, fitted, given)
    noise = {"field_noise": fitted.noise}
    local = chain.remove_background(fitted.field, trimmed, given, **noise)
    solution = chain.invert(local.field, local.mask, given, method="tkd", **noise)
    chi = chain.set_reference(solution.chi, local.mask).chi
    assert warnings == () and torch.equal(trimmed, maps.trimmed)
    assert torch.equal(local.field, maps.local_field) and torch.equal(chi, maps.chi)


def test_the_map_resembles_the_truth_with_zero_mean(scan, maps):
    inside = maps.mask_chi.numpy() & scan.brain
    truth = scan.truth.chi[inside]
    assert np.corrcoef(maps.chi.numpy()[inside], truth)[0, 1] > 0.2  # 5 mm, tkd
    assert abs(float(maps.chi[maps.mask_chi].mean())) < 1e-5
    assert not maps.chi[~maps.mask_chi].any() and not (maps.trimmed & ~maps.mask).all()


def test_every_default_is_that_of_the_settings():
    found = inspect.signature(chain.reconstruct).parameters
    own = {"mask_method": Settings.mask, "inversion": Settings.inversion[0]}
    for name in (*("offset", "unwrapping", "fit", "trim", "background", "reference"), "two_stage"):
        own[name] = getattr(Settings, name)
    assert {name: found[name].default for name in own} == own


# ---- choices ----------------------------------------------------------------------------------


def test_a_parameter_reaches_its_method(scan, known, maps):
    other = chain.reconstruct(
        scan.phase,
        scan.magnitude,
        **known,
        inversion="tkd",
        parameters={"inversion.tkd": {"threshold": 0.3}},
    )
    assert torch.equal(other.local_field, maps.local_field)
    assert not torch.equal(other.chi, maps.chi)


def test_a_mask_of_ones_own_is_kept_and_edited(scan, known):
    own = partial(
        chain.reconstruct, scan.phase, scan.magnitude, **known, inversion="tkd", mask=scan.brain
    )
    assert np.array_equal(own().mask.numpy(), scan.brain)
    smaller = own(mask_operations="erode:6").mask.numpy()
    assert 0 < smaller.sum() < scan.brain.sum() and not (smaller & ~scan.brain).any()


def test_the_magnitude_is_weighted_by_what_the_maps_hold(scan, known, maps):
    given = chain.ScanParameters(**known)
    made = chain.weight_magnitude(
        scan.magnitude,
        maps.mask,
        given,
        method="smwi",
        chi=maps.chi,
        parameters={"swi.smwi": {"threshold": 0.5}},
    )
    expected = (1 - maps.chi / 0.5).clamp(0, 1) ** 4
    assert torch.allclose(made.weight, expected) and made.image.shape == maps.chi.shape


def test_sources_and_vessels_are_found_by_the_registrys_names(scan, known, maps):
    given = chain.ScanParameters(**known)
    rate = 137 * (maps.chi.abs() + 0.02)
    sources = chain.separate_sources(
        maps.local_field, maps.mask_chi, given, method="pointwise", r2prime=rate, chi=maps.chi
    )
    assert torch.allclose(sources.chi, maps.chi * maps.mask_chi, atol=1e-6)
    inside = maps.mask_chi & (maps.chi < 0)
    assert torch.allclose(sources.paramagnetic[inside], torch.tensor(0.01), atol=1e-5)
    none = {"vessels.bleeds": {"threshold": 9.0}}
    spots = chain.find_vessels(maps.chi, maps.mask_chi, given, method="bleeds", parameters=none)
    assert not spots.found and not spots.labels.any()


def test_an_inversion_of_the_total_field_has_no_local_one(scan, known):
    few = {"inversion.tgv": {"max_iterations": 3}}
    found = chain.reconstruct(scan.phase, scan.magnitude, **known, inversion="tgv", parameters=few)
    assert found.local_field is None and torch.equal(found.mask_chi, found.trimmed)


def test_the_region_is_zero_and_reaches_medi(known, maps):
    region = maps.mask_chi.clone()
    region[: region.shape[0] // 2] = False
    field, mask = maps.local_field, maps.mask_chi
    given = chain.ScanParameters(**known)
    medi = partial(
        chain.invert, field, mask, given, magnitude=maps.magnitude, method="medi",
        parameters={"inversion.medi": {"max_iterations": 1}},
    )  # fmt: skip
    uniform = medi(csf=region).chi
    assert abs(float(uniform[region].mean())) < 1e-5 and not torch.equal(uniform, medi().chi)
    for kind in ("region", "csf"):
        chi = chain.set_reference(maps.inverted, mask, kind=kind, region=region).chi
        assert abs(float(chi[region].mean())) < 1e-5
    inner = {"reference.region": {"erosion": 1}}
    found = [
        chain.set_reference(maps.inverted, mask, kind="region", region=region, parameters=p)
        for p in ({}, inner)
    ]
    assert found[1].voxels < found[0].voxels


def test_the_second_stage_leaves_the_strong_source_out_and_fills_it_in():
    chi = torch.zeros(20, 20, 20)
    chi[8:13, 8:13, 8:13] = 1.0
    trimmed = torch.ones_like(chi, dtype=torch.bool)
    seen = []

    def make(mask):
        seen.append(mask)
        return chain.Inverted(torch.full_like(chi, 0.25) * mask, mask)

    found = chain.add_second_stage(
        chain.Inverted(chi, trimmed), trimmed, make, SCAN, threshold=0.5
    )
    (kept,) = seen
    assert not kept[chi > 0].any() and torch.all(found[kept] == 0.25)
    assert torch.allclose(found[chi > 0], torch.tensor(1.25))
    assert chain.add_second_stage(chain.Inverted(chi, trimmed), trimmed, make, SCAN) is chi
    chain.add_second_stage(
        chain.Inverted(chi, trimmed), trimmed, make, SCAN, threshold=0.5,
        parameters={"two_stage.robust": {"margin": 0.0}},
    )  # fmt: skip
    assert seen[1].sum() > kept.sum()  # nothing left out around the source


@pytest.mark.parametrize("name", methods.names("unwrapping"))
def test_every_unwrapping_keeps_the_phase_up_to_turns_with_one_quality(scan, known, maps, name):
    given = chain.ScanParameters(**known)
    found = chain.unwrap(scan.phase, scan.magnitude, given, method=name)
    turns = (found.phase - torch.from_numpy(scan.phase))[found.mask] / (2 * np.pi)
    assert float((turns - turns.round()).abs().max()) < 1e-4
    assert turns.numel() > 1000 and float(found.quality.max()) > 0.5
    again = chain.unwrap(maps.phase, scan.magnitude, given, method=name)
    assert torch.equal(again.quality, maps.quality)


def test_echo_time_is_the_mean_and_one_echo_may_have_three_axes():
    assert chain.ScanParameters((0.004, 0.008, 0.018), 3.0, (1, 1, 1)).echo_time == 0.01
    single = chain.ScanParameters((0.02,), 3.0, (1.0, 1.0, 1.0))
    phase, magnitude = chain.as_echoes(np.zeros((3, 4, 5)), np.ones((3, 4, 5)), single)
    assert phase.shape == magnitude.shape == (3, 4, 5, 1) and phase.dtype == torch.float32


def test_what_is_not_a_number_counts_as_zero():
    phase, magnitude = np.ones((2, 2, 2, 2)), np.ones((2, 2, 2, 2))
    phase[0], magnitude[0], magnitude[1, 0] = np.nan, np.inf, -1
    phase, magnitude = chain.as_echoes(phase, magnitude, SCAN)
    assert not phase[0].any() and not magnitude[0].any() and not magnitude[1, 0].any()


# ---- refusals ---------------------------------------------------------------------------------

ECHOES, VOLUME = np.ones((4, 4, 4, 2), np.float32), np.ones((4, 4, 4), np.float32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"echo_times": ()}, "echo_times (): give the time of every echo"),
        ({"echo_times": (0.008, 0.004)}, "echo_times (0.008, 0.004): give the time of every"),
        ({"echo_times": (0.0, 0.004)}, "each later than the one before"),
        ({"echo_times": 0.004}, "give a sequence of numbers"),
        ({"echo_times": (0.004,)}, "phase: 2 echoes for 1 echo times"),
        ({"b0": 0.0}, "b0 0: give the field strength in T, above 0"),
        ({"voxel_size": (1.0, 1.0)}, "voxel_size (1, 1): give three lengths in mm"),
        ({"voxel_size": (1.0, 0.0, 1.0)}, "give three lengths in mm, above 0"),
        ({"b0_dir": (0, 0, 0)}, "b0_dir (0, 0, 0): give three numbers, not all zero"),
        ({"phase": np.ones((4, 4))}, "phase: shape (4, 4); give (X, Y, Z, echoes)"),
        ({"magnitude": ECHOES[:3]}, "magnitude: shape (3, 4, 4, 2) differs from the phase's"),
        ({"phase": ECHOES * np.nan}, "phase: no voxel has a number"),
        ({"mask": VOLUME[:2]}, "mask: shape (2, 4, 4) is not the data's (4, 4, 4)"),
        ({"mask": 0 * VOLUME}, "mask: it has no voxel"),
        ({"region": 0 * VOLUME, "reference": "csf"}, "region: it has no voxel"),
    ],
)
def test_data_that_cannot_be_used_are_refused_in_a_sentence(change, words):
    given = {"phase": ECHOES, "magnitude": ECHOES, **GOOD, **change}
    with pytest.raises(DataError, match=re.escape(words)):
        chain.reconstruct(**given)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inversion": "magic"}, "'magic' is no method for dipole inversion; choose from tv"),
        ({"mask_method": "quality&skull"}, "'skull' is no method for brain mask"),
        ({"mask_operations": "melt"}, "mask operation 'melt' is unknown"),
        ({"parameters": {"tkd": {}}}, "'tkd' is no STEP.METHOD"),
        ({"parameters": {"inversion.magic": {}}}, "'magic' is no method for dipole inversion"),
        ({"parameters": {"inversion.tkd": {"x": 1}}}, "inversion.tkd has no parameter 'x'"),
        ({"two_stage": -1.0}, "two_stage -1: give a susceptibility above 0 ppm"),
        ({"reference": "csf"}, "reference 'csf': give its mask as region"),
        ({"reference": "liver"}, "reference 'liver': choose from brain, csf"),
    ],
)
def test_choices_that_there_are_not_are_refused_before_anything_runs(change, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        chain.reconstruct(ECHOES, ECHOES, **GOOD, **change)


def test_masks_of_which_nothing_is_left_are_refused():
    mask, zeros = torch.zeros(4, 4, 4, dtype=torch.bool), torch.zeros(4, 4, 4)
    mask[2, 2, 2] = True
    with pytest.raises(DataError, match="mask: nothing is left of it"):
        chain.edit_mask(mask, SCAN, "erode:5")
    with pytest.raises(DataError, match="mask: it has no voxel"):
        chain.remove_background(zeros, ~mask & mask, SCAN)
    with pytest.raises(DataError, match="reference: the reference region has no voxel"):
        chain.set_reference(zeros, mask, kind="region", region=~mask)
    unreliable = FieldMap(zeros, zeros, zeros, zeros, mask, 0.0)
    with pytest.raises(DataError, match="mask: 0.0 % of it has a reliable field"):
        chain.trim_mask(~mask, unreliable, SCAN)


# ---- the package ------------------------------------------------------------------------------


def test_the_package_imports_without_torch_and_the_chain_without_nipype():
    code = """
import sys, qsm_nipype
assert "torch" not in sys.modules and "numpy" not in sys.modules
from qsm_nipype import Maps, reconstruct
assert "torch" in sys.modules and "nipype" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        qsm_nipype.magic  # noqa: B018  what is asked for is not there


def test_importing_the_chain_imports_no_nipype():
    code = """
import sys
from qsm_nipype import chain
assert "nipype" not in sys.modules and "qsm_nipype.interfaces" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_chain_lies_below_the_interfaces():
    files = list(Path(chain.__file__).parent.glob("*.py"))
    above = r"(import|from) (nipype|nibabel|qsm_nipype\.(interfaces|workflows|run|commands))"
    assert len(files) > 1
    assert not [f.name for f in files if re.search(above, f.read_text(encoding="utf-8"))]


def test_the_examples_of_the_page_run_and_name_every_map(capsys):
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert capsys.readouterr().out.count("tensor(") == 3
    assert names["maps"].chi.std() > 0
    for name in (*chain.Maps.__dataclass_fields__, "ScanParameters"):
        assert f"`{name}`" in page or f"chain.{name}" in page or f"maps.{name}" in page, name


def test_the_mask_network_sees_the_head_along_b0_however_the_axes_are_stored():
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in (32, 40, 36)], indexing="ij")
    head = 100.0 * (x**2 + y**2 + z**2 < 0.8) + 300.0 * (x**2 + y**2 + (z - 0.2) ** 2 < 0.4)
    loose = {"mask.net": {"threshold": 1e-3}}

    def found(image, voxel_size, b0_dir):
        scan = chain.ScanParameters((0.01,), 3.0, voxel_size, b0_dir)
        return chain.make_mask(image, image, scan, method="net", parameters=loose)

    upright = found(head, (5.0, 4.5, 4.0), (0.1, 0.0, 1.0))
    stored = found(head.permute(2, 0, 1), (4.0, 5.0, 4.5), (-1.0, 0.1, 0.0))
    assert upright.any() and torch.equal(stored, upright.permute(2, 0, 1))
