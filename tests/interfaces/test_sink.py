"""The derivatives sink: names, sources, and nothing left of other settings."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype.dataset.derivatives import outdated_mark, sidecar_of
from qsm_nipype.interfaces.bids import DerivativesSink
from qsm_nipype.run.failures import Failure
from qsm_nipype.run.outcome import Outcome
from qsm_nipype.run.outdated import mark_outdated

ENTITIES = {"sub": "01", "run": "2"}
STEPS = [{"step": "fit", "method": "linear", "parameters": {}},
         {"step": "mask", "method": "user", "parameters": {"file": "own_mask.nii.gz"}},
         {"step": "inversion", "method": "tv", "parameters": {}},
         {"step": "inversion", "method": "tkd", "parameters": {}}]  # fmt: skip
OWN = {"file": "own_mask.nii.gz", "uri": "bids:masks:own_mask.nii.gz"}
RECORD = {"entities": ENTITIES, "source_uris": ["bids:raw:a"], "steps": STEPS, "own_mask": OWN}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Runs the sink on so many susceptibility maps; returns the names in the folder."""
    monkeypatch.chdir(tmp_path)
    image, record = str(tmp_path / "image.nii"), tmp_path / "record.json"
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4)), image)
    record.write_text(json.dumps(RECORD))
    (tmp_path / "regions.tsv").write_text("a\n")
    (tmp_path / "columns.json").write_text("{}")

    def run(*methods, entities=ENTITIES, **more):
        sink = DerivativesSink(
            kinds=["chi", "regions", *(kind for kind in more if "_" not in kind)],
            base_directory=str(tmp_path / "out"),
            entities=entities,
            in_record=str(record),
            chi=[image for _ in methods],
            descriptions={"chi": [None, *methods[1:]]},
            regions=str(tmp_path / "regions.tsv"),
            regions_columns=str(tmp_path / "columns.json"),
            **more,
        )
        written = sink.run().outputs.out_files
        assert all(Path(path).exists() for path in written)
        return sorted(p.name for p in (tmp_path / "out" / "sub-01" / "anat").iterdir())

    run.image, run.sink = (
        image,
        lambda: DerivativesSink(
            kinds=["chi"], base_directory=str(tmp_path / "out"), entities=ENTITIES
        ),
    )
    return run


def test_maps_of_other_settings_go_with_what_belongs_to_them(write, tmp_path):
    before = write("tv", "tkd", dentate=write.image)
    assert {"sub-01_run-2_desc-tkd_Chimap.json", "sub-01_run-2_desc-dentate_dseg.tsv"} <= {*before}
    after = write("tv")
    assert set(before) - set(after) == {
        *(f"sub-01_run-2_desc-tkd_Chimap.{end}" for end in ("nii.gz", "json")),
        *(f"sub-01_run-2_desc-dentate_dseg.{end}" for end in ("nii.gz", "json", "tsv")),
    }
    assert "sub-01_run-2_desc-regions_stats.tsv" in after


def test_lesions_after_no_lesions_leave_nothing_behind(write, tmp_path):
    beside = {"lesions_table": str(tmp_path / "regions.tsv")}
    beside["lesions_columns"] = str(tmp_path / "columns.json")
    before = write("tv", lesions=write.image, flair=write.image, **beside)
    after = write("tv")
    assert set(before) - set(after) == {
        *(f"sub-01_run-2_desc-lesions_dseg.{end}" for end in ("nii.gz", "json", "tsv")),
        *(f"sub-01_run-2_desc-registered_FLAIR.{end}" for end in ("nii.gz", "json")),
    }


def test_other_acquisitions_and_foreign_files_stay(write, tmp_path):
    first = write("tv", "tkd")
    own = tmp_path / "out" / "sub-01" / "anat" / "sub-01_run-2_desc-mine_Chimap.nii.gz"
    own.touch()
    left = write("tv", entities={"sub": "01", "run": "3"})
    assert {*first, own.name} <= {*left}
    assert own.name in write("tv")


@pytest.mark.parametrize(
    "name", ["../keep.nii.gz", "sub-01/anat/sub-01_run-3_Chimap.nii.gz", "/keep.nii.gz", 7]
)
def test_a_list_that_names_what_is_not_ours_removes_nothing(write, tmp_path, name):
    write("tv")
    listed = tmp_path / "out" / "logs" / "records" / "files" / "sub-01_run-2.json"
    victim = tmp_path / "out" / str(name)
    if not str(name).startswith("/"):
        victim.parent.mkdir(parents=True, exist_ok=True)
        victim.touch()
    listed.write_text(json.dumps({"files": [name]}))
    write("tv")
    assert str(name).startswith("/") or victim.exists()


def test_the_users_mask_is_a_source_of_what_rests_on_it():
    mask = sidecar_of("mask", RECORD)
    assert mask["Sources"] == ["bids:raw:a", "bids:masks:own_mask.nii.gz"]
    assert mask["ProcessingSteps"][-1]["parameters"] == {"file": "own_mask.nii.gz"}
    assert sidecar_of("chi", RECORD)["Sources"] == mask["Sources"]
    assert sidecar_of("total_field", RECORD)["Sources"] == ["bids:raw:a"]


def test_a_map_says_its_inversion_and_the_disagreement_those_of_all():
    steps = [{"step": "inversion", "method": name} for name in ("whtv", "tkd")]
    record = {**RECORD, "steps": steps}
    assert sidecar_of("chi", record)["Inversion"] == "whtv"
    assert sidecar_of("chi", record, inversion=1)["Inversion"] == "tkd"
    told = [step["method"] for step in sidecar_of("agreement", record)["ProcessingSteps"]]
    assert told[-2:] == ["whtv", "tkd"] and "Inversion" not in sidecar_of("agreement", record)


def test_a_sink_knows_what_is_no_longer_as_it_wrote_it(write, tmp_path):
    anat = tmp_path / "out" / "sub-01" / "anat"
    write("tv")
    assert write.sink().damaged() == {}
    (anat / "sub-01_run-2_Chimap.nii.gz").write_bytes(b"")
    (anat / "sub-01_run-2_Chimap.json").unlink()
    faults = {Path(name).name: fault for name, fault in write.sink().damaged().items()}
    assert faults == {
        "sub-01_run-2_Chimap.nii.gz": "is empty",
        "sub-01_run-2_Chimap.json": "is missing",
    }
    write("tv")
    assert write.sink().damaged() == {}


def test_maps_marked_as_outdated_are_written_again_without_the_mark(write, tmp_path):
    out = tmp_path / "out"
    write("tv")
    before = (out / "sub-01" / "anat" / "sub-01_run-2_Chimap.json").read_bytes()
    failure = Failure("sub-01_run-2", "01", "an echo is missing")
    (said,) = mark_outdated(out, [Outcome("sub-01_run-2", "01", failure=failure)])
    mark = outdated_mark(out, ENTITIES, "anat")
    assert mark.name in said.failure.reason and "an echo is missing" in mark.read_text()
    sidecar = out / "sub-01" / "anat" / "sub-01_run-2_Chimap.json"
    assert "an echo is missing" in json.loads(sidecar.read_text())["Outdated"]
    assert list(write.sink().damaged().values()) == ["marks maps of an earlier run"]
    write("tv")
    assert not mark.exists() and sidecar.read_bytes() == before


@pytest.mark.parametrize("node", ["g.sub_01.report_wf.pictures", "g.report_01"])
def test_a_failed_picture_makes_no_map_outdated(write, tmp_path, node):
    write("tv")
    failed = [Outcome("sub-01_run-2", "01", failure=Failure("sub-01_run-2", "01", "why", node))]
    assert mark_outdated(tmp_path / "out", failed) == failed
    assert not outdated_mark(tmp_path / "out", ENTITIES, "anat").exists()


def test_a_first_failure_has_nothing_to_mark(tmp_path):
    failed = [Outcome("sub-01", "01", failure=Failure("sub-01", "01", "why"))]
    assert mark_outdated(tmp_path, failed) == failed and not list(tmp_path.iterdir())
