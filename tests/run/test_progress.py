"""Progress of a run: what is counted, and what `status` can read while it runs."""

from types import SimpleNamespace

from qsm_nipype.execution import state
from qsm_nipype.run.progress import Progress
from qsm_nipype.run.states import count_in_states
from qsm_nipype.settings import Settings


def node(name):
    return SimpleNamespace(fullname=name)


def test_finished_steps_of_a_participant_stand_in_its_state(tmp_path):
    settings = Settings(tmp_path, tmp_path)
    totals = {"sub_01_run_1": 2, "sub_01_run_2": 3, "sub_02": 4}
    subjects = {"sub_01_run_1": "sub-01", "sub_01_run_2": "sub-01", "sub_02": "sub-02"}
    progress = Progress(
        totals, subjects, tmp_path / "log", count_in_states(settings, totals, subjects)
    )
    progress(node("wf.sub_01_run_1.phase_wf.read"), "start")
    assert state.read(tmp_path, "sub-01") is None
    progress(node("wf.sub_01_run_1.phase_wf.read"), "end")
    progress(node("wf.sub_01_run_2.phase_wf.read"), "end")
    progress(node("wf.sub_01_run_2.phase_wf.outputnode"), "end")  # no step of the user's
    progress(node("wf.sub_02.phase_wf.read"), "exception")
    one, two = (state.read(tmp_path, f"sub-{label}") for label in ("01", "02"))
    assert (one.status, one.nodes_done, one.nodes_total) == ("running", 2, 5)
    assert (two.nodes_done, two.nodes_total) == (0, 4)
    state.write(tmp_path, "sub-01", "done")
    assert state.read(tmp_path, "sub-01").nodes_done == 2  # the last count is kept
    assert progress.failures == ["wf.sub_02.phase_wf.read"]
