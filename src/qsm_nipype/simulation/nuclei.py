"""Deep grey nuclei and ventricles of the procedural head, in MNI-like millimetres."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.head import rotation_matrix
from qsm_nipype.simulation.shapes import chain, crop, ellipsoid, join, smooth_noise, within

_LATERAL = [
    (9, 32, 0, 2.5), (8, 24, 8, 3.8), (7, 8, 16, 3.8), (9, -10, 19, 3.8), (14, -26, 18, 4.5),
    (24, -40, 10, 6.0), (31, -32, -6, 2.6), (32, -16, -17, 2.4), (28, -6, -22, 2.0),
]  # fmt: skip
_OCCIPITAL = [(24, -40, 10, 6.0), (24, -58, 8, 3.2), (21, -72, 6, 1.6)]


def ventricles(p: np.ndarray, enlargement: float) -> np.ndarray:
    """Signed distance to the four ventricles, widened by `enlargement` mm."""
    m = _mirror(p)
    lateral = np.minimum(chain(m, _LATERAL), chain(m, _OCCIPITAL))
    third = ellipsoid(p, (0, -12, 0), (2.4, 15, 11))
    hole = ellipsoid(p, (0, -14, 4), (4, 4, 3))  # the thalami touch here
    third = np.maximum(third, -hole)
    fourth = join(
        [ellipsoid(p, (0, -42, -33), (6, 4, 9)), ellipsoid(m, (6, -43, -36), (6, 3, 3))], 2.0
    )
    return np.minimum(np.minimum(lateral, third) - enlargement, fourth - 0.3 * enlargement)


def paint_nuclei(labels: np.ndarray, p: np.ndarray, rng: np.random.Generator) -> None:
    """Write the deep nuclei of both sides into `labels` in place."""
    where = within(p, (-44, -80, -56), (44, 44, 40))
    labels, p = labels[where], p[(slice(None), *where)]
    size = {name: float(rng.uniform(0.92, 1.1)) for name in range(1, 8)}
    for side in (-1.0, 1.0):
        m = _mirror(p, side)
        own = m[0] > -1.0
        shift = rng.normal(0.0, 0.5, 3)
        _paint_basal(labels, m - _column(shift), own, size)
        _paint_midbrain(labels, m - _column(shift * 0.5), own, size)
        paint_dentate(labels, m - _column(rng.normal(0.0, 0.7, 3)), own, size[lab.DENTATE], rng)
    _paint_choroid(labels, p)


def paint_midbrain_and_dentate(
    labels: np.ndarray, p: np.ndarray, rng: np.random.Generator
) -> None:
    """Write only red nuclei, substantia nigra and dentate nuclei, as an atlas may lack them."""
    where = within(p, (-44, -80, -56), (44, 44, 40))
    labels, p = labels[where], p[(slice(None), *where)]
    size = {name: float(rng.uniform(0.92, 1.1)) for name in range(1, 8)}
    for side in (-1.0, 1.0):
        m = _mirror(p, side)
        _paint_midbrain(labels, m - _column(rng.normal(0.0, 0.4, 3)), m[0] > 0, size)
        paint_dentate(
            labels, m - _column(rng.normal(0.0, 0.7, 3)), m[0] > 0, size[lab.DENTATE], rng
        )


def _paint_basal(
    labels: np.ndarray, m: np.ndarray, own: np.ndarray, size: dict[int, float]
) -> None:
    for label, _, inside in basal_shapes(m, size):
        _write(labels, inside & own, label)


def _paint_midbrain(
    labels: np.ndarray, m: np.ndarray, own: np.ndarray, size: dict[int, float]
) -> None:
    for label, _, inside in midbrain_shapes(m, size):
        _write(labels, inside & own, label)


def basal_shapes(
    m: np.ndarray, size: Mapping[int, float]
) -> Iterator[tuple[int, str, np.ndarray]]:
    """Tissue label, name and voxels of one side's nuclei of the cerebrum, later ones on top.

    `m` `(3, X, Y, Z)` are points (mm) whose first coordinate grows from the midline to that side.
    """
    bulge = 4.0 * np.exp(-(((m[0] - 15.0) / 6.0) ** 2) - ((m[1] + 30.0) / 8.0) ** 2)
    thalamus = ellipsoid(
        m, (11.0, -18.0, 7.0), _scaled((8.0, 15.0, 9.5), size, lab.THALAMUS), _yaw(22)
    )
    yield lab.THALAMUS, "thalamus", (thalamus - bulge < 0) & (m[0] > 1.6)
    s = size[lab.CAUDATE]
    body = [(13, 17, 0, 6.2 * s), (13.5, 11, 8, 6.0 * s), (15, 2, 17, 4.2 * s)]
    body += [(17, -10, 21, 2.9 * s), (22, -24, 20, 2.2 * s), (29, -36, 11, 1.8 * s)]
    body += [(34, -34, -2, 1.4 * s), (35, -20, -11, 1.2 * s)]
    yield lab.CAUDATE, "caudate nucleus", chain(m, body) < 0
    lens = ellipsoid(m, (26.0, 2.0, 0.5), _scaled((7.2, 16.5, 11.0), size, lab.PUTAMEN), _yaw(14))
    inner = ellipsoid(m, (16.5, -4.0, -1.5), (10.5, 16.0, 11.0), _yaw(24))
    yield lab.PUTAMEN, "putamen", (lens < 0) & (inner > 0)
    globus = ellipsoid(
        m, (19.5, -4.0, -1.0), _scaled((5.0, 9.5, 6.5), size, lab.PALLIDUM), _yaw(26)
    )
    yield lab.PALLIDUM, "pallidum", globus < 0
    accumbens = ellipsoid(m, (15.0, 10.0, -7.0), (7.0, 5.0, 4.0))
    yield lab.CAUDATE, "accumbens", accumbens < 0
    hippocampus = chain(m, [(23, -8, -20, 5), (29, -20, -15, 4.2), (27, -34, -4, 3)])
    yield lab.GREY_MATTER, "hippocampus", hippocampus < 0


def midbrain_shapes(
    m: np.ndarray, size: Mapping[int, float]
) -> Iterator[tuple[int, str, np.ndarray]]:
    """As `basal_shapes`, of the midbrain."""
    red = ellipsoid(m, (5.2, -20.5, -9.0), _scaled((3.1, 3.2, 4.2), size, lab.RED_NUCLEUS))
    yield lab.RED_NUCLEUS, "red nucleus", red < 0
    tilt = _yaw(-38) @ _roll(25)
    nigra = ellipsoid(
        m, (10.0, -16.5, -12.0), _scaled((5.6, 2.2, 6.0), size, lab.SUBSTANTIA_NIGRA), tilt
    )
    yield lab.SUBSTANTIA_NIGRA, "substantia nigra", (nigra < 0) & (red > 0.8)
    subthalamic = ellipsoid(m, (11.0, -14.0, -5.5), (4.2, 1.8, 2.2), tilt)
    yield lab.SUBSTANTIA_NIGRA, "subthalamic nucleus", subthalamic < 0


def paint_dentate(
    labels: np.ndarray,
    m: np.ndarray,
    own: np.ndarray,
    size: float,
    rng: np.random.Generator,
) -> None:
    """A bag of grey matter with folded walls, open towards the midline and the front."""
    near = np.abs(m - _column((15.5, -57.0, -34.5))).max(0) < 18
    if not near.any():
        return
    where = crop(near)
    q = m[(slice(None), *where)]
    center, radii = (15.5, -57.0, -34.5), (8.2 * size, 9.0 * size, 6.2 * size)
    turn = _yaw(-28)
    bag = ellipsoid(q, center, radii, turn)
    folds = smooth_noise(rng, 5.0, bandwidth=0.3, extent=24.0)
    away = q - _column(center)
    onto = away / np.maximum(np.sqrt((away**2).sum(0)), 0.5) * 8.0
    crest = folds.at(onto)[0]
    wall = np.abs(bag + 1.3 + 1.1 * np.clip(crest, -1.5, 1.5)) - float(rng.uniform(0.85, 1.2))
    hilum = ellipsoid(q, (9.0, -49.0, -32.5), (6.0, 6.0, 3.6))
    _write(labels[where], (wall < 0) & (hilum > 0) & own[where], lab.DENTATE)


def _paint_choroid(labels: np.ndarray, p: np.ndarray) -> None:
    plexus = chain(_mirror(p), [(22, -38, 13, 2.2), (25, -40, 5, 3.0), (30, -34, -3, 1.2)])
    labels[(plexus < 0) & (labels == lab.CSF)] = lab.CHOROID_PLEXUS


def _write(labels: np.ndarray, where: np.ndarray, label: int) -> None:
    labels[where & (labels != lab.CSF)] = label


def _mirror(p: np.ndarray, side: float | None = None) -> np.ndarray:
    first = np.abs(p[:1]) if side is None else side * p[:1]
    return np.concatenate([first, p[1:]])


def _column(values: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32).reshape(3, 1, 1, 1)


def _scaled(radii: Sequence[float], size: Mapping[int, float], label: int) -> list[float]:
    return [r * size[label] for r in radii]


def _yaw(degrees: float) -> np.ndarray:
    return rotation_matrix((0.0, 0.0, degrees))


def _roll(degrees: float) -> np.ndarray:
    return rotation_matrix((0.0, degrees, 0.0))
