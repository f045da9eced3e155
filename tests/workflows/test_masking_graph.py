"""Masks by name and joined: which nodes the graph gets, and early refusals."""

import importlib.util

import pytest

from qsm_nipype.errors import UsageError
from qsm_nipype.plan import steps
from qsm_nipype.run.preflight import check_programs
from qsm_nipype.settings import Settings, check
from qsm_nipype.workflows.masking import init_masking_wf
from qsm_nipype.workflows.nodes import Resources

SIZE = Resources(32**3, 3)


def test_joined_masks_are_intersected():
    workflow = init_masking_wf(SIZE, trim="reliable", mask="brain&quality")
    join, edit = workflow.get_node("join"), workflow.get_node("edit")
    ports = dict(workflow._graph.get_edge_data(join, edit)["connect"])
    assert ports == {"out": "in_masks"}
    makers = {node.name for node in workflow._graph.predecessors(join)}
    assert makers == {"brain", "quality"}


def test_a_part_is_edited_before_the_intersection():
    workflow = init_masking_wf(
        SIZE, trim="reliable", mask="brain&quality:dilate:3", operations="fill"
    )
    join = workflow.get_node("join")
    edited = workflow.get_node("edit2")
    assert edited.inputs.operations == "dilate:3"
    assert set(workflow._graph.predecessors(join)) == {workflow.get_node("brain"), edited}
    assert [n.name for n in workflow._graph.predecessors(edited)] == ["quality"]


@pytest.mark.parametrize(
    "chosen", [{"mask": "brain&quality:grow:3"}, {"mask_operations": "erode:1,grow:3"}]
)
def test_a_bad_operation_is_refused_before_anything_runs(tmp_path, chosen):
    with pytest.raises(UsageError, match=r"'grow:3' is unknown"):
        check(Settings(bids_dir=tmp_path, output_dir=tmp_path, **chosen))


def test_edits_are_in_the_record(tmp_path):
    def edits(**chosen):
        settings = Settings(bids_dir=tmp_path, output_dir=tmp_path, **chosen)
        return [s["parameters"] for s in steps(settings) if s["method"] in ("combined", "edited")]

    rule = "brain&quality:dilate:3"
    assert edits(mask=rule, mask_operations="fill") == [{"rule": rule, "operations": "fill"}]
    assert edits(mask="brain", mask_operations="fill") == [{"rule": "brain", "operations": "fill"}]
    assert edits(mask="brain") == []


def test_unknown_parts_are_refused():
    with pytest.raises(UsageError, match="choose from"):
        init_masking_wf(SIZE, trim="reliable", mask="brain&nothing")


def test_joined_masks_are_all_in_the_record(tmp_path):
    settings = Settings(bids_dir=tmp_path, output_dir=tmp_path, mask="brain&quality")
    assert [m.name for m in settings.chosen() if m.step == "mask"] == ["brain", "quality"]


def test_a_missing_extra_is_refused_with_its_cure(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "deepbet" else find(name)
    )
    settings = Settings(bids_dir=tmp_path, output_dir=tmp_path, mask="deepbet")
    with pytest.raises(UsageError, match=r"pip install 'qsm-nipype\[deepbet\]'"):
        check_programs(settings)
