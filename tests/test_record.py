"""The schema of records: what is declared makes the round trip, all else is refused."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from qsm_nipype import plan
from qsm_nipype.core.reading.acquisition import read_acquisition
from qsm_nipype.core.reading.stored import StoredEcho
from qsm_nipype.dataset.acquisitions import Acquisition
from qsm_nipype.errors import DataError
from qsm_nipype.record import (
    AcquisitionRecord,
    FailureRecord,
    Figure,
    Finding,
    Number,
    PhaseReading,
    Scan,
    Step,
    Verdict,
    Viewer,
)
from qsm_nipype.settings import Settings

FULL = AcquisitionRecord(
    entities={"sub": "01", "run": "2"},
    source_files=("sub-01_MEGRE.nii.gz",),
    source_uris=("bids:raw:sub-01/anat/sub-01_MEGRE.nii.gz",),
    datatype="fmap",
    own_mask={"file": "m.nii.gz", "uri": "bids:masks:m.nii.gz"},
    acquisition=Scan(
        manufacturer="Siemens", flip_angle=(15.0, "?"), field_strength=3.0, shape=(4, 5, 6),
        echo_times=(0.004, 0.008), obliquity=0.0,
    ),
    phase_reading=PhaseReading(
        "radians", "the range agrees", warnings=("w",), notes=("n",), errors=("e",),
        stored_range=((0.0, 1.0),), sign_inverted=True,
    ),
    steps=(Step("inversion", "tv", "TV", {"a": [1, None]}, {"numbers": {}, "deep": {"x": 1}}),),
    numbers={
        "reference": Number(0.01, "ppm", "mean", sd=0.1), "state": Number("found"),
        "noise": Number(30.0, "ppb", usual=(None, 10.0), judgement="unusual", reason="noisy"),
    },
    findings=(Finding("note", "one"), Finding("error", "two", "read")),
    verdict=Verdict("red", ("two",)),
    runtimes={"fit": 1.0},
    references=({"ReferenceRegion": "brain", "ReferenceMean": None},),
    segmentation={"dentate": {"Status": "found", "BoxSize": [1, 2, 3]}},
    age=41.5,
    versions={"torch": "2"},
    figures=(Figure("chi", "χ", "sub-01/figures/chi.png", "c"),),
    viewer=Viewer(({"name": "chi"},), "sub-01/figures", ({"name": "mask"},)),
    maps={"Chimap": "sub-01/anat/sub-01_run-2_Chimap.nii.gz"},
    error=FailureRecord("no phase", "read", "crash-1"),
)  # fmt: skip


@pytest.mark.parametrize("record", [FULL, AcquisitionRecord({"sub": "1"})], ids=["full", "least"])
def test_the_round_trip_is_the_identity(record):
    stored = json.dumps(record.to_json())
    again = AcquisitionRecord.from_json(json.loads(stored))
    assert again == record
    assert json.dumps(again.to_json()) == stored


def test_every_field_is_in_the_round_trip():
    assert set(FULL.to_json()) == set(AcquisitionRecord.__dataclass_fields__)


def changed(path, value):
    """`FULL` as JSON with `value` at `path`; without it where the value is `...`."""
    content = copy.deepcopy(FULL.to_json())
    *way, last = path
    part = content
    for key in way:
        part = part[key]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (["decisions"], "decisions is no field"),
        (["acquisition", "PatientName"], "acquisition.PatientName is no field"),
        (["phase_reading", "decisions"], "phase_reading.decisions is no field"),
        (["steps", 0, "name"], r"steps\[0\].name is no field"),
        (["numbers", "reference", "mean"], "numbers.reference.mean is no field"),
        (["figures", 0, "file"], r"figures\[0\].file is no field"),
        (["viewer", "sheets"], "viewer.sheets is no field"),
        (["error", "reason"], "error.reason is no field"),
    ],
)
def test_what_is_not_declared_is_refused(path, message):
    with pytest.raises(DataError, match=f"^sub-01.json: {message}") as refusal:
        AcquisitionRecord.from_json(changed(path, "Doe^Jane"), name="sub-01.json")
    assert "Doe" not in str(refusal.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["entities"], [], "entities is a list instead of an object"),
        (["entities", "run"], 2, "entities.run is a whole number instead of text"),
        (["findings"], "one", "findings is text instead of a list"),
        (["findings", 1, "text"], None, r"findings\[1\].text is null instead of text"),
        (["findings", 0, "severity"], "fatal",
         r"findings\[0\].severity is text instead of one of 'note', 'warning', 'error'$"),
        (["verdict", "light"], 1, "verdict.light is a whole number instead of one of 'green'"),
        (["numbers", "noise", "judgement"], "fair", "judgement is text instead of one of ''"),
        (["acquisition"], "Siemens", "acquisition is text instead of an object"),
        (["acquisition", "field_strength"], "3 T",
         "acquisition.field_strength is text instead of a number or null"),
        (["acquisition", "shape", 0], 1.5,
         r"acquisition.shape\[0\] is a number instead of a whole number"),
        (["acquisition", "model"], {}, "acquisition.model is an object instead of a number or"),
        (["phase_reading", "sign_inverted"], 1, "sign_inverted is a whole number instead of true"),
        (["phase_reading", "stored_range"], [1.0], r"stored_range\[0\] is a number instead of"),
        (["steps", 0], "tv", r"steps\[0\] is text instead of an object"),
        (["steps", 0, "method"], 1, r"steps\[0\].method is a whole number instead of text"),
        (["numbers", "reference", "value"], None, "reference.value is null instead of a number"),
        (["numbers", "reference", "value"], True, "reference.value is true or false instead of"),
        (["runtimes", "fit"], "fast", "runtimes.fit is text instead of a number"),
        (["error"], "no phase", "error is text instead of an object or null"),
    ],
)  # fmt: skip
def test_values_of_another_kind_are_refused(path, value, message):
    with pytest.raises(DataError, match=message):
        AcquisitionRecord.from_json(changed(path, value))


@pytest.mark.parametrize(
    "path",
    [
        ["entities"],
        ["entities", "sub"],
        ["phase_reading", "decision"],
        ["phase_reading", "reason"],
        ["steps", 0, "step"],
        ["steps", 0, "method"],
        ["numbers", "reference", "value"],
        ["figures", 0, "path"],
        ["viewer", "folder"],
        ["error", "message"],
    ],
)
def test_mandatory_fields_are_named_when_missing(path):
    with pytest.raises(DataError, match=f"{path[-1]} is missing$"):
        AcquisitionRecord.from_json(changed(path, ...))


def test_warnings_of_records_from_before_are_findings():
    before = {"entities": {"sub": "01"}, "warnings": ["one", "two"]}
    found = AcquisitionRecord.from_json(before).findings
    assert found == (Finding("warning", "one"), Finding("warning", "two"))
    with pytest.raises(DataError, match=r"warnings is no field"):
        AcquisitionRecord.from_json({**before, "warnings": "one"})


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_a_record_is_an_object(content):
    with pytest.raises(DataError, match="^x.json: .* instead of an object$"):
        AcquisitionRecord.from_json(content, name="x.json")


def test_a_step_is_read_by_itself():
    step = {"step": "inversion", "method": "tv", "parameters": {"a": 1}}
    assert Step.from_json(step) == Step("inversion", "tv", "", {"a": 1})
    with pytest.raises(DataError, match="^step: method is missing"):
        Step.from_json({"step": "inversion"})


@pytest.mark.parametrize("pair", [("phase", "magnitude"), ("real", "imaginary")])
@pytest.mark.parametrize("coils", [1, 2])
def test_what_core_records_of_the_phase_is_a_reading(pair, coils):
    rng = np.random.default_rng(0)
    draw = {
        "phase": lambda: rng.uniform(-np.pi, np.pi, (12, 12, 12)),
        "magnitude": lambda: rng.rayleigh(1.0, (12, 12, 12)),
        "real": lambda: rng.normal(size=(12, 12, 12)),
        "imaginary": lambda: rng.normal(size=(12, 12, 12)),
    }
    parts = {
        name: [
            StoredEcho(f"{name}.nii", draw[name]().astype(np.float32),
                       metadata={"EchoTime": 0.004 * (1 + i // coils)})
            for i in range(2 * coils)
        ]
        for name in pair
    }  # fmt: skip
    found = read_acquisition(parts, (1.0, 1.0, 1.0), (0.0, 0.0, 1.0), coils=coils).record
    content = json.loads(json.dumps({"entities": {"sub": "01"}, "phase_reading": found}))
    reading = AcquisitionRecord.from_json(content).phase_reading
    assert reading.decision == found["decision"]
    assert reading.coils == coils
    assert reading.echo_times == (0.004, 0.008)


def test_what_is_planned_is_a_record(tmp_path):
    settings = Settings(tmp_path, tmp_path / "out", inversion=("tv", "tkd"), two_stage=0.3)
    sidecar = {"Manufacturer": "GE", "FlipAngle": 12, "PatientName": "Doe^Jane"}
    own = Acquisition(
        entities={"sub": "01"}, suffix="MEGRE", datatype="anat", phase=(str(tmp_path / "a.nii"),),
        echo_times=(0.004, 0.008), b0=3.0, shape=(4, 5, 6), voxel_size=(1, 1, 2),
        metadata=(sidecar,),
    )  # fmt: skip
    found = {**plan.static_part(settings, own), "steps": plan.steps(settings)}
    record = AcquisitionRecord.from_json(found)
    assert record.acquisition.flip_angle == 12
    assert len(record.steps) == len(plan.steps(settings))
    assert "Doe" not in json.dumps(record.to_json())
