"""Around the graph: what is cleaned away, whose failure it was, what counts as done already."""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest
import torch

from qsm_nipype import run
from qsm_nipype.bids import Refusal
from qsm_nipype.errors import UsageError
from qsm_nipype.execution import resources
from qsm_nipype.report.subject import write_subject_report
from qsm_nipype.settings import Settings


@pytest.fixture
def chosen(tmp_path) -> Settings:
    return Settings(tmp_path / "bids", tmp_path / "out", "participant")


def test_cleaning_leaves_the_results_of_other_runs(tmp_path):
    for name in ("sub_01", "report_01", "sub_02"):
        (tmp_path / "graph" / name).mkdir(parents=True)

    def clean(*nodes):
        names = SimpleNamespace(
            base_dir=tmp_path, name="graph", list_node_names=lambda: list(nodes)
        )
        run._clean(names)

    clean("sub_01.phase_wf.read", "sub_01.fit", "report_01")
    assert [p.name for p in (tmp_path / "graph").iterdir()] == ["sub_02"]
    clean("sub_02.phase_wf.read")
    assert not (tmp_path / "graph").exists()


def test_a_failed_report_belongs_to_its_participant_and_the_page_is_written(chosen):
    failures = run.collect_failures(chosen, [], ["graph.report_01"])
    assert [(f.label, f.subject) for f in failures] == [("sub-01", "01")]
    errors = {"report_01": {"message": "disk full"}, "sub-01": {"message": "disk full"}}
    page = write_subject_report(chosen.output_dir, "01", list(errors), errors)
    assert "disk full" in page.read_text()


def test_a_participant_counts_as_done_for_the_same_work_only(chosen):
    first = [Refusal({"sub": "01", "ses": "1"}, ""), Refusal({"sub": "02"}, "")]
    second = [*first, Refusal({"sub": "01", "ses": "2"}, "")]
    before, after = run._digests(chosen, [], first), run._digests(chosen, [], second)
    assert before["sub-02"] == after["sub-02"] and before["sub-01"] != after["sub-01"]
    masks = replace(chosen, derivatives=MappingProxyType({"masks": "/masks"}))
    assert run._digests(masks, [], first)["sub-02"] != before["sub-02"]


def test_a_container_sees_every_path_of_the_command_line(tmp_path):
    bids, elsewhere = tmp_path / "bids", tmp_path / "elsewhere"
    for folder in (bids, elsewhere):
        folder.mkdir()
    (elsewhere / "net.safetensors").touch()
    line = [
        str(bids),
        "-d",
        f"masks={elsewhere}",
        "--mask-weights",
        f"{elsewhere}/net.safetensors",
    ]
    assert run._binds([bids], line) == (bids, elsewhere)
    assert run._binds([bids], ["--set", "inversion.tv.tolerance=1e-4"]) == (bids,)


@pytest.mark.parametrize("cuda", [None, "12.8"])
def test_a_gpu_is_used_where_torch_can_use_it(monkeypatch, chosen, cuda):
    monkeypatch.setattr(resources, "gpu_ids", lambda *_: ["0"])
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert run.uses_gpu(chosen) is (cuda is not None)
    if cuda is None:
        with pytest.raises(UsageError, match="torch was installed without CUDA"):
            run._check_device(replace(chosen, device="cuda"))


def test_the_page_keeps_the_sessions_of_earlier_runs(tmp_path):
    from qsm_nipype.report.publish import publish_subject

    stored = tmp_path / "logs" / "records"
    stored.mkdir(parents=True)
    for entities in ('"sub": "01", "ses": "1"', '"sub": "01b"'):
        label = entities.replace('"', "").replace(": ", "-").replace(", ", "_")
        (stored / f"{label}.json").write_text(f'{{"entities": {{{entities}}}}}')
    new = {"entities": {"sub": "01", "ses": "2"}}
    html = Path(publish_subject([new], tmp_path, subject="01", version="1")).read_text()
    assert "ses-1" in html and "ses-2" in html and "01b" not in html
