"""`-d lesions=PATH`: which mask and FLAIR are taken, and what happens when one is missing."""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype import cli, plan
from qsm_nipype.dataset.acquisitions import Acquisition
from qsm_nipype.dataset.lesion_files import find_lesion_files, find_lesion_mask
from qsm_nipype.dataset.own_files import find_own_files
from qsm_nipype.errors import UsageError, WeightsError
from qsm_nipype.models import radiomics
from qsm_nipype.run.preflight import check_programs
from qsm_nipype.settings import Settings

ACQUISITION = Acquisition(
    entities=MappingProxyType({"sub": "01", "ses": "1", "run": "2"}),
    suffix="MEGRE",
    datatype="anat",
    echo_times=(0.01, 0.02),
    b0=3.0,
    shape=(8, 8, 8),
    voxel_size=(1.0, 1.0, 1.0),
    phase=(__file__,) * 2,
    magnitude=(__file__,) * 2,
    metadata=(MappingProxyType({}),) * 2,
)


@pytest.fixture
def settings(tmp_path):
    raw, derived = tmp_path / "bids", tmp_path / "lesions"
    for folder in (raw / "sub-01" / "ses-1" / "anat", derived / "sub-01" / "ses-1" / "anat"):
        folder.mkdir(parents=True)
    return Settings(raw, tmp_path / "out", work_dir=tmp_path,
                    derivatives=MappingProxyType({"lesions": str(derived)}))  # fmt: skip


def own_files(settings):
    places = {kind: Path(place) for kind, place in settings.derivatives.items()}
    return find_own_files(places, settings.bids_dir, ACQUISITION.entities, ACQUISITION.shape)


def acquisition(settings):
    """With files inside the dataset, as the record names them."""
    images = []
    for part in ("phase", "mag"):
        path = settings.bids_dir / f"sub-01_ses-1_run-2_part-{part}_MEGRE.nii.gz"
        path.touch()
        images.append((str(path),) * 2)
    return replace(ACQUISITION, phase=images[0], magnitude=images[1], own=own_files(settings))


def touch(settings, *names):
    for name in names:
        root = settings.bids_dir if "FLAIR.nii" in name else settings.bids_dir.parent / "lesions"
        (root / "sub-01" / "ses-1" / "anat" / name).touch()


def test_the_mask_and_the_flair_of_the_session_are_found(settings):
    touch(settings, "sub-01_ses-1_FLAIR.nii.gz", "sub-01_ses-1_acq-x_run-02_FLAIR.nii.gz",
          "sub-01_ses-1_space-FLAIR_label-lesion_mask.nii.gz", "sub-01_ses-1_mask.nii.gz",
          "sub-01_ses-2_label-lesion_mask.nii.gz")  # fmt: skip
    found = own_files(settings)
    assert found.lesions is not None and not found.notes
    assert found.lesions.mask.name == "sub-01_ses-1_space-FLAIR_label-lesion_mask.nii.gz"
    assert found.lesions.flair.name == "sub-01_ses-1_FLAIR.nii.gz"


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_ses-1_space-FLAIR_label-lesion_probseg.nii.gz",
        "sub-01/ses-1/lst-ai/space-flair_seg-lst.nii.gz",
        "sub-01/ses-1/space-flair_seg-lst_prob.nii.gz",
        "sub-01/ses-1/ples_lpa_mrFLAIR.nii",
        "sub-01_ses-1_bianca.nii.gz",
        "sub-01/ses-1/bianca_output.nii.gz",
        "sub-01_ses-1/lesion_mask.nii.gz",
        "sub-01/ses-1/posteriors/Lesions.mgz",
        "sub-01/ses-1/seg.mgz",
    ],
)
def test_the_maps_of_other_tools_are_found_by_their_own_names(tmp_path, name):
    for other in ("sub-02", "sub-01/ses-2"):
        (tmp_path / other).mkdir(parents=True, exist_ok=True)
        (tmp_path / other / "space-flair_seg-lst.nii.gz").touch()
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for there in (path, path.with_name("T1w_lesionfilled.nii.gz"),
                  path.with_name("space-flair_desc-annotated_seg-lst.nii.gz")):  # fmt: skip
        there.touch()
    assert find_lesion_mask(tmp_path, ACQUISITION.entities) == (path, [])


def test_a_mask_goes_before_probabilities_which_are_named(tmp_path):
    (tmp_path / "sub-01" / "ses-1").mkdir(parents=True)
    for name in ("space-flair_seg-lst.nii.gz", "space-flair_seg-lst_prob.nii.gz", "seg.mgz"):
        (tmp_path / "sub-01" / "ses-1" / name).touch()
    mask, passed = find_lesion_mask(tmp_path, ACQUISITION.entities)
    assert mask.name == "space-flair_seg-lst.nii.gz"
    assert [path.name for path in passed] == ["space-flair_seg-lst_prob.nii.gz"]


@pytest.mark.parametrize(
    ("images", "sidecar", "chosen", "why"),
    [
        ({"a": 1.0, "b": 1.0}, "", "a", "first by name"),
        ({"a": 2.0, "b": 1.0}, "", "b", "voxels are the smallest"),
        ({"a": 1.0, "b": 2.0}, "b", "b", "it is 3-D"),
        ({"a": 1.0, "b": 3.0}, "a", "b", "mask lies on its grid"),
    ],
)
def test_of_several_flairs_one_is_chosen_and_it_is_said_why(
    tmp_path, images, sidecar, chosen, why
):
    anat = tmp_path / "sub-01" / "ses-1" / "anat"
    anat.mkdir(parents=True)
    for name, size in {**images, "lesions": 3.0}.items():
        kind = "label-lesion_mask" if name == "lesions" else f"acq-{name}_FLAIR"
        image = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.diag([1, 1, size, 1.0]))
        image.to_filename(anat / f"sub-01_ses-1_{kind}.nii.gz")
    if sidecar:
        path = anat / f"sub-01_ses-1_acq-{sidecar}_FLAIR.json"
        path.write_text('{"MRAcquisitionType": "3D"}')
    found = find_lesion_files(tmp_path, tmp_path, ACQUISITION.entities)
    assert found.flair.name == f"sub-01_ses-1_acq-{chosen}_FLAIR.nii.gz"
    assert len(found.notes) == 1 and why in found.notes[0] and chosen in found.notes[0]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["sub-01_ses-1_FLAIR.nii.gz"], "no *lesion*_mask.nii.gz or _dseg"),
        (["sub-01_ses-1_desc-lesions_dseg.nii.gz"], "no *_FLAIR.nii.gz"),
        (
            [f"sub-01_ses-1_acq-{a}_label-lesion_mask.nii.gz" for a in "ab"]
            + ["sub-01_ses-1_FLAIR.nii.gz"],
            "both fit; keep one of them",
        ),
    ],
)
def test_what_is_missing_is_a_note_and_the_branch_is_left_out(settings, names, said):
    touch(settings, *names)
    found = own_files(settings)
    assert found.lesions is None and said in found.notes[0]
    from qsm_nipype.workflows.base import init_acquisition_wf

    workflow = init_acquisition_wf(settings, acquisition(settings))
    assert workflow.get_node("lesions_wf") is None
    record = workflow.get_node("outputs_wf.record")
    (finding,) = record.inputs.acquisition["findings"]
    assert finding["severity"] == "warning" and said in finding["text"]
    assert all(step["step"] != "lesions" for step in record.inputs.steps)


def test_a_complete_pair_adds_the_branch_and_its_step(settings):
    touch(settings, "sub-01_ses-1_FLAIR.nii.gz", "sub-01_ses-1_label-lesion_mask.nii.gz")
    from qsm_nipype.workflows.base import init_acquisition_wf

    chosen = replace(settings, lesion_instances="components", lesion_volume=25.0)
    workflow = init_acquisition_wf(chosen, acquisition(settings))
    assert workflow.get_node("lesions_wf.find_lesions").inputs.method == "components"
    assert workflow.get_node("lesions_wf.rimnet").inputs.min_volume == 25.0
    workflow._generate_flatgraph()
    (step,) = (s for s in plan.steps(chosen) if s["step"] == "lesions")
    assert step["parameters"] == {"method": "components", "min_volume": 25.0}


def test_nobody_asked_for_lesions(settings):
    assert own_files(replace(settings, derivatives={})).lesions is None
    assert all(s["step"] != "lesions" for s in plan.steps(replace(settings, derivatives={})))


@pytest.mark.skipif(not radiomics.available(), reason="PyRadiomics is not installed")
def test_weights_that_do_not_exist_are_refused_early(settings, tmp_path):
    with pytest.raises(WeightsError, match="no such weight file"):
        check_programs(replace(settings, weights={"rim": str(tmp_path / "none.safetensors")}))


def test_missing_pyradiomics_is_refused_early(settings, monkeypatch):
    monkeypatch.setattr(radiomics, "available", lambda: False)
    with pytest.raises(UsageError, match="qsm-nipype"):
        check_programs(settings)


def test_evaluate_names_its_networks(capsys):
    assert cli.main(["evaluate"]) == 2
    assert "name a network first (rim" in capsys.readouterr().err


def test_evaluate_says_when_there_is_nothing(tmp_path, capsys):
    assert cli.main(["evaluate", "rim", str(tmp_path)]) == 2
    assert "run 'qsm-nipype train rim" in capsys.readouterr().err
