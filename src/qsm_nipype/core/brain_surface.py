"""Brain extraction with a deformable surface: a balloon that stops at the dark skull."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch import Tensor

from qsm_nipype.core.morphology import fill_holes

_SEARCH_DEPTH = 20  # mm searched inwards for the darkest voxel; half of it for the brightest
_TIGHT_RADIUS, _WIDE_RADIUS = 3.33, 10.0  # mm, radii of curvature between which smoothing sets in


@dataclass(frozen=True)
class Intensities:
    """Robust intensities of a head: `dark` (2 %), `limit` (10 % of the range), `bright` (98 %)."""

    dark: float
    limit: float
    bright: float


def robust_intensities(image: Tensor) -> Intensities:
    """Percentiles of the voxels of `image` `(X, Y, Z)` that are not exactly zero."""
    values = image[image > 0]
    values = values[:: max(1, values.numel() // 1_000_000)].sort().values
    if values.numel() == 0:
        return Intensities(0.0, 0.0, 0.0)
    dark, bright = (float(values[int(q * (values.numel() - 1))]) for q in (0.02, 0.98))
    return Intensities(dark, dark + 0.1 * (bright - dark), bright)


def brain_surface(
    image: Tensor, voxel_size: Sequence[float], *, fraction: float = 0.5, iterations: int = 1000
) -> Tensor:
    """The volume inside a surface grown from the head's centre [Smith2002]_ → bool (X, Y, Z).

    `image` (X, Y, Z) in any unit. The surface moves outwards while the darkest voxel within 20 mm
    inside it is brighter than `fraction` of the local maximum; smaller values give a larger brain.
    """
    levels = robust_intensities(image)
    if not levels.bright > 0:
        return torch.zeros_like(image, dtype=torch.bool)
    size = torch.tensor([float(v) for v in voxel_size])
    sampled = image.float().cpu()
    centre, radius = _ball(sampled, size, levels)
    directions, faces = icosphere(4)
    vertices = centre + 0.5 * radius * directions
    typical = _median_inside(sampled, size, levels, centre, radius)
    grown = vertices.double().numpy()
    _grow(
        np.ascontiguousarray(sampled.numpy()),
        size.double().numpy(),
        (levels.dark, levels.limit, typical, fraction),
        grown,
        faces.numpy(),
        _neighbours(faces, len(vertices)).numpy(),
        iterations,
    )
    vertices = torch.from_numpy(grown).float()
    return _inside(vertices / size, faces, image)


def _ball(image: Tensor, size: Tensor, levels: Intensities) -> tuple[Tensor, float]:
    """Centre (mm) of intensity of the head, and radius of the ball of its volume."""
    weight = image.clamp_max(levels.bright) * (image > levels.limit)
    total = weight.sum().clamp_min(1e-30)
    centre = []
    for axis, step in enumerate(size.tolist()):
        others = [a for a in range(3) if a != axis]
        profile = weight.sum(dim=others)
        index = torch.arange(profile.numel(), dtype=profile.dtype)
        centre.append(float((profile * index).sum() / total) * step)
    volume = float((image > levels.limit).sum() * size.prod())
    return torch.tensor(centre), (3 * volume / (4 * math.pi)) ** (1 / 3)


@njit(cache=True, nogil=True)
def _grow(image, size, levels, vertices, faces, neighbours, iterations):
    """Move `vertices` (V, 3; mm, changed in place) under smoothing and the image's force.

    `levels`: dark, limit and typical intensity, and the fraction of Smith's Eq. 5.
    """
    dark, limit, typical, fraction = levels
    middle = (1 / _TIGHT_RADIUS + 1 / _WIDE_RADIUS) / 2
    steepness = 6 / (1 / _TIGHT_RADIUS - 1 / _WIDE_RADIUS)
    normals = np.zeros_like(vertices)
    moved = np.zeros_like(vertices)
    spacing = 0.0
    for iteration in range(iterations):
        _set_normals(normals, vertices, faces)
        if iteration % 50 == 0:
            spacing = _spacing(vertices, faces)
        for v in range(len(vertices)):
            n = normals[v]
            towards = np.zeros(3)
            degree = 0
            for w in neighbours[v]:
                if w >= 0:
                    towards += vertices[w]
                    degree += 1
            towards = towards / degree - vertices[v]
            across = towards[0] * n[0] + towards[1] * n[1] + towards[2] * n[2]
            # smoothing: free where the surface curves gently, strong where it curves sharply
            smooth = (1 + math.tanh(steepness * (2 * abs(across) / spacing**2 - middle))) / 2
            # the image's force along the normal
            lowest, highest = _along(image, size, vertices[v], n)
            lowest = max(dark, min(typical, lowest))
            highest = min(typical, max(limit, highest))
            wanted = (highest - dark) * fraction + dark
            force = 2 * (lowest - wanted) / max(highest - dark, 1e-30)
            normal_step = (smooth - 0.5) * across + 0.05 * spacing * force
            moved[v] = vertices[v] + 0.5 * towards + normal_step * n
        vertices[:] = moved


@njit(cache=True, nogil=True)
def _along(image, size, point, normal):
    """Darkest voxel within 20 mm inwards of `point`, brightest within 10 mm."""
    lowest, highest = math.inf, 0.0
    for step in range(_SEARCH_DEPTH + 1):
        i = round((point[0] - step * normal[0]) / size[0])
        j = round((point[1] - step * normal[1]) / size[1])
        k = round((point[2] - step * normal[2]) / size[2])
        value = 0.0
        if 0 <= i < image.shape[0] and 0 <= j < image.shape[1] and 0 <= k < image.shape[2]:
            value = image[i, j, k]
        lowest = min(lowest, value)
        if step <= _SEARCH_DEPTH // 2:
            highest = max(highest, value)
    return lowest, highest


@njit(cache=True, nogil=True)
def _set_normals(normals, vertices, faces):
    """Outward unit normals, area-weighted over the adjoining faces."""
    normals[:] = 0
    for f in range(len(faces)):
        u = vertices[faces[f, 1]] - vertices[faces[f, 0]]
        w = vertices[faces[f, 2]] - vertices[faces[f, 0]]
        for corner in faces[f]:
            normals[corner, 0] += u[1] * w[2] - u[2] * w[1]
            normals[corner, 1] += u[2] * w[0] - u[0] * w[2]
            normals[corner, 2] += u[0] * w[1] - u[1] * w[0]
    for v in range(len(normals)):
        n = normals[v]
        normals[v] = n / max(math.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2), 1e-30)


@njit(cache=True, nogil=True)
def _spacing(vertices, faces):
    """Mean distance between adjoining vertices."""
    total = 0.0
    for f in range(len(faces)):
        u = vertices[faces[f, 1]] - vertices[faces[f, 0]]
        total += math.sqrt(u[0] ** 2 + u[1] ** 2 + u[2] ** 2)
    return total / len(faces)


def _median_inside(image, size, levels, centre, radius) -> float:
    """Median intensity of the tissue in the initial ball."""
    squared = torch.zeros(())
    for axis, step in enumerate(size.tolist()):
        view = [1, 1, 1]
        view[axis] = -1
        index = torch.arange(image.shape[axis], dtype=torch.float32) * step
        squared = squared + (index - centre[axis]).square().view(view)
    values = image[(squared < radius**2) & (image > levels.limit) & (image < levels.bright)]
    return float(values.median()) if values.numel() else levels.bright


def _neighbours(faces: Tensor, count: int) -> Tensor:
    """Indices `(V, 6)` of the adjoining vertices, −1 where there are fewer."""
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = edges[edges[:, 0].argsort(stable=True)]
    degree = torch.bincount(edges[:, 0], minlength=count)
    slot = torch.arange(len(edges)) - (degree.cumsum(0) - degree)[edges[:, 0]]
    table = torch.full((count, int(degree.max())), -1)
    table[edges[:, 0], slot] = edges[:, 1]
    return table


def icosphere(subdivisions: int) -> tuple[Tensor, Tensor]:
    """Vertices `(V, 3)` on the unit sphere and outward faces `(F, 3)` of a divided icosahedron."""
    g = (1 + 5**0.5) / 2
    corners: list[tuple[float, float, float]] = [
        (-1, g, 0),
        (1, g, 0),
        (-1, -g, 0),
        (1, -g, 0),
        (0, -1, g),
        (0, 1, g),
    ]
    corners += [(0, -1, -g), (0, 1, -g), (g, 0, -1), (g, 0, 1), (-g, 0, -1), (-g, 0, 1)]
    vertices = torch.nn.functional.normalize(torch.tensor(corners, dtype=torch.float32), dim=1)
    faces = torch.combinations(torch.arange(12), 3)
    sides = torch.stack([vertices[faces[:, i]] - vertices[faces[:, i - 1]] for i in range(3)])
    faces = faces[(sides.norm(dim=-1) < 1.1).all(0)]
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    inward = (torch.linalg.cross(b - a, c - a) * a).sum(1) < 0
    faces[inward] = faces[inward].flip(1)
    for _ in range(subdivisions):
        pairs = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        unique, where = pairs.sort(dim=1).values.unique(dim=0, return_inverse=True)
        middle = torch.nn.functional.normalize(vertices[unique].sum(1), dim=1)
        ab, bc, ca = (where + len(vertices)).chunk(3)
        a, b, c = faces.T
        vertices = torch.cat([vertices, middle])
        triples = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        faces = torch.cat([torch.stack(t, dim=1) for t in triples])
    return vertices, faces


def _inside(vertices: Tensor, faces: Tensor, like: Tensor) -> Tensor:
    """Voxels enclosed by the surface (`vertices` in voxels), the surface's own ones included."""
    corners = vertices[faces]
    longest = float((corners - corners.roll(1, dims=1)).norm(dim=-1).max())
    n = max(2, math.ceil(2.5 * longest))
    u, v = torch.meshgrid(torch.arange(n + 1), torch.arange(n + 1), indexing="ij")
    keep = (u + v) <= n
    u, v = u[keep] / n, v[keep] / n
    coordinates = torch.stack([1 - u - v, u, v], dim=1)
    shell = torch.zeros(like.shape, dtype=torch.bool)
    bounds = torch.tensor(like.shape) - 1
    for part in corners.split(512):
        index = torch.einsum("pk,fkd->fpd", coordinates, part).round().long().reshape(-1, 3)
        index = torch.minimum(index.clamp_min(0), bounds)
        shell[index[:, 0], index[:, 1], index[:, 2]] = True
    return fill_holes(torch.nn.functional.pad(shell, [1] * 6))[1:-1, 1:-1, 1:-1].to(like.device)
