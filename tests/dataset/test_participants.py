"""Ages as the dataset's tables say them."""

import pytest

from qsm_nipype.dataset.participants import age_of


@pytest.mark.parametrize(
    ("cell", "age"), [("34", 34), ("34.5", 34.5), ("89+", 89), (">89", 89), ("n/a", None),
                      ("", None), ("999", None)],
)  # fmt: skip
def test_age_by_participant(tmp_path, cell, age):
    (tmp_path / "participants.tsv").write_text(
        f"participant_id\tsex\tage\nsub-01\tF\t{cell}\nsub-02\tM\t70\n"
    )
    assert age_of(tmp_path, {"sub": "01"}) == age
    assert age_of(tmp_path, {"sub": "02"}) == 70
    assert age_of(tmp_path, {"sub": "03"}) is None


def test_a_session_knows_better_and_no_table_knows_nothing(tmp_path):
    assert age_of(tmp_path, {"sub": "01"}) is None
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-01\t40\n")
    (tmp_path / "sub-01").mkdir()
    table = tmp_path / "sub-01" / "sub-01_sessions.tsv"
    table.write_text("session_id\tage\nses-1\t41\nses-2\tn/a\n")
    ages = [age_of(tmp_path, {"sub": "01", "ses": s}) for s in ("1", "2", "3")]
    assert ages == [41, 40, 40]
