import numpy as np
import pytest

from qsm_nipype.core import GYROMAGNETIC_RATIO, given
from qsm_nipype.errors import DataError


@pytest.fixture(scope="module")
def tissue():
    """Smooth random values of SD 1 in a ball, 0 outside."""
    rng = np.random.default_rng(0)
    x, y, z = np.indices((24, 24, 24)) - 11.5
    return np.where(x**2 + y**2 + z**2 < 100, rng.standard_normal((24, 24, 24)), 0)


@pytest.mark.parametrize("b0", [0.5, 3.0, 7.0])
def test_a_field_is_the_same_in_every_unit(b0):
    te, ppm = 0.02, 0.03
    hertz = ppm * GYROMAGNETIC_RATIO * b0
    values = {"ppm": ppm, "ppb": 30.0, "Hz": hertz, "rad/s": 2 * np.pi * hertz,
              "rad": 2 * np.pi * hertz * te}  # fmt: skip
    assert set(values) == set(given.UNITS)
    for name, value in values.items():
        unit = given.unit_of("localfield", name, b0=b0, echo_time=te)
        assert unit.factor * value == pytest.approx(ppm)


@pytest.mark.parametrize(
    ("kind", "unit", "said"),
    [
        ("chi", "Hz", "give it in ppm or ppb"),
        ("localfield", "Hz", "add MagneticFieldStrength"),
        ("totalfield", "furlong", "no unit"),
    ],
)
def test_units_that_cannot_be_are_refused_with_the_cure(kind, unit, said):
    with pytest.raises(DataError, match=said):
        given.unit_of(kind, unit)
    with pytest.raises(DataError, match="add EchoTime"):
        given.unit_of("localfield", "rad", b0=3.0)


@pytest.mark.parametrize(
    ("kind", "sd", "said"),
    [
        ("chi", 0.03, ""),
        ("chi", 30.0, "looks like ppb; name the unit by --units"),
        ("chi", 3e-8, "another unit"),
        ("localfield", 0.01, ""),
        ("localfield", 0.01 * 3 * GYROMAGNETIC_RATIO, "looks like Hz"),
        ("localfield", 10.0, "looks like Hz"),
        ("totalfield", 0.15, ""),
        ("totalfield", 20.0, "looks like Hz"),
    ],
)
def test_the_spread_tells_the_unit(tissue, kind, sd, said):
    def check():
        given.check_spread(kind, tissue * sd, tissue != 0, "--units")

    if not said:
        return check()
    with pytest.raises(DataError, match=said):
        check()


def test_phantoms_are_told_from_tissue(tissue):
    inside = tissue != 0
    painted = np.where(inside, np.where(tissue > 2.5, 0.5, 0.1), 0)
    assert given.is_painted(painted, inside) and not given.is_painted(tissue, inside)
    measured = painted + 1e-3 * tissue
    assert given.is_uniform(measured, inside) and not given.is_uniform(tissue, inside)
    with pytest.raises(DataError, match="drawn phantom"):
        given.check_spread("chi", painted, inside, "--units")


def test_the_mask_is_where_there_is_a_finite_value_other_than_zero():
    values = np.array([[[0.0, np.nan, np.inf, 0.1, -0.2]]])
    assert given.known(values).tolist() == [[[False, False, False, True, True]]]
    assert given.is_full(np.ones((3, 3, 3), bool))
    assert [given.spelled(s) for s in ("PPM", " hz", "radians", "mT")] == ["ppm", "Hz", "rad", ""]
