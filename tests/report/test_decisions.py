"""How the phase was read, in sentences."""

from __future__ import annotations

from qsm_nipype.record import PhaseReading
from qsm_nipype.report.decisions import Decision, describe_reading


def test_every_decision_is_named_with_its_reason():
    reading = PhaseReading(
        decision="radians", reason="the values span one turn", slope=(1.0,), kind="one echo",
        units_in_sidecar=("none",), stored_range=((0.0, 4094.0), (1.0, 4095.0)), fill_value=-1.0,
        voxels_without_signal=77, sign_agreement=-0.5, sign_inverted=True, coils=8,
        alternating_slices_axis=(0, 1),
    )  # fmt: skip
    assert describe_reading(reading) == (
        Decision("Unit: radians", "the values span one turn"),
        Decision("One echo"),
        Decision("Stored values 0 to 4095", "Units in the sidecar: none; slope 1"),
        Decision("77 voxels left out", "they hold the value −1 in every echo"),
        Decision("Coils combined", "8 coils were stored one by one"),
        Decision("Alternating sign undone", "slices along axis 0, 1 alternate"),
        Decision("Sign inverted", "agreement of the field with a head in air: −0.5 (−1 to 1)"),
    )


def test_what_was_not_recorded_is_not_named():
    reading = PhaseReading("real and imaginary parts", "such files were given")
    assert describe_reading(reading) == (
        Decision("Unit: real and imaginary parts", "such files were given"),
    )
