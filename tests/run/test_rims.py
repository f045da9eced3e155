"""Rims over a group: counts and agreement of network and readers."""

from __future__ import annotations

import csv
import json

import pytest

from qsm_nipype import cli
from qsm_nipype.errors import UsageError
from qsm_nipype.run.rims import AGREEMENT, COUNTS, Agreement, read_readers, write_rims

NETWORK = "1100001n"  # of eight lesions, the last not classified


@pytest.fixture
def out(tmp_path):
    """Two participants with the network's table; the lesions of sub-02 have no rim."""
    for label, calls in (("sub-01", NETWORK), ("sub-02", "00")):
        folder = tmp_path / label / "anat"
        folder.mkdir(parents=True)
        lines = ["index\trim_probability\trim\tcertainty"]
        for index, call in enumerate(calls, start=1):
            unclear = "indeterminate" if index == 2 else "clear"
            lines.append(f"{index}\t0.5\t{call.replace('n', 'n/a')}\t{unclear}")
        (folder / f"{label}_desc-lesions_dseg.tsv").write_text("\n".join(lines) + "\n")
        metrics = f"participant_id\tacquisition\tmask_volume\n{label}\t{label}\t1400\n"
        (folder / f"{label}_desc-qc_metrics.tsv").write_text(metrics)
    return tmp_path


def read(out, name, marks, label="sub-01"):
    lines = ["acquisition\tindex\trim\tcomment"]
    lines += [f"{label}\t{i}\t{mark}\tn/a" for i, mark in enumerate(marks, start=1)]
    (out / name).write_text("\n".join(lines) + "\n")


def table(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_kappa_is_that_of_a_book():
    known = Agreement(("a", "b"), both=20, only_1=5, only_2=10, neither=15)
    assert known.kappa == pytest.approx(0.4)  # seen 0.7, by chance 0.5
    assert Agreement(("a", "b"), 3, 0, 0, 9).kappa == pytest.approx(1)
    assert Agreement(("a", "b"), 0, 6, 6, 0).kappa == pytest.approx(-1)
    assert Agreement(("a", "b"), 0, 0, 0, 9).kappa is None  # no rim, nothing to agree on
    assert Agreement(("a", "b"), 0, 0, 0, 0).kappa is None


def test_the_group_counts_rims_by_reader_and_says_how_they_agree(out, capsys):
    read(out, "sub-01_rater-A_rims.tsv", ["1", "0", "0", "unsure", "0", "0", "1", "1"])
    read(out, "sub-01_rater-B_rims (1).tsv", ["1", "1", "0", "0", "n/a"])
    assert cli.main(["bids", str(out), "group"]) == 0
    first, second = table(out / f"{COUNTS}.tsv")
    assert (first["lesions"], first["rims_network"], first["indeterminate_network"]) == (
        "8", "3", "1")  # fmt: skip
    assert (first["read_A"], first["rims_A"], first["unsure_A"]) == ("8", "3", "1")
    assert (second["rims_network"], second["read_A"], second["rims_A"]) == ("0", "0", "n/a")
    pairs = {(row["reader_1"], row["reader_2"]): row for row in table(out / f"{AGREEMENT}.tsv")}
    assert set(pairs) == {("network", "A"), ("network", "B"), ("A", "B")}
    own = pairs["network", "A"]  # lesions 1 to 3 and 5 to 7
    assert [own[k] for k in ("lesions", "both_rim", "only_1", "only_2", "neither")] == [
        "6", "2", "1", "0", "3"]  # fmt: skip
    assert float(own["kappa"]) == pytest.approx(2 / 3, abs=1e-4)
    assert float(pairs["network", "B"]["kappa"]) == 1
    said = capsys.readouterr().out
    assert "rims: kappa of network and A is 0.67 over 6 lesions" in said
    for name in (COUNTS, AGREEMENT):
        words = json.loads((out / f"{name}.json").read_text())
        assert list(words) == list(table(out / f"{name}.tsv")[0])


def test_without_readers_there_are_counts_only_and_without_lesions_nothing(out, tmp_path_factory):
    (out / f"{AGREEMENT}.tsv").touch()
    (said,) = write_rims(out)
    assert said.endswith(f"{COUNTS}.tsv") and not (out / f"{AGREEMENT}.tsv").exists()
    assert write_rims(tmp_path_factory.mktemp("empty")) == []


def test_marks_of_unknown_lesions_are_named(out):
    read(out, "sub-09_rims.tsv", ["1"], label="sub-09")
    said = write_rims(out)
    assert "rims: readers marked what is not here: lesion 1 of sub-09" in said
    assert "rims: kappa of network and unnamed is n/a over 0 lesions" in said


def test_tables_that_contradict_each_other_or_are_none_are_refused(out):
    read(out, "sub-01_rater-A_rims.tsv", ["1"])
    read(out, "sub-01_rater-A_rims (1).tsv", ["0"])
    with pytest.raises(UsageError, match="A marked lesion 1 of sub-01 in two ways"):
        read_readers(out)
    read(out, "sub-01_rater-A_rims (1).tsv", ["maybe"])
    with pytest.raises(UsageError, match=r"rims \(1\).tsv: line 2: needs acquisition, index"):
        read_readers(out)
