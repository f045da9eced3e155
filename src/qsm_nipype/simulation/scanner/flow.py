"""Moving blood: phase that grows with every readout that does not compensate for it."""

from __future__ import annotations

import math

import numpy as np

from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.deformation import grid_points
from qsm_nipype.simulation.head import Head
from qsm_nipype.simulation.scanner.fat import BANDWIDTH, READOUT
from qsm_nipype.simulation.shapes import smooth_noise

#: mean speeds in mm/s: cerebral veins (assumed), dural sinuses (443 mL/min [Gideon1996]_ through
#: 60 mm²), large arteries of the base (assumed)
VEIN, SINUS, ARTERY = 12.0, 120.0, 300.0


def readout_velocity(head: Head, rng: np.random.Generator) -> np.ndarray:
    """Speed `(X, Y, Z)` in mm/s along the readout: its part turns smoothly along the vessels."""
    speed = np.zeros(head.labels.shape, np.float32)
    vein = head.labels == lab.VEIN
    speed[vein & head.brain] = VEIN
    speed[vein & ~head.brain] = SINUS
    speed[head.labels == lab.ARTERY] = ARTERY
    points = grid_points(speed.shape, head.affine)  # type: ignore[arg-type]
    return speed * np.clip(smooth_noise(rng, 40.0).at(points)[0] / 2, -1, 1)


def flow_phase(velocity: np.ndarray, number: int, head: Head, voxel: float) -> np.ndarray:
    """Phase in rad of echo `number` (0, 1 …): 2π G v T² for each readout of length T.

    G = `BANDWIDTH`/`voxel` is the readout's gradient in Hz/mm, T = 1/`BANDWIDTH`; half of a
    readout and the lobe before it make the first echo.
    """
    each = 2 * math.pi / (BANDWIDTH * voxel)
    return (number + 0.5) * each * velocity


def dephasing(phase: np.ndarray) -> np.ndarray:
    """Share of the signal that is left where flow makes `phase` (rad).

    Flow is laminar: a voxel holds speeds from half of its mean to one and a half.
    """
    return np.abs(np.sinc(phase / (2 * math.pi)))


def voxel_along_readout(head: Head) -> float:
    """Edge of a voxel in mm along the readout."""
    return head.voxel_size[READOUT]
