"""What nodes report under three lists reaches the record as findings, and its sum as a light."""

from __future__ import annotations

import json

import pytest

from qsm_nipype.dataset.derivatives import qc_table, sidecar_of
from qsm_nipype.interfaces.records import JoinRecords
from qsm_nipype.record import AcquisitionRecord

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
