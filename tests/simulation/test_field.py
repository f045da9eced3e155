"""The simulated field is that of physics at every angle to B0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.core.fourier import irfft
from qsm_nipype.simulation import heads
from qsm_nipype.simulation.field import voxel_field, voxel_kernel
from qsm_nipype.simulation.scanner import finer
from qsm_nipype.simulation.signal import fields
from qsm_nipype.simulation.tissue import tissue_maps

ANGLES = [(0.0, 0.0, 0.0), (5.0, 0.0, 0.0), (25.0, 10.0, 0.0), (40.0, 0.0, 0.0)]


def _laplacian(field: np.ndarray) -> np.ndarray:
    """ppm per voxel²."""
    field = field.astype(np.float64)
    around = (np.roll(field, step, axis) for axis in range(3) for step in (1, -1))
    return sum(around) - 6 * field


@pytest.mark.parametrize("angles", ANGLES)
@pytest.mark.parametrize(
    "voxel_size",
    [3.0, 2.4, 1.5, pytest.param(1.0, marks=pytest.mark.slow)],
)
def test_the_background_is_harmonic_in_the_brain(
    voxel_size: float, angles: tuple[float, float, float]
) -> None:
    """Its Laplacian stays far below that of the brain's own field, whatever the tilt."""
    shape = tuple(2 * round(mm / voxel_size / 2) for mm in (160, 200, 170))
    head = heads.procedural(1, shape, voxel_size, angles=angles)
    truth = fields(head, tissue_maps(head, np.random.default_rng(0)).chi, shim=0)
    depth = ndimage.distance_transform_edt(head.brain, sampling=head.voxel_size)
    deep = depth > 6
    background, local = (_laplacian(f)[deep] for f in (truth.background, truth.local))
    assert background.std() < local.std() / 5
    assert np.median(np.abs(background)) < np.median(np.abs(local)) / 50


@pytest.mark.parametrize("angles", ANGLES)
def test_an_air_sphere_has_the_analytic_field(angles: tuple[float, float, float]) -> None:
    b0 = heads.grid_affine((8,) * 3, 1.0, angles=angles)[2, :3]  # scanner z along the voxel axes
    n, radius = 64, 9.0
    fine = np.indices((2 * n,) * 3) / 2 - n / 2 + 0.25  # edges are partial volumes
    inside = (np.linalg.norm(fine, axis=0) < radius).astype(np.float32)
    ball = inside.reshape(n, 2, n, 2, n, 2).mean((1, 3, 5))
    found = voxel_field(torch.from_numpy(9.41 * ball), (1.0,) * 3, b0, padding=1.0)
    at = np.indices((n,) * 3) - (n - 1) / 2
    r = np.linalg.norm(at, axis=0)
    cosine = np.tensordot(b0, at, 1) / r
    expected = 9.41 / 3 * (radius / r) ** 3 * (3 * cosine**2 - 1)
    around = (r > radius + 3) & (r < 26)
    off = found.numpy()[around] - expected[around]
    assert np.sqrt(np.mean(off**2)) < 0.03 * np.sqrt(np.mean(expected[around] ** 2))
    # without this, a tilted sphere rings all over the volume
    assert _laplacian(found.numpy())[around].std() < 0.05


def test_it_is_the_field_of_a_grid_twice_finer_averaged() -> None:
    chi = torch.randn(12, 10, 16, generator=torch.Generator().manual_seed(0))
    b0, edges = (0.3, -0.2, 0.9), (1.0, 1.5, 2.0)
    finer = chi
    for axis in range(3):
        finer = finer.repeat_interleave(2, axis)
    kernel = voxel_kernel(chi.shape, edges, b0, chi)
    found = irfft(torch.fft.rfftn(chi) * kernel, chi.shape)
    periodic = dipole_field(finer, [e / 2 for e in edges], b0, padding=0.0)
    expected = periodic.reshape(12, 2, 10, 2, 16, 2).mean((1, 3, 5))
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_the_steps_of_coarse_boxes_reach_the_second_layer_of_a_tilted_brain() -> None:
    """Finer boxes make smaller steps of the bone beside the brain: its field there is smoother."""
    shape, angles = (54, 66, 56), (25.0, 10.0, 0.0)
    boxes = heads.procedural(1, shape, 3.0, angles=angles)
    halves = heads.procedural(1, tuple(2 * n for n in shape), 1.5, angles=angles)
    second = ndimage.binary_erosion(boxes.brain) & ~ndimage.binary_erosion(
        boxes.brain, np.ones((3, 3, 3)), iterations=2
    )
    coarse, fine = (
        fields(head, tissue_maps(head, np.random.default_rng(0)).chi, shim=0).background
        for head in (boxes, halves)
    )
    steps = [_laplacian(f)[second].std() for f in (coarse, finer.voxel_mean(fine))]
    assert steps[1] < 0.6 * steps[0], steps
