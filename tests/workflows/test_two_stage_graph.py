"""The second stage in the graph: behind the inversion, before the reference."""

from dataclasses import replace

import pytest

from qsm_nipype import plan
from qsm_nipype.cli import parse
from qsm_nipype.errors import UsageError
from qsm_nipype.record import Step
from qsm_nipype.report.methods_text import write_methods
from qsm_nipype.settings import Settings, check
from qsm_nipype.workflows.inversion import init_inversion_wf
from qsm_nipype.workflows.nodes import Resources

SIZE = Resources(32**3, 3)


@pytest.mark.parametrize("method", ["tv", "tgv"])
def test_the_reference_takes_the_joined_map(method):
    workflow = init_inversion_wf(
        3.0,
        0.01,
        SIZE,
        inversions=[method],
        reference="brain",
        two_stage=0.4,
        background="lbv_tfi",
    )
    second = workflow.get_node(f"second_{method}")
    assert second.get_node("leave_out").inputs.threshold == 0.4
    assert second.get_node(method).inputs.b0 == 3.0
    assert (second.get_node("background") is None) == (method == "tgv")
    flat = workflow._create_flat_graph()
    feeding = {u.name for u, v in flat.edges() if v.name == f"reference_{method}"}
    assert "join" in feeding or "outputnode" in feeding
    assert method not in feeding


def test_the_option_takes_a_positive_number(tmp_path):
    settings = parse([str(tmp_path), str(tmp_path), "participant", "--two-stage", "0.3"])
    assert settings.two_stage == 0.3
    with pytest.raises(UsageError, match="above 0 ppm"):
        check(replace(settings, two_stage=-1.0))


def test_one_stage_has_no_second():
    workflow = init_inversion_wf(3.0, 0.01, SIZE, inversions=["tv"], reference="brain")
    assert workflow.get_node("second_tv") is None


def test_record_and_methods_tell_it(tmp_path):
    settings = Settings(bids_dir=tmp_path, output_dir=tmp_path, two_stage=0.25)
    names = [step["step"] for step in plan.steps(settings)]
    place = names.index("two_stage")
    assert names[place - 1] == "inversion" and names[place + 1] == "reference"
    text = write_methods(
        [Step("two_stage", "robust", parameters={"threshold": 0.25})], version="1"
    )
    assert "above 0.25 ppm" in text.paragraph and "Stewart" in str(text)
