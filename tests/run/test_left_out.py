"""What was asked for and will not be done is a warning with its cure, and only that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from qsm_nipype import cli, plan
from qsm_nipype.dataset.acquisitions import Acquisition
from qsm_nipype.dataset.own_files import OwnFiles
from qsm_nipype.workflows.base import init_acquisition_wf, written_kinds

SEVERAL = Acquisition(
    entities=MappingProxyType({"sub": "01"}), suffix="MEGRE", datatype="anat", b0=3.0,
    echo_times=(0.004, 0.008), shape=(8, 8, 8), voxel_size=(1.0, 1.0, 1.0),
    phase=("/bids/p.nii",), metadata=(MappingProxyType({}),),
)  # fmt: skip
SINGLE = replace(SEVERAL, echo_times=(0.02,))


def said(acquisition, *options):
    """The findings before a run with these options, as severity and sentence."""
    settings = cli.parse(["/bids", "/out", "participant", *options])
    return [(f.severity, f.text) for f in plan.findings(settings, acquisition)]


@pytest.mark.parametrize("preset", ["default", "consensus", "fast"])
@pytest.mark.parametrize("more", [[], ["--inversion", "tv"], ["--background", "pdf"]])
def test_nothing_is_left_out_of_what_each_preset_does(preset, more):
    assert said(SEVERAL, "--preset", preset, *more) == []


@pytest.mark.parametrize(
    ("acquisition", "options", "words", "cure"),
    [
        (SINGLE, [], "R2* and T2* were not mapped: the acquisition has one echo",
         ["--relaxometry", "none"]),
        (SEVERAL, ["-d", "masks=m.nii", "--mask", "net"], "--mask net was not used", None),
        (SEVERAL, ["-d", "reference=r.nii"], "the region of -d reference was not used",
         ["--reference", "region"]),
        (SEVERAL, ["--lesion-volume", "5"], "give their masks by -d lesions",
         ["-d", "lesions=l.nii"]),
        (SEVERAL, ["--lesion-instances", "components"], "no lesions were looked at", None),
        (SEVERAL, ["--weights", "rim=r.zip"], "--weights rim was not used", None),
        (SEVERAL, ["--weights", "qsmgan=q"], "--weights qsmgan was", ["--inversion", "qsmgan"]),
        (SEVERAL, ["-d", "masks=m.nii", "--weights", "mask=q"], "--weights mask was not", None),
        (SEVERAL, ["--segmentation", "none", "--weights", "dentate=q"], "dentate was not", None),
        (SEVERAL, ["--set", "inversion.tv.tolerance=1e-3"], "inversion.tv were not used",
         ["--inversion", "tv"]),
        (SEVERAL, ["--set", "background.resharp.radius=6"], "background.resharp were not", None),
    ],
)  # fmt: skip
def test_what_is_left_out_is_a_warning_and_the_cure_cures(acquisition, options, words, cure):
    ((severity, text),) = said(acquisition, *options)
    assert severity == "warning" and words in text
    if cure is not None:
        assert said(acquisition, *options, *cure) == []


def test_what_was_promised_and_not_found_is_a_warning_and_decisions_are_notes():
    own = OwnFiles(notes=("Lesions were not looked at: no FLAIR",))
    found = replace(SEVERAL, own=own, notes=("a note",), warnings=("a warning",))
    assert said(found) == [("note", "a note"), ("warning", "a warning"), ("warning", own.notes[0])]


def test_maps_of_relaxation_can_be_left_out(tmp_path):
    bids = tmp_path.absolute()
    found = replace(SEVERAL, phase=(str(bids / "p.nii"),), magnitude=(str(bids / "m.nii"),))
    for path in (*found.phase, *found.magnitude):
        Path(path).touch()
    made = {}
    for choice in ("loglinear", "none"):
        settings = cli.parse([str(bids), "/out", "participant", "--relaxometry", choice])
        graph = init_acquisition_wf(settings, found)
        names = {name.split(".")[0] for name in graph.list_node_names()}
        steps = {step["step"] for step in plan.steps(settings)}
        made[choice] = names, steps, set(written_kinds(settings, found))
    assert made["loglinear"][0] - made["none"][0] == {"relaxometry_wf"}
    assert made["loglinear"][1] - made["none"][1] == {"relaxometry"}
    assert made["loglinear"][2] - made["none"][2] == {"r2star", "t2star"}


def test_the_dry_run_says_what_will_be_left_out():
    settings = cli.parse(["/bids", "/out", "participant"])
    text = plan.describe(settings, [SINGLE, SEVERAL], [])
    assert text.count("    warning: R2* and T2* were not mapped") == 1
