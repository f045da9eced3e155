"""What the inversions of one run are given."""

from qsm_nipype.plan import steps
from qsm_nipype.settings import Settings
from qsm_nipype.workflows.inversion import init_inversion_wf
from qsm_nipype.workflows.nodes import Resources, has_port

SIZE = Resources(32**3, 3)


def test_medi_gets_the_csf_that_the_reference_names(tmp_path):
    region = tmp_path / "csf.nii"
    region.touch()
    chosen = {"inversions": ("medi", "tv"), "region": str(region)}
    workflow = init_inversion_wf(3.0, 0.01, SIZE, reference="csf", **chosen)
    assert workflow.get_node("medi").inputs.in_csf == str(region)
    assert not has_port(workflow.get_node("tv"), "in_csf")
    other = init_inversion_wf(3.0, 0.01, SIZE, reference="region", **chosen)
    assert not isinstance(other.get_node("medi").inputs.in_csf, str)


def test_medi_plus_zero_is_in_the_record(tmp_path):
    def told(reference):
        settings = Settings(
            bids_dir=tmp_path, output_dir=tmp_path, inversion=("medi",), reference=reference
        )
        return [s["parameters"].get("uniform") for s in steps(settings) if s["method"] == "medi"]

    assert told("csf") == ["cerebrospinal fluid"]
    assert told("brain") == [None]
