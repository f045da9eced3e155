"""Brain regions full of MS lesions, some with a paramagnetic rim, most made to look like one.

Training data for rim classification: a cube of the procedural head around the ventricles, with
lesions painted at twice the grid's resolution, so that a rim thinner than a voxel has its partial
volume. What stands against the rims: homogeneous iron-rich lesions with sharp or soft edges,
patchy iron, remyelinated lesions whose core is diamagnetic, short arcs, and veins through lesions
or along them; and, from the head, cortex, nuclei and ventricles close by. Rims after
[Absinta2018]_ and [Zhang2022]_. Every number is a choice of ours, not a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import distance_transform_edt, shift
from scipy.stats import nbinom

from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.contrast import flair
from qsm_nipype.simulation.head import Head, grid_affine, rotation_matrix
from qsm_nipype.simulation.heads import procedural
from qsm_nipype.simulation.shapes import Noise, smooth_noise
from qsm_nipype.simulation.tissue import PROPERTIES, Tissue, random_contrast, tissue_maps

#: chances of the kinds of a lesion without rim
KINDS = {"iso": 0.28, "bright": 0.34, "soft": 0.12, "patchy": 0.12, "hollow": 0.08, "arc": 0.06}


@dataclass(frozen=True)
class Plan:
    """One lesion: lengths in mm, susceptibilities in ppm on top of the tissue's.

    `core` fills the lesion, rising over `edge` from its surface; `rim` is the strength of a shell
    of `thickness` that covers the fraction `cover` of the surface; `patches` the amplitude of
    blotches inside; `veins` how far from the centre (fraction of the radius) veins pass.
    """

    kind: str
    radius: float
    core: float
    edge: float = 0.3
    rim: float = 0.0
    thickness: float = 0.0
    cover: float = 0.0
    patches: float = 0.0
    veins: tuple[float, ...] = ()

    @property
    def positive(self) -> bool:
        """Whether this counts as a lesion with a paramagnetic rim."""
        return self.kind == "rim"


@dataclass(frozen=True)
class Region:
    """A cube of a head with lesions. Arrays `(X, Y, Z)`: `tissue.chi` in ppm relative to water.

    `instances` (uint8; 1, 2 …) is the lesion mask as drawn on the `flair` image, so it follows
    that image's displacement; `plans[i]` is the truth of instance i + 1, `centers[i]` its middle
    (voxel).
    """

    head: Head
    tissue: Tissue
    flair: np.ndarray
    instances: np.ndarray
    plans: tuple[Plan, ...]
    centers: tuple[tuple[int, int, int], ...]


def draw_plan(rng: np.random.Generator, rim: bool) -> Plan:
    """A random lesion with or without rim."""
    veins = tuple(float(v) for v, chance in ((0.0, 0.45), (0.95, 0.22)) if rng.random() < chance)
    if rim:
        radius = float(np.clip(rng.lognormal(1.52, 0.27), 3.0, 9.0))
        return Plan(
            "rim",
            radius,
            core=float(rng.normal(0.015, 0.015)),
            edge=float(rng.uniform(0.2, 1.0)),
            rim=float(np.clip(rng.lognormal(-2.6, 0.35), 0.03, 0.18)),
            thickness=float(np.clip(rng.lognormal(0.28, 0.28), 0.7, 2.4)),
            cover=float(np.clip(rng.uniform(0.5, 1.15), 0.5, 1.0)),
            veins=veins,
        )
    radius = float(np.clip(rng.lognormal(1.30, 0.38), 1.6, 9.0))
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    bright = float(np.clip(rng.lognormal(-3.3, 0.5), 0.01, 0.12))
    plan = Plan(kind, radius, core=bright, edge=float(rng.uniform(0.2, 1.0)), veins=veins)
    if kind == "iso":
        return replace(plan, core=float(rng.normal(0.0, 0.01)))
    if kind == "soft":
        return replace(plan, edge=float(rng.uniform(0.5, 1.0)) * radius)
    if kind == "patchy":
        return replace(plan, core=0.4 * bright, patches=float(rng.uniform(0.02, 0.09)))
    if kind == "hollow":  # a diamagnetic middle in ordinary surroundings
        return replace(plan, core=-float(rng.uniform(0.01, 0.05)), edge=0.4 * radius)
    if kind == "arc":
        thickness, cover = float(rng.uniform(0.7, 2.0)), float(rng.uniform(0.06, 0.22))
        return replace(
            plan,
            core=float(rng.normal(0.015, 0.015)),
            rim=float(rng.uniform(0.03, 0.12)),
            thickness=thickness,
            cover=cover,
        )
    return plan


def rim_count(quantile: float) -> int:
    """How many rim lesions a patient has: none in two of three, many in a few.

    `quantile` (0 to 1) is the patient's place in a negative binomial distribution with mean 1.03
    and variance 4.7. The 172 patients of [Zhang2022]_ had 177. How much their counts spread is
    our inference: counts found with a correlation of 0.89 and a mean squared error of 0.98 leave
    the true ones a variance of at most 0.98 / (1 - 0.89^2) = 4.7, and of 4.5 where both spread
    alike.
    """
    mean, variance = 1.03, 4.7
    return int(nbinom.ppf(quantile, mean**2 / (variance - mean), mean / variance))


def lesion_region(
    seed: int, *, edge: int = 80, count: int | None = None, rims: int | None = None
) -> Region:
    """A region of `edge` voxels of 1 mm around the ventricles with lesions.

    `count` lesions (None: 20 to 29), `rims` of them with a rim (None: see `rim_count`), as far as
    there is room. Same seed, same bytes.
    """
    place, plan_rng, paint_rng, contrast_rng, image_rng = np.random.default_rng(seed).spawn(5)
    middle = (place.uniform(-10, 10), place.uniform(-32, 4), place.uniform(12, 30))
    angles = tuple(np.clip(place.normal(0, s), -25, 25) for s in (9, 3, 3))
    affine = grid_affine((edge,) * 3, 1.0, angles=angles, center=middle)
    head = procedural(seed, affine=affine, shape=(edge,) * 3)
    tissue = tissue_maps(head, image_rng, contrast=random_contrast(contrast_rng))
    count = int(plan_rng.integers(20, 30)) if count is None else count
    drawn = rim_count(plan_rng.random())
    rims = min(drawn if rims is None else rims, count)
    plans = [draw_plan(plan_rng, n < rims) for n in range(count)]
    plans.sort(key=lambda p: -p.radius)  # large ones find room first
    displacement = np.clip(place.normal(0, 0.4, 3), -1, 1)
    canvas = _Canvas(head, tissue, displacement)
    kept = [p for p in plans if canvas.add(p, paint_rng)]
    image = flair(head, canvas.for_flair(), image_rng, snr=float(image_rng.uniform(20, 50)))
    image = shift(image, displacement, order=1, mode="nearest")
    return Region(
        head,
        replace(tissue, chi=canvas.chi),
        image,
        canvas.instances,
        tuple(kept),
        tuple(canvas.centers),
    )


class _Canvas:
    """Copies of the maps of a region while lesions are painted; nothing outside sees it."""

    _FINE = 2

    def __init__(self, head: Head, tissue: Tissue, displacement: np.ndarray) -> None:
        self._head, self._tissue, self._displacement = head, tissue, displacement
        self.chi = tissue.chi.copy()
        self.instances = np.zeros(head.labels.shape, np.uint8)
        self.centers: list[tuple[int, int, int]] = []
        self._fraction = np.zeros(head.labels.shape, np.float32)  # of FLAIR-bright tissue
        white = head.labels == lab.WHITE_MATTER
        self._white = white
        self._depth = distance_transform_edt(white)
        fluid = np.isin(head.labels, (lab.CSF, lab.CHOROID_PLEXUS))
        x, y, z = np.indices(white.shape) - np.asarray(white.shape).reshape(3, 1, 1, 1) / 2
        inner = fluid & (x**2 + y**2 + z**2 < 34**2)
        self._to_fluid = distance_transform_edt(~inner)
        self._free = distance_transform_edt(np.ones(white.shape, bool))  # to other lesions, large
        self._free[:] = 99.0

    def for_flair(self) -> Tissue:
        """The tissue with the lesions' water content and relaxation in it."""
        _, m0, r1, _, r2 = PROPERTIES[lab.LESION]
        f = np.clip(self._fraction, 0, 1)
        t = self._tissue
        return replace(
            t,
            m0=t.m0 + f * (m0 - t.m0),
            r1=t.r1 + f * (r1 - t.r1),
            r2=t.r2 + f * (r2 - t.r2),
        )

    def add(self, plan: Plan, rng: np.random.Generator) -> bool:
        """Paint one lesion where there is room; False when there is none."""
        center = self._place(plan, rng)
        if center is None:
            return False
        box = tuple(
            slice(max(c - reach, 0), min(c + reach + 1, n))
            for c, n, reach in zip(
                center, self.chi.shape, [int(np.ceil(1.35 * plan.radius + 3))] * 3, strict=True
            )
        )
        shape = _Shape.draw(plan, rng)
        fine = _offsets(center, box, self._FINE)
        d = shape.distance(fine)
        delta = shape.susceptibility(fine, d)
        self._mark(plan, center, box, shape, rng)
        inside = np.isin(self._head.labels[box], (lab.WHITE_MATTER, lab.VEIN))
        soft = inside | np.isin(self._head.labels[box], (lab.GREY_MATTER, *lab.NUCLEI))
        self.chi[box] += _coarse(delta, self._FINE) * soft
        bright = _coarse(1 / (1 + np.exp(np.clip(d / 0.3, -30, 30))), self._FINE)
        level = float(rng.uniform(0.6, 1.1))
        self._fraction[box] = np.maximum(self._fraction[box], level * bright * soft)
        return True

    def _mark(
        self,
        plan: Plan,
        center: tuple[int, int, int],
        box: tuple[slice, ...],
        shape: _Shape,
        rng: np.random.Generator,
    ) -> None:
        """Draw the mask as a rater would: displaced with the FLAIR, a little off its edge."""
        moved = _offsets(center, box, 1) - self._displacement.reshape(3, 1, 1, 1)
        wobble = shape.surface.at(_turned(moved, shape.turn.T))[0]
        d = shape.distance(moved.astype(np.float32)) + 0.3 * np.clip(wobble, -2, 2)
        drawn = d < rng.normal(0.2, 0.45)
        drawn &= self._head.brain[box] & (self.instances[box] == 0)
        drawn &= ~np.isin(self._head.labels[box], (lab.CSF, lab.CHOROID_PLEXUS))
        if not drawn.any():
            drawn[tuple(c - s.start for c, s in zip(center, box, strict=True))] = True
        self.centers.append(center)
        self.instances[box][drawn] = len(self.centers)
        at = _offsets(center, tuple(slice(0, n) for n in self.chi.shape), 1)
        self._free = np.minimum(self._free, np.sqrt((at**2).sum(0)) - plan.radius)

    def _place(self, plan: Plan, rng: np.random.Generator) -> tuple[int, int, int] | None:
        """A white voxel with room around it, half of the time near the ventricles."""
        edge = np.zeros_like(self._white)
        margin = 11
        edge[margin:-margin, margin:-margin, margin:-margin] = True
        touch = -1.0 if rng.random() < 0.1 else 1.5  # some lesions are confluent
        room = self._free - plan.radius > touch
        good = self._white & edge & room & (self._depth > min(0.35 * plan.radius, 2.0))
        candidates = np.flatnonzero(good)
        if candidates.size == 0:
            return None
        picks = rng.choice(candidates, size=min(12, candidates.size), replace=False)
        if rng.random() < 0.5:
            picks = picks[np.argsort(self._to_fluid.ravel()[picks])]
        return tuple(int(v) for v in np.unravel_index(picks[0], good.shape))  # type: ignore[return-value]


@dataclass(frozen=True)
class _Shape:
    """The random surfaces and textures of one lesion."""

    plan: Plan
    turn: np.ndarray
    stretch: np.ndarray
    surface: Noise
    gaps: Noise
    blotches: Noise
    veins: tuple[tuple[np.ndarray, np.ndarray, float, float], ...]
    limit: float

    @classmethod
    def draw(cls, plan: Plan, rng: np.random.Generator) -> _Shape:
        gaps = smooth_noise(rng, float(rng.uniform(1.2, 2.2)), extent=1.6, bandwidth=0.4)
        directions = rng.normal(size=(3, 2000)).astype(np.float32)
        directions /= np.linalg.norm(directions, axis=0)
        limit = float(np.quantile(gaps.at(directions)[0], plan.cover)) if plan.cover < 1 else 99.0
        veins = []
        for offset in plan.veins:
            way, side = rng.normal(size=(2, 3))
            way /= np.linalg.norm(way)
            side -= (side @ way) * way
            side *= offset * plan.radius / np.linalg.norm(side)
            veins.append(
                (way, side, float(rng.uniform(0.3, 0.75)), plan.radius + float(rng.uniform(2, 8)))
            )
        return cls(
            plan,
            rotation_matrix(rng.uniform(0, 180, 3)).astype(np.float32),
            np.exp(rng.normal(0, 0.16, 3)).astype(np.float32),
            smooth_noise(rng, 1.3, extent=1.6, bandwidth=0.4),
            gaps,
            smooth_noise(rng, float(rng.uniform(4, 7)), extent=16.0, bandwidth=0.4),
            tuple(veins),
            limit,
        )

    def distance(self, q: np.ndarray) -> np.ndarray:
        """Signed distance (mm) of points `(3, …)` given as offsets from the centre."""
        q = _turned(q, self.turn) / self.stretch.reshape(3, 1, 1, 1)
        length = np.sqrt((q**2).sum(0))
        bumps = self.surface.at(q / np.maximum(length, 1e-3))[0]
        return length - self.plan.radius * (1 + 0.13 * np.clip(bumps, -2, 2))

    def susceptibility(self, q: np.ndarray, d: np.ndarray) -> np.ndarray:
        """ppm on top of the tissue's at points `q` with signed distance `d`."""
        plan, depth = self.plan, -d
        inside = _step(depth / 0.25)
        delta = plan.core * inside * np.clip(depth / plan.edge, 0, 1)
        if plan.patches:
            delta = delta + plan.patches * inside * np.clip(self.blotches.at(q)[0] - 0.3, 0, 2)
        if plan.rim:
            length = np.sqrt((q**2).sum(0))
            way = q / np.maximum(length, 1e-3)
            gaps = self.gaps.at(way)[0]
            where = _step((self.limit - gaps) / 0.15)
            uneven = 1 + 0.3 * np.clip(self.surface.at(way[::-1])[0], -2, 2)
            shell = inside * _step((plan.thickness - depth) / 0.25)
            delta = delta + plan.rim * shell * where * uneven
        for way, side, radius, reach in self.veins:
            r = q - side.reshape(3, 1, 1, 1)
            along = np.tensordot(way, r, 1)
            away = np.sqrt(np.maximum((r**2).sum(0) - along**2, 0))
            delta = delta + 0.25 * _step((radius - away) / 0.1) * (np.abs(along) < reach)
        return delta.astype(np.float32)


def _step(x: np.ndarray) -> np.ndarray:
    """A smooth step from 0 to 1 over a few units of x."""
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def _turned(q: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return np.tensordot(matrix, q, 1).astype(np.float32)


def _offsets(center: tuple[int, ...], box: tuple[slice, ...], fine: int) -> np.ndarray:
    """Offsets (mm, 1 mm voxels) of `fine` sub-voxels an axis from the voxel `center`."""
    sub = (np.arange(fine) + 0.5) / fine - 0.5
    axes = [
        (np.arange(s.start, s.stop)[:, None] - c + sub).ravel()
        for s, c in zip(box, center, strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def _coarse(volume: np.ndarray, fine: int) -> np.ndarray:
    """Means over blocks of `fine` voxels an axis."""
    x, y, z = (n // fine for n in volume.shape)
    return volume.reshape(x, fine, y, fine, z, fine).mean(axis=(1, 3, 5))
