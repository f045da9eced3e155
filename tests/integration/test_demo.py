"""The demo: simulate, process, score, and say where the report is."""

import argparse

import numpy as np
import pytest

from qsm_nipype import cli
from qsm_nipype.commands import demo
from qsm_nipype.errors import UsageError


@pytest.mark.slow
def test_demo_prints_scores_and_the_report(tmp_path, capsys):
    quick = ["--voxel-size", "4", "--inversion", "tkd", "--nprocs", "2"]
    assert cli.main(["demo", str(tmp_path), *quick]) == 0
    text = capsys.readouterr().out
    assert "against the simulated truth (scorer: qsm-ci)" in text
    scores = dict(line.split()[:2] for line in text.splitlines() if line.startswith("  "))
    scores["brain"] = next(line for line in text.splitlines() if "brain kept" in line).split()[2]
    assert 0 < float(scores["nrmse"]) < 150 and float(scores["xsim"]) > 0.1
    assert str(tmp_path / "derivatives" / "sub-01.html") in text
    assert "% of the squared error lies in the outermost layer" in text
    page = (tmp_path / "derivatives" / "sub-01.html").read_text()
    nrmse = f"NRMSE {float(scores['nrmse']):.0f} % in {float(scores['brain']):.0f} % of the brain"
    assert page.count("sub-01_desc-truth_figure.png") == 2 and nrmse in page
    assert page.index("desc-truth_figure") < page.index('class="card slice-viewer"')


def test_a_demo_that_was_cut_short_is_simulated_again(tmp_path, monkeypatch):
    options = argparse.Namespace(seed=2, voxel_size=9.0)
    bids = tmp_path / "bids"
    demo._simulate(bids, argparse.Namespace(seed=1, voxel_size=9.0))

    def cut_short(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("qsm_nipype.simulation.command.write_scan", cut_short)
        with pytest.raises(KeyboardInterrupt):
            demo._simulate(bids, options)
    stamp = bids / "code" / "demo.txt"
    assert stamp.read_text() == "unfinished"
    demo._simulate(bids, options)
    assert stamp.read_text() == "2 9.0" and len(list(bids.glob("sub-*/anat/*.nii.gz"))) == 8


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path, capsys):
    (tmp_path / "bids").mkdir()
    assert cli.main(["demo", str(tmp_path)]) == 2
    assert "not a finished demo; choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["6", "0"])
def test_voxels_that_cannot_show_susceptibility_are_refused(tmp_path, size):
    with pytest.raises(UsageError, match="voxel-size"):
        demo.main([str(tmp_path / "demo"), "--voxel-size", size, "--mask", "magnitude"])
    assert not (tmp_path / "demo").exists()


def test_the_place_of_the_error_is_described():
    truth = np.zeros((12, 12, 12))
    inside = np.zeros(truth.shape, bool)
    inside[2:10, 2:10, 2:10] = True
    chi = np.where(inside, 0.1, 0.0)
    chi[2, 5, 5] = 0.5
    said = demo.describe_error(chi, truth, inside, 1.0)
    assert said.startswith(
        "100 % of the squared error lies in the outermost layer of voxels, 58 %"
    )
    assert "--voxel-size 1" in demo.describe_error(chi, truth, inside, 2.0)
