"""Around the graph: what is cleaned away, whose failure it was, what counts as done already."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest
import torch

from qsm_nipype import cli, plan
from qsm_nipype import settings as configuration
from qsm_nipype.dataset.acquisitions import Refusal
from qsm_nipype.errors import UsageError
from qsm_nipype.execution import resources, state
from qsm_nipype.record import AcquisitionRecord
from qsm_nipype.report.subject import write_subject_report
from qsm_nipype.run import output, preflight, states, submit
from qsm_nipype.run import participant as run
from qsm_nipype.run.failures import Failure, collect_failures
from qsm_nipype.run.outcome import Outcome
from qsm_nipype.settings import Settings
from qsm_nipype.system import manifest


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
    failures = collect_failures(chosen, [], ["graph.report_01"])
    assert [(f.label, f.subject) for f in failures] == [("sub-01", "01")]
    errors = {"report_01": {"message": "disk full"}, "sub-01": {"message": "disk full"}}
    page = write_subject_report(chosen.output_dir, "01", list(errors), errors)
    assert "disk full" in page.read_text()


def test_a_participant_counts_as_done_for_the_same_work_only(chosen):
    first = [Refusal({"sub": "01", "ses": "1"}, ""), Refusal({"sub": "02"}, "")]
    second = [*first, Refusal({"sub": "01", "ses": "2"}, "")]
    before, after = states.digests(chosen, [], first), states.digests(chosen, [], second)
    assert before["sub-02"] == after["sub-02"] and before["sub-01"] != after["sub-01"]
    masks = replace(chosen, derivatives=MappingProxyType({"masks": "/masks"}))
    assert states.digests(masks, [], first)["sub-02"] != before["sub-02"]


def test_a_container_sees_every_path_of_the_command_line(tmp_path):
    bids, elsewhere = tmp_path / "bids", tmp_path / "elsewhere"
    for folder in (bids, elsewhere):
        folder.mkdir()
    (elsewhere / "net.safetensors").touch()
    out = tmp_path / "out"
    chosen = Settings(bids, out, work_dir=tmp_path / "w")
    own = (bids, out, tmp_path / "w")
    assert submit.binds(chosen) == own
    masks = {"masks": str(elsewhere)}
    chosen = replace(chosen, derivatives=masks, bids_filter_file=tmp_path / "filter.json")
    chosen.bids_filter_file.touch()
    assert submit.binds(chosen) == (*own, tmp_path / "filter.json", elsewhere)


def test_a_job_makes_the_choices_of_its_submission(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["bids", "out", "participant", "--submit", "slurm", "--plugin", "SLURM"]
    line += ["--participant-label", "01", "--inversion", "tv,rts", "--mask", "quality&net:fill"]
    line += ["--set", "inversion.tv.regularization=4e-4", "--two-stage", "0.3", "-w", "w"]
    line += ["--weights", "mask=net.safetensors", "-d", "masks=own", "--device", "cpu"]
    line += ["--fail-on", "warning"]
    given = cli.parse(line)
    file = tmp_path / "settings.yml"
    file.write_text(configuration.to_yaml(submit._of_task(given)))
    expected = configuration.science(configuration.with_absolute_paths(given))
    monkeypatch.chdir("/")  # a job starts wherever SLURM puts it
    places = [str(given.bids_dir), str(given.output_dir), "participant"]
    job = cli.parse([*places, "--config-file", str(file), "--participant-label", "01"])
    assert (job.plugin, job.submit, job.device, job.work_dir, job.fail_on) == (
        Settings.plugin, None, "cpu", tmp_path / "w", "warning",
    )  # fmt: skip
    assert configuration.science(job) == expected
    assert job.derivatives == {"masks": str(tmp_path / "own")}


@pytest.mark.parametrize("cuda", [None, "12.8"])
def test_a_gpu_is_used_where_torch_can_use_it(monkeypatch, chosen, cuda):
    monkeypatch.setattr(resources, "gpu_ids", lambda *_: ["0"])
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert preflight.uses_gpu(chosen) is (cuda is not None)
    if cuda is None:
        with pytest.raises(UsageError, match="torch was installed without CUDA"):
            preflight.check_device(replace(chosen, device="cuda"))


def test_the_page_keeps_the_sessions_of_earlier_runs(tmp_path):
    from qsm_nipype.report.publish import publish_subject

    stored = tmp_path / "logs" / "records"
    stored.mkdir(parents=True)
    for entities in ('"sub": "01", "ses": "1"', '"sub": "01b"'):
        label = entities.replace('"', "").replace(": ", "-").replace(", ", "_")
        (stored / f"{label}.json").write_text(f'{{"entities": {{{entities}}}}}')
    new = AcquisitionRecord({"sub": "01", "ses": "2"})
    html = Path(publish_subject([new], tmp_path, subject="01", version="1")).read_text()
    assert "ses-1" in html and "ses-2" in html and "01b" not in html


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A run of two acquisitions that is over: 01 has its record, 02 failed."""
    out = tmp_path / "out"
    found = [SimpleNamespace(label=f"sub-{n}", subject=n) for n in ("01", "02")]
    monkeypatch.setattr(run, "find", lambda settings: (found, []))
    records = out / "logs" / "records"
    records.mkdir(parents=True)
    (records / "sub-01.json").write_text('{"entities": {"sub": "01"}}')
    (out / "logs" / "settings.yml").write_text("inversion: [tkd]\n")
    state.write(out, "sub-01", "done", settings="abc")
    fault = {**state.failure("graph.sub_02.tkd", "no phase"), "acquisition": "sub-02"}
    state.write(out, "sub-02", "failed", failures=[fault])
    return Settings(tmp_path / "bids", out, work_dir=tmp_path / "work", reports_only=True)


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_writing_reports_again_changes_nothing_but_pages(recorded):
    logs = recorded.output_dir / "logs"
    before = contents(logs)
    assert run.run(recorded) == 1  # 02 had failed
    assert contents(logs) == before
    pages = [path.name for path in recorded.output_dir.iterdir() if path.is_file()]
    assert sorted(pages) == ["sub-01.html", "sub-02.html"]
    assert "no phase" in (recorded.output_dir / "sub-02.html").read_text()
    assert not recorded.work_dir.exists()


def test_reports_without_records_are_refused_and_nothing_is_made(recorded, tmp_path):
    fresh = replace(recorded, output_dir=tmp_path / "fresh")
    with pytest.raises(UsageError, match="fresh: no record of the chosen acquisitions; run with"):
        run.run(fresh)
    assert not fresh.output_dir.exists()


def test_failures_of_an_acquisition_are_written_with_its_name(chosen):
    failure = Failure("sub-01_run-2", "01", "why", "graph.x")
    states.write_states(chosen, ["sub-01"], [Outcome(failure.label, "01", failure=failure)])
    assert state.read(chosen.output_dir, "sub-01").failures[0]["acquisition"] == "sub-01_run-2"


def test_the_source_datasets_are_relative_and_name_no_person(tmp_path):
    masks = tmp_path / "my masks"
    masks.mkdir()
    derivatives = MappingProxyType({"masks": str(masks / "brain.nii.gz")})
    (masks / "brain.nii.gz").touch()
    out = tmp_path / "out"
    settings = Settings(tmp_path / "my data", out, derivatives=derivatives)
    output.prepare_output(replace(settings, skip_bids_validation=True))
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["SourceDatasets"] == [{"URL": "bids:raw:"}]
    assert description["DatasetLinks"] == {"raw": "../my%20data", "masks": "../my%20masks"}
    assert str(tmp_path) not in (out / "dataset_description.json").read_text()


def test_the_page_shows_visits_and_runs_in_the_order_of_their_names(tmp_path):
    from qsm_nipype.report.publish import publish_subject

    visits = [("post", "1"), ("post", "2"), ("pre", "1"), ("pre", "2"), ("pre", "10")]
    every = [{"sub": "01", "ses": s, "run": r, "dir": "AP"} for s, r in visits]
    records = [AcquisitionRecord(entities) for entities in every]
    html = publish_subject(reversed(records), tmp_path, subject="01", version="1").read_text()
    places = [html.index(f'id="ses-{s}-dir-ap-run-{r}"') for s, r in visits]
    assert places == sorted(places)


@pytest.mark.parametrize("times", [(0.0023, 0.0046), (0.004, 0.008, 0.020)])
def test_arlo_is_refused_before_the_run_where_it_cannot_work(chosen, monkeypatch, times):
    size = {"shape": (80, 80, 60), "voxel_size": (3.0, 3.0, 3.0)}
    uneven = SimpleNamespace(entities={"sub": "01"}, echo_times=times, **size)
    even = SimpleNamespace(entities={"sub": "02"}, echo_times=(0.004, 0.008, 0.012), **size)
    monkeypatch.setattr(preflight, "find_acquisitions", lambda *_: ([uneven, even], []))
    found, refused = preflight.find(replace(chosen, relaxometry="arlo"))
    assert found == [even]
    assert "loglinear" in refused[0].reason and refused[0].entities == {"sub": "01"}
    assert preflight.find(chosen)[0] == [uneven, even]


def test_a_map_that_will_be_doubtful_is_said_to_be(chosen):
    small, large = (SimpleNamespace(voxel_size=(1.0, 1.0, v)) for v in (3.0, 6.0))
    assert plan._doubts(chosen, small) == []
    assert "6 mm are too large" in plan._doubts(chosen, large)[0]
    assert "fat" in plan._doubts(replace(chosen, mask="magnitude"), small)[0]
    own = replace(chosen, mask="magnitude", derivatives={"masks": "m.nii"})
    assert plan._doubts(own, small) == []


def test_a_graph_holds_so_many_participants_and_all_of_each(chosen):
    found = [SimpleNamespace(label=f"sub-{n:03d}_ses-{s}", subject=f"{n:03d}")
             for n in range(100) for s in "ab"]  # fmt: skip
    parts = run.batches(chosen, found, 4)
    assert [len(part) for part in parts] == [64, 64, 64, 8]
    assert [a.label for part in parts for a in part] == [a.label for a in found]
    assert len(run.batches(chosen, found, 64)) == 1
    assert len(run.batches(replace(chosen, plugin="SLURM"), found, 4)) == 1


def test_work_of_a_participant_is_cleaned_when_its_report_is_done(tmp_path):
    from nipype.interfaces.utility import IdentityInterface, Merge
    from nipype.pipeline import engine as pe

    from qsm_nipype.run.engine import cleaning

    whole = pe.Workflow("g", base_dir=str(tmp_path))
    for subject in ("01", "02"):
        own = pe.Workflow(f"sub_{subject}")
        own.add_nodes([pe.Node(IdentityInterface(["record"]), "outputnode")])
        join, report = (pe.Node(Merge(1), f"{k}_{subject}") for k in ("records", "report"))
        whole.connect(own, "outputnode.record", join, "in1")
        whole.connect(join, "out", report, "in1")
        for name in (own.name, join.name, report.name):
            (tmp_path / "g" / name).mkdir(parents=True)
    told = []
    tell = cleaning(whole, lambda node, status: told.append(status))
    for name, status in (
        ("report_01", "start"),
        ("records_01", "end"),
        ("report_02", "exception"),
    ):
        tell(SimpleNamespace(fullname=f"g.{name}"), status)
    assert len(list((tmp_path / "g").iterdir())) == 6
    tell(SimpleNamespace(fullname="g.report_01"), "end")
    left = sorted(p.name for p in (tmp_path / "g").iterdir())
    assert left == ["records_02", "report_02", "sub_02"] and len(told) == 4


def test_half_written_files_of_a_killed_run_go_at_the_next(tmp_path):
    kept, gone = [], []
    for place, name, ours in (
        ("sub-01/anat", "sub-01_Chimap.nii.gz", True), ("logs/records", "sub-01.json", True),
        ("logs/state", "sub-01.json", True), (".", "sub-01.html", True),
        ("sub-01/figures/sub-01_viewer", "viewer-axial.jpg", True),
        ("logs/state", "sub-010.json", False), ("sub-02/anat", "sub-02_Chimap.nii.gz", False),
    ):  # fmt: skip
        path = tmp_path / place / f".partial-{'0' * 32}-{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        (gone if ours else kept).append(path)
    output.remove_partial(tmp_path, ["sub-01"])
    assert all(p.exists() for p in kept) and not any(p.exists() for p in gone)


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (
            OSError(28, "No space left on device", "/out/x"),
            "/out/x: No space left on device; free",
            1,
        ),
        (MemoryError(), "out of memory", 1),
        (PermissionError(13, "Permission denied", "/out"), "/out: Permission denied; check it", 2),
    ],
)
def test_what_the_machine_refuses_is_one_sentence(
    monkeypatch, capsys, tmp_path, error, said, code
):
    def fail(settings):
        raise error

    monkeypatch.setattr(run, "run", fail)
    assert cli.main([str(tmp_path), str(tmp_path / "o"), "participant"]) == code
    assert said in capsys.readouterr().err


RESULT = gzip.compress(b"\x80\x04N.")


@pytest.mark.parametrize(
    "damage",
    [None, ("result_x.pklz", RESULT[:-5]), ("result_x.pklz", b""), ("result_x.pklz", b"noise"),
     ("phase.nii", b"ab"), ("phase.nii", b""), ("phase.nii", None), ("_sizes.json", b"")],
)  # fmt: skip
def test_a_step_whose_files_are_damaged_runs_again_and_no_other(tmp_path, damage):
    from qsm_nipype.run.engine import forget_damaged

    faults = {"maps": {"sub-01/a.nii.gz": "is empty"}, "figures": {}, "new": {"x": "is missing"}}

    def node(name):
        found = SimpleNamespace(notes_sizes=name in ("fit", "figures"))
        if name in faults:
            found.damaged = lambda: faults[name]
        return SimpleNamespace(interface=found)

    names = ["sub_01.wf.maps", "sub_01.wf.figures", "sub_01.wf.fit", "sub_01.wf.new"]
    for name in names[:3]:  # the last has not run yet
        folder = tmp_path / "g" / Path(*name.split("."))
        folder.mkdir(parents=True)
        (folder / "result_x.pklz").write_bytes(RESULT)
        (folder / "phase.nii").write_bytes(b"abc")
        manifest.remember_sizes(folder)
    if damage is not None and damage[1] is None:
        (tmp_path / "g" / "sub_01" / "wf" / "fit" / damage[0]).unlink()
    elif damage is not None:
        (tmp_path / "g" / "sub_01" / "wf" / "fit" / damage[0]).write_bytes(damage[1])
    graph = SimpleNamespace(
        base_dir=tmp_path, name="g", list_node_names=lambda: names,
        get_node=lambda name: node(name.rpartition(".")[2]),
    )  # fmt: skip
    assert forget_damaged(graph) == faults["maps"]
    left = sorted(p.name for p in (tmp_path / "g" / "sub_01" / "wf").iterdir())
    assert left == (["figures", "fit"] if damage is None else ["figures"])
