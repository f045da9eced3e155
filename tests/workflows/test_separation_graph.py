"""What is known of R2 before a run reaches the graph, the plan and the warnings."""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from qsm_nipype import plan
from qsm_nipype.dataset.acquisitions import Acquisition
from qsm_nipype.dataset.derivatives import sidecar_of
from qsm_nipype.dataset.own_files import OwnFiles, find_own_files
from qsm_nipype.dataset.r2_files import R2Files
from qsm_nipype.settings import Settings
from qsm_nipype.workflows.base import written_kinds
from qsm_nipype.workflows.nodes import Resources
from qsm_nipype.workflows.parts import make_parts

FILE = Path(__file__)
MEASURED = R2Files("epg", (FILE, FILE, FILE), (0.01, 0.02, 0.03), 160.0)


def made(own: OwnFiles = OwnFiles(), echoes: int = 2, **changes):  # noqa: B008  it is frozen
    acquisition = Acquisition(
        entities=MappingProxyType({"sub": "01"}),
        suffix="MEGRE",
        datatype="anat",
        echo_times=(0.004, 0.012)[:echoes],
        b0=3.0,
        shape=(32, 32, 24),
        voxel_size=(2.0, 2.0, 2.0),
        phase=(str(FILE),) * echoes,
        magnitude=(str(FILE),) * echoes,
        metadata=tuple(MappingProxyType({}) for _ in range(echoes)),
        own=own,
    )
    return replace(Settings(Path("/"), Path("/out")), **changes), acquisition


def test_spin_echoes_reach_the_node_and_their_maps_are_written():
    settings, acquisition = made(OwnFiles(r2=MEASURED), separation="joint")
    node = make_parts(settings, acquisition, Resources(1000, 2))["separation"].get_node("r2prime")
    assert len(node.inputs.in_files) == 3 and node.inputs.refocusing == 160
    assert {"paramagnetic", "diamagnetic", "r2prime", "r2", "t2"} <= set(
        written_kinds(settings, acquisition)
    )
    steps = plan.steps(settings, r2=MEASURED)
    assert [s["method"] for s in steps if s["step"] in ("r2prime", "separation")] == [
        "epg",
        "joint",
    ]
    assert not [f for f in plan.findings(settings, acquisition) if "R2" in f.text]


def test_what_is_assumed_is_a_warning_with_its_cure():
    fault = OwnFiles(r2_fault="sub-01_MESE.nii: its echoes are not at equal steps")
    for own in (OwnFiles(), fault):
        settings, acquisition = made(own, separation="joint")
        (found,) = [f for f in plan.findings(settings, acquisition) if "R2 was not" in f.text]
        assert found.severity == "warning" and "-d r2=PATH" in found.text
        assert ("equal steps" in found.text) == (own is fault)
    settings, acquisition = made(separation="r2star-qsm")
    assert not [f for f in plan.findings(settings, acquisition) if "R2 was not" in f.text]


@pytest.mark.parametrize(("echoes", "changes"), [(1, {}), (2, {"relaxometry": "none"})])
def test_without_r2star_nothing_is_separated_and_that_is_said(echoes, changes):
    settings, acquisition = made(echoes=echoes, separation="joint", **changes)
    assert "separation" not in make_parts(settings, acquisition, Resources(1000, echoes))
    assert "paramagnetic" not in written_kinds(settings, acquisition)
    assert [f for f in plan.findings(settings, acquisition) if "were not separated" in f.text]


def test_a_map_of_r2_that_nothing_asks_for_is_said():
    settings, acquisition = made(derivatives=MappingProxyType({"r2": "/r2"}))
    assert [f for f in plan.findings(settings, acquisition) if "-d r2 was not used" in f.text]


def test_without_maps_and_spin_echoes_there_is_no_r2(tmp_path):
    found = find_own_files({}, tmp_path, {"sub": "01"}, (4, 4, 4))
    assert found.r2 is None and found.r2_fault == ""


def test_sidecars_name_the_steps_that_a_map_rests_on():
    names = ["fit.linear", "mask.net", "inversion.tv", "relaxometry.loglinear", "r2prime.epg",
             "separation.joint", "vessels.veins", "vessels.bleeds"]  # fmt: skip
    record = {"steps": [dict(zip(("step", "method"), n.split("."), strict=True)) for n in names]}

    def steps(kind):
        found = sidecar_of(kind, record)["ProcessingSteps"]
        return [f"{s['step']}.{s['method']}" for s in found]

    assert steps("r2prime") == ["relaxometry.loglinear", "r2prime.epg"]
    assert steps("paramagnetic") == names[:6]
    assert steps("bleeds") == [*names[:3], "vessels.bleeds"]
