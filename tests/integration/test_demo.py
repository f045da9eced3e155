"""The demo: simulate, process, score, and say where the report is."""

import pytest

from qsm_nipype import cli


@pytest.mark.slow
def test_demo_prints_scores_and_the_report(tmp_path, capsys):
    quick = ["--voxel-size", "4", "--inversion", "tkd", "--nprocs", "2"]
    assert cli.main(["demo", str(tmp_path), *quick]) == 0
    text = capsys.readouterr().out
    assert "against the simulated truth (scorer: qsm-ci)" in text
    scores = dict(line.split()[:2] for line in text.splitlines() if line.startswith("  "))
    assert 0 < float(scores["nrmse"]) < 150 and float(scores["xsim"]) > 0.1
    assert str(tmp_path / "derivatives" / "sub-01.html") in text


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path, capsys):
    (tmp_path / "bids").mkdir()
    assert cli.main(["demo", str(tmp_path)]) == 2
    assert "not a finished demo; choose another folder" in capsys.readouterr().err
