"""Bleeds, calcifications and MS lesions put into a head.

Each function returns a new `Head`: labels changed, `chi_offset` (ppm, on top of the label's mean)
and `instances` (1, 2 … per finding) written, and a `Finding` per instance, which is the truth for
lesion studies. Paramagnetic rims: thickness and strength after [Absinta2018]_ and
[Zhang2022]_.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.head import Head, rotation_matrix
from qsm_nipype.simulation.shapes import smooth_noise
from qsm_nipype.simulation.tissue import PROPERTIES

Findings = tuple["Finding", ...]


@dataclass(frozen=True)
class Finding:
    """One finding: its number in `Head.instances`, kind, centre (voxel), radius, strength.

    `chi` is the mean susceptibility against the label's (ppm); for a rim lesion that of the rim.
    `rim` is the covered fraction of the surface (0: no rim) and `thickness` the rim's in mm.
    """

    number: int
    kind: str
    center: tuple[int, int, int]
    radius: float
    chi: float
    rim: float = 0.0
    thickness: float = 0.0


def haemorrhage(
    head: Head, rng: np.random.Generator, *, radius: float | None = None, chi: float | None = None
) -> tuple[Head, Findings]:
    """An irregular bleed of `radius` mm (5 to 16) in white matter or a nucleus.

    `chi` is its mean susceptibility in ppm against water (0.2 to 1.6), higher at its edge, in a
    head with the literature's properties.
    """
    radius = float(rng.uniform(5, 16)) if radius is None else radius
    chi = float(rng.uniform(0.2, 1.6)) if chi is None else chi
    canvas = _Canvas(head)
    where = canvas.place(rng, (lab.WHITE_MATTER, lab.PUTAMEN, lab.THALAMUS), 0.6 * radius)
    if where is None:
        return head, ()
    box, d = canvas.blob(where, radius, rng, roughness=0.25)
    edge = np.exp(-((d / 2.0) ** 2)) * rng.uniform(0.0, 0.4)
    shift = chi - PROPERTIES[lab.HAEMORRHAGE][0]
    delta = shift + chi * edge
    number = canvas.write(box, d, lab.HAEMORRHAGE, delta)
    return canvas.head(), (Finding(number, "haemorrhage", where, radius, shift),)


def calcification(
    head: Head, rng: np.random.Generator, *, radius: float | None = None, chi: float | None = None
) -> tuple[Head, Findings]:
    """A calcified spot of `radius` mm (1.5 to 5).

    `chi` is −3 to −0.4 ppm against water in a head with the literature's properties.
    """
    radius = float(rng.uniform(1.5, 5)) if radius is None else radius
    chi = float(rng.uniform(-3.0, -0.4)) if chi is None else chi
    canvas = _Canvas(head)
    places = (lab.CHOROID_PLEXUS, lab.PALLIDUM, lab.WHITE_MATTER, lab.GREY_MATTER)
    where = canvas.place(rng, places, 0.0)
    if where is None:
        return head, ()
    box, d = canvas.blob(where, radius, rng, roughness=0.2)
    shift = chi - PROPERTIES[lab.CALCIFICATION][0]
    number = canvas.write(box, d, lab.CALCIFICATION, np.full_like(d, shift))
    return canvas.head(), (Finding(number, "calcification", where, radius, shift),)


def microbleeds(head: Head, rng: np.random.Generator, *, count: int = 5) -> tuple[Head, Findings]:
    """Round bleeds of 1 to 2.5 mm radius in grey and white matter."""
    canvas, findings = _Canvas(head), []
    for _ in range(count):
        radius, chi = float(rng.uniform(1.0, 2.5)), float(rng.uniform(-0.5, 0.8))
        where = canvas.place(rng, (lab.WHITE_MATTER, lab.GREY_MATTER, lab.THALAMUS), 0.0)
        if where is not None:
            box, d = canvas.blob(where, radius, rng, roughness=0.08)
            number = canvas.write(box, d, lab.MICROBLEED, np.full_like(d, chi))
            findings.append(Finding(number, "microbleed", where, radius, chi))
    return canvas.head(), tuple(findings)


def ms_lesions(
    head: Head, rng: np.random.Generator, *, count: int = 20, rim_fraction: float = 0.2
) -> tuple[Head, Findings]:
    """White-matter lesions, most near the ventricles, `rim_fraction` of them with a rim.

    Rims cover 50 to 100 % of the surface, are 0.7 to 1.8 mm thick and 0.03 to 0.12 ppm strong;
    half of the lesions have a central vein.
    """
    canvas, findings = _Canvas(head), []
    for _ in range(count):
        with_rim = bool(rng.random() < rim_fraction)
        radius = float(np.clip(rng.lognormal(1.15, 0.4) + with_rim, 3.0 if with_rim else 1.5, 10))
        where = canvas.place(rng, (lab.WHITE_MATTER,), min(radius * 0.4, 2.0), near_fluid=0.6)
        if where is None:
            continue
        box, d = canvas.blob(where, radius, rng, roughness=0.12, allowed=_PARENCHYMA)
        core = float(rng.normal(0.0, 0.012))
        number = canvas.write(box, d, lab.LESION, np.full_like(d, core), allowed=_PARENCHYMA)
        finding = Finding(number, "lesion", where, radius, core)
        if with_rim:
            finding = canvas.rim(finding, box, d, rng)
        if rng.random() < 0.5:
            canvas.vein(where, radius, rng)
        findings.append(finding)
    return canvas.head(), tuple(findings)


def random_pathology(head: Head, rng: np.random.Generator) -> tuple[Head, Findings]:
    """A random mixture for training: often none, sometimes several."""
    findings: Findings = ()
    if rng.random() < 0.4:
        head, new = ms_lesions(
            head, rng, count=int(rng.integers(3, 30)), rim_fraction=float(rng.uniform(0, 0.5))
        )
        findings += new
    if rng.random() < 0.35:
        head, new = microbleeds(head, rng, count=int(rng.integers(1, 12)))
        findings += new
    for make, chance in ((haemorrhage, 0.3), (calcification, 0.3)):
        while rng.random() < chance:
            head, new = make(head, rng)
            findings += new
    return head, findings


_PARENCHYMA = (*lab.NUCLEI, lab.WHITE_MATTER, lab.GREY_MATTER, lab.VEIN)
_INSIDE = (*_PARENCHYMA, lab.CSF, lab.CHOROID_PLEXUS)


class _Canvas:
    """Copies of a head's arrays while findings are drawn; nothing outside sees it."""

    def __init__(self, head: Head) -> None:
        self._source = head
        self._labels = head.labels.copy()
        shape = head.labels.shape
        self._chi = (
            np.zeros(shape, np.float32) if head.chi_offset is None else head.chi_offset.copy()
        )
        self._instances = (
            np.zeros(shape, np.uint16) if head.instances is None else head.instances.copy()
        )
        self._step = np.asarray(head.voxel_size)

    def head(self) -> Head:
        return replace(
            self._source, labels=self._labels, chi_offset=self._chi, instances=self._instances
        )

    def place(
        self,
        rng: np.random.Generator,
        allowed: tuple[int, ...],
        depth: float,
        *,
        near_fluid: float = 0.0,
    ) -> tuple[int, int, int] | None:
        """A voxel of an `allowed` label at least `depth` mm from other tissue.

        With the chance `near_fluid`, the candidate nearest to fluid deep in the brain wins.
        """
        candidates = np.flatnonzero(np.isin(self._labels, allowed) & self._source.brain)
        if candidates.size == 0:
            return None
        pick = rng.choice(candidates, size=min(60, candidates.size), replace=False)
        points = np.array(np.unravel_index(pick, self._labels.shape)).T
        good = [p for p in points if self._clear(p, allowed, depth)] or list(points[:1])
        if rng.random() < near_fluid:
            good.sort(key=self._fluid_distance)
        return tuple(int(v) for v in good[0])  # type: ignore[return-value]

    def _clear(self, point: np.ndarray, allowed: tuple[int, ...], depth: float) -> bool:
        reach = np.round(depth / self._step).astype(int)
        for axis in range(3):
            for sign in (-1, 1):
                at = point.copy()
                at[axis] = np.clip(at[axis] + sign * reach[axis], 0, self._labels.shape[axis] - 1)
                if self._labels[tuple(at)] not in allowed:
                    return False
        return True

    def _fluid_distance(self, point: np.ndarray) -> float:
        """Distance (mm) to fluid within 12 mm, weighing fluid near the outer surface less."""
        box = self._box(point, 12.0)
        fluid = np.argwhere(np.isin(self._labels[box], (lab.CSF, lab.CHOROID_PLEXUS)))
        if len(fluid) < 30:
            return 99.0
        at = fluid + [s.start for s in box]
        centre = np.asarray(self._labels.shape) / 2
        middle = float(np.linalg.norm((point - centre) * self._step))
        return float(np.linalg.norm((at - point) * self._step, axis=1).min()) + 0.2 * middle

    def _box(self, point: np.ndarray | tuple[int, ...], reach: float) -> tuple[slice, ...]:
        half = np.ceil(reach / self._step).astype(int)
        return tuple(
            slice(max(int(c - h), 0), min(int(c + h + 1), n))
            for c, h, n in zip(point, half, self._labels.shape, strict=True)
        )

    def _offsets(self, point: tuple[int, ...], box: tuple[slice, ...]) -> np.ndarray:
        """Offsets (mm) `(3, …)` of the voxels in `box` from voxel `point`."""
        axes = [
            (np.arange(s.start, s.stop) - c) * d
            for s, c, d in zip(box, point, self._step, strict=True)
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)

    def blob(
        self,
        point: tuple[int, int, int],
        radius: float,
        rng: np.random.Generator,
        *,
        roughness: float,
        allowed: tuple[int, ...] = _INSIDE,
    ) -> tuple[tuple[slice, ...], np.ndarray]:
        """Signed distance (mm) of a star-shaped body around `point`, and its index box."""
        box = self._box(point, 1.7 * radius + 3)
        q = self._offsets(point, box)
        turn = rotation_matrix(rng.uniform(0, 180, 3)).astype(np.float32)
        stretch = np.exp(rng.normal(0, 0.15, 3)).astype(np.float32)
        q = np.tensordot(turn * (1 / stretch)[:, None], q, 1)
        length = np.sqrt((q**2).sum(0))
        bumps = smooth_noise(rng, 1.3, extent=1.6, bandwidth=0.4)
        surface = bumps.at(q / np.maximum(length, 1e-3))[0]
        d = length - radius * (1 + roughness * np.clip(surface, -2, 2))
        blocked = ~np.isin(self._labels[box], allowed)
        d[blocked] = np.maximum(d[blocked], 0.5)
        return box, d

    def write(
        self,
        box: tuple[slice, ...],
        d: np.ndarray,
        label: int,
        delta: np.ndarray,
        *,
        allowed: tuple[int, ...] = _INSIDE,
    ) -> int:
        """Fill `d` < 0 with `label`, an offset of `delta` ppm and a new instance number."""
        number = int(self._instances.max()) + 1
        inside = (d < 0) & np.isin(self._labels[box], allowed)
        inside[tuple(np.array(d.shape) // 2)] |= not inside.any()
        self._labels[box][inside] = label
        self._chi[box][inside] = delta[inside]
        self._instances[box][inside] = number
        return number

    def rim(
        self,
        finding: Finding,
        box: tuple[slice, ...],
        d: np.ndarray,
        rng: np.random.Generator,
    ) -> Finding:
        """Give a lesion an iron rim, perhaps with gaps."""
        cover = float(np.clip(rng.uniform(0.5, 1.15), 0.5, 1.0))
        thickness, strength = float(rng.uniform(0.7, 1.8)), float(rng.uniform(-0.045, 0.045))
        q = self._offsets(finding.center, box)
        length = np.maximum(np.sqrt((q**2).sum(0)), 1e-3)
        gaps = smooth_noise(rng, 1.8, extent=1.6, bandwidth=0.4).at(q / length)[0]
        wall = max(thickness, float(self._step.mean()) * 0.9)
        shell = (self._instances[box] == finding.number) & (d > -wall)
        shell &= gaps <= np.quantile(gaps[shell], cover) if shell.any() else shell
        self._labels[box][shell] = lab.LESION_RIM
        self._chi[box][shell] = strength
        return replace(finding, chi=strength, rim=cover, thickness=thickness)

    def vein(self, point: tuple[int, int, int], radius: float, rng: np.random.Generator) -> None:
        """A thin vein through the middle of a lesion."""
        way = rng.normal(size=3)
        way /= np.linalg.norm(way)
        reach = radius + rng.uniform(2, 8)
        for t in np.arange(-reach, reach, 0.4 * float(self._step.min())):
            at = np.round(np.asarray(point) + t * way / self._step).astype(int)
            if (at < 0).any() or (at >= self._labels.shape).any():
                continue
            if self._labels[tuple(at)] in (lab.WHITE_MATTER, lab.LESION):
                self._labels[tuple(at)] = lab.VEIN
                self._chi[tuple(at)] = -0.1  # thinner than a voxel
