"""A misspelt word gets one sentence with the word that was meant."""

import pytest

from qsm_nipype import cli

RUN = ["/nowhere/bids", "/nowhere/out", "participant"]


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["metods"], "methods"),
        (["segmnt", "a", "b"], "segment"),
        (["train", "qsmgn", "out"], "qsmgan"),
        (["stage", "dipol", "a", "b"], "dipole"),
        (["evaluate", "rm"], "rim"),
        ([*RUN[:2], "partcipant"], "participant"),
        ([*RUN, "--inverson", "tv"], "--inversion"),
        ([*RUN, "--participant-lable=01"], "--participant-label"),
        ([*RUN, "--inversion", "whvt"], "whtv"),
        ([*RUN, "--preset", "defalt"], "default"),
        ([*RUN, "--set", "inversion.tv.tolerence=1"], "tolerance"),
        ([*RUN, "-d", "mask=/x"], "masks"),
        (["demo", "out", "--inverson", "tv"], "--inversion"),
    ],
)
def test_a_misspelt_word_is_told_with_the_one_that_was_meant(argv, meant, capsys, tmp_path):
    try:
        code = cli.main([str(tmp_path / word) if word == "out" else word for word in argv])
    except SystemExit as exit:
        code = exit.code
    shown = capsys.readouterr()
    assert code == 2 and not shown.out and shown.err.count("\n") == 1
    assert f"did you mean {meant}?" in shown.err
    assert not (tmp_path / "out").exists()


def test_a_setting_of_a_file_is_told_likewise(tmp_path, capsys):
    file = tmp_path / "settings.yml"
    file.write_text("inverson: tv")
    assert cli.main([*RUN, "--config-file", str(file)]) == 2
    assert "did you mean inversion?" in capsys.readouterr().err


def test_evaluate_has_a_help(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", "--help"])
    assert end.value.code == 0 and "rim" in capsys.readouterr().out
