"""What nodes report under three lists reaches the record as findings, and its sum as a light."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.dataset.derivatives import qc_table, sidecar_of
from qsm_nipype.interfaces.records import JoinRecords
from qsm_nipype.record import AcquisitionRecord
from qsm_nipype.volume import Volume, save

READING = {"decision": "radians", "reason": "r"}


@pytest.fixture
def joined(tmp_path, monkeypatch):
    """The record of nodes that reported what `reports` holds, by step."""
    monkeypatch.chdir(tmp_path)

    def join(static=None, **reports):
        node = JoinRecords(acquisition={"entities": {"sub": "01"}, **(static or {})}, steps=[])
        for step, content in reports.items():
            path = tmp_path / f"{step}.json"
            path.write_text(json.dumps(content))
            setattr(node.inputs, f"from_{step}", [str(path)])
        return json.loads(open(node.run().outputs.out_acquisition).read())

    return join


@pytest.mark.parametrize(
    ("report", "light"),
    [({}, "green"), ({"notes": ["x"]}, "green"), ({"warnings": ["x"]}, "yellow"),
     ({"errors": ["x"], "warnings": ["y"]}, "red"),
     ({"numbers": {"n": {"value": 9.0, "unit": "", "description": "d", "usual": [0, 1],
                         "judgement": "bad", "reason": "r"}}}, "red")],
)  # fmt: skip
@pytest.mark.parametrize("step", ["read", "reference", "lesions"])
def test_severities_travel_from_any_node_to_record_table_and_sidecar(joined, step, report, light):
    record = joined(**{step: {**(READING if step == "read" else {}), **report}})
    again = AcquisitionRecord.from_json(record)
    assert again.verdict.light == light
    lists = {f"{f.severity}s": f.text for f in again.findings if f.step == step}
    assert lists == {name: texts[0] for name, texts in report.items() if name != "numbers"}
    header, row = (line.split("\t") for line in qc_table(record)[0].splitlines())
    table = dict(zip(header, row, strict=True))
    counts = [len(report.get(name, [])) for name in ("errors", "warnings")]
    counts[0] += "numbers" in report
    assert (table["verdict"], table["errors"], table["warnings"]) == (light, *map(str, counts))
    chi = sidecar_of("chi", record)
    assert chi["Verdict"] == light and len(chi["VerdictReasons"]) == sum(counts)


def test_what_was_known_before_the_run_comes_first(joined):
    static = {"findings": [{"severity": "warning", "text": "no FLAIR", "step": ""}]}
    record = joined(static, fit={"errors": ["worse"], "warnings": ["no FLAIR"]})
    assert [f["text"] for f in record["findings"]] == ["no FLAIR", "worse"]
    assert record["verdict"] == {"light": "red", "reasons": ["worse", "no FLAIR"]}


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """Maps of a ball of tissue: files by port, at 3 mm."""
    folder = tmp_path_factory.mktemp("maps")
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[3.0 * (np.arange(48) - 23.5)] * 3, indexing="ij")
    far = np.sqrt(sum(a**2 for a in axes))
    tissue = gaussian_filter(rng.standard_normal(far.shape), 1.0)
    iron = 0.12 * (np.hypot(np.abs(axes[0]) - 15, np.hypot(axes[1], axes[2])) < 10)
    chi = torch.from_numpy(0.015 * tissue / tissue.std() + iron).float()
    chi *= torch.from_numpy(far < 64)
    local = dipole_field(chi, (3.0, 3.0, 3.0), (0.0, 0.0, 1.0)).numpy()
    maps = {"mask": far < 68, "mask_chi": far < 62, "local_field": local, "total_field": local,
            "noise": np.full(far.shape, 1e-3), "chi": chi.numpy()}  # fmt: skip
    like = Volume(np.zeros(far.shape, np.float32), np.diag([3.0, 3.0, 3.0, 1.0]))
    return {
        name: str(save(folder / f"{name}.nii.gz", torch.as_tensor(data).float(), like))
        for name, data in maps.items()
    }


def test_what_a_reader_sees_reaches_the_verdict(head, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scan = {"echo_times": [0.004, 0.012], "field_strength": 3.0}
    found = {}
    for name, chi in (("good", "chi"), ("bad", "total_field")):
        maps = {**head, "chi": head[chi]}
        node = JoinRecords(acquisition={"entities": {"sub": "01"}, "acquisition": scan}, steps=[])
        for port, path in maps.items():
            setattr(node.inputs, f"in_{port}", [path] if port == "chi" else path)
        content = json.loads(Path(node.run().outputs.out_acquisition).read_text())
        found[name] = AcquisitionRecord.from_json(content)
    good, bad = found["good"], found["bad"]
    assert good.verdict.light == "green", good.verdict
    number = good.numbers["field_jumps"]
    assert (number.judgement, number.usual[0], number.value) == ("ok", None, 0.0)
    assert good.numbers["mask_volume"].judgement == "ok"
    # a field that is called χ
    assert bad.verdict.light == "red"
    assert any(number.description in bad.verdict.reasons[0] for number in bad.numbers.values())
