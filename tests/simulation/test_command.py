"""`simulate` leaves a whole dataset or nothing, so that it can be given again."""

import pytest

from qsm_nipype import cli
from qsm_nipype.errors import DataError
from qsm_nipype.simulation import command


@pytest.fixture
def colin(monkeypatch):
    """The templates are not installed."""

    def absent():
        raise DataError("ch2.nii.gz: no such file; install mricron-data")

    monkeypatch.setattr(command, "load_colin", absent)


def test_without_templates_nothing_is_left_and_nothing_is_replaced(colin, tmp_path, capsys):
    out = tmp_path / "bids"
    assert cli.main(["simulate", str(out), "--anatomy", "colin"]) == 2
    assert "install mricron-data" in capsys.readouterr().err
    assert not out.exists()
    command.write_description(out)
    (out / "sub-01").mkdir()
    assert cli.main(["simulate", str(out), "--anatomy", "colin", "--overwrite"]) == 2
    assert (out / "sub-01").exists()


@pytest.mark.parametrize("existed", [True, False])
def test_what_fails_later_leaves_nothing_and_may_be_given_again(tmp_path, monkeypatch, existed):
    out = tmp_path / "bids"
    if existed:
        out.mkdir()
    whole = command.simulate_subject

    def second_fails(seed, **how):
        if seed == 2:
            raise MemoryError
        return whole(seed, **how)

    line = ["simulate", str(out), "--n", "2", "--voxel-size", "12"]
    monkeypatch.setattr(command, "simulate_subject", second_fails)
    assert cli.main(line) == 1
    assert out.exists() is existed and not (existed and any(out.iterdir()))
    monkeypatch.setattr(command, "simulate_subject", whole)
    assert cli.main(line) == 0
    assert (out / "sub-02").exists() and (out / "participants.tsv").exists()
