"""Line by line: what changes while k-space is filled, and which part of it is filled.

Axis 0 is read out; axis 1 is stepped through for each step of axis 2, so that a line `(y, z)` of
k-space has its own time. All echoes of a line are read after one excitation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.simulation.head import Head

#: seconds for the whole k-space
DURATION = 420.0
#: ppm of the breathing field in the brain's middle (1 Hz at 3 T, 2.4 at 7 T), seconds of one
#: breath, and mm over which it falls to 1/e away from the lungs (assumed; the lower cervical cord
#: has an SD of 5 Hz at 3 T [Beghini2024]_)
BREATHING, BREATH, FALL = 0.008, 4.0, 80.0
#: ppm that the field drifts from first to last line (2.5 Hz at 3 T), SD of the eddy-current phase
#: of each echo in rad: its mean, and from end to end of each axis (assumed)
DRIFT, EDDY_MEAN, EDDY_RAMP = 0.02, 0.03, 0.1
#: SD of the movement: mm along each axis, degrees about x and z (assumed)
SHIFT, TURN = 0.4, 0.4
#: part of k-space read: along every axis, of the axis 1 (partial Fourier), rolled off at the end
ACQUIRED, PARTIAL, ROLL_OFF = 0.9, 0.875, 0.2
_LEVELS = 7


@dataclass(frozen=True)
class Lines:
    """What one scan does to its k-space lines; None or empty where an effect is off.

    `breath` `(Y, Z)` from −1 to 1 and its `weight` along axis 2 in ppm; `drift` `(Y, Z)` in ppm;
    `eddy` `(E, 4)` in rad; `moved` `(Y, Z)` bool with `shift` (voxels) and `turn` (rad); `window`.
    """

    breath: Tensor | None = None
    weight: Tensor | None = None
    drift: Tensor | None = None
    eddy: Tensor | None = None
    moved: Tensor | None = None
    shift: tuple[float, ...] = (0.0, 0.0, 0.0)
    turn: tuple[float, ...] = (0.0, 0.0)
    window: Tensor | None = None


def lines_of(
    head: Head, effects: Sequence[str], echoes: int, rngs: dict[str, np.random.Generator]
) -> Lines:
    """Draw what happens during one scan of `head`."""
    known: dict = {}
    time = _times(head.labels.shape)
    if "breathing" in effects:
        known["breath"] = _breaths(time, rngs["breathing"])
        height = torch.from_numpy(_heights(head))
        known["weight"] = BREATHING * torch.exp(-height / FALL)
    if "drift" in effects:
        known["drift"] = DRIFT * (time / DURATION - 0.5)
        scale = np.array([EDDY_MEAN, EDDY_RAMP, EDDY_RAMP, EDDY_RAMP])
        drawn = rngs["drift"].normal(size=(echoes, 4)) * scale
        known["eddy"] = torch.from_numpy(drawn.astype(np.float32))
    if "motion" in effects:
        rng = rngs["motion"]
        known["moved"] = time > DURATION * rng.uniform(0.55, 0.75)
        known["shift"] = tuple(rng.normal(0, SHIFT, 3) / head.voxel_size)
        known["turn"] = tuple(np.deg2rad(rng.normal(0, TURN, 2)))
    if "kspace" in effects:
        known["window"] = window(head.labels.shape)
    return Lines(**known)


def acquired(image: Tensor, lines: Lines, number: int, echo_time: float, b0: float) -> Tensor:
    """Complex `image` `(X, Y, Z)` of echo `number` as its k-space lines saw it."""
    omega = 2 * math.pi * GYROMAGNETIC_RATIO * b0 * echo_time
    if lines.eddy is not None:
        image = image * _eddy(image.shape, lines.eddy[number])
    if all(x is None for x in (lines.breath, lines.drift, lines.moved, lines.window)):
        return image
    spectrum = _seen(image, lines, omega)
    if lines.moved is not None:
        other = _seen(_moved(image, lines), lines, omega)
        spectrum = torch.where(lines.moved, other, spectrum)
    if lines.drift is not None:
        spectrum = spectrum * torch.polar(torch.ones_like(lines.drift), omega * lines.drift)
    image = torch.fft.ifftn(spectrum, dim=(1, 2))
    return image if lines.window is None else filtered(image, lines.window)


def filtered(image: Tensor, part: Tensor) -> Tensor:
    """`image` with its spectrum times `part`."""
    return torch.fft.ifftn(torch.fft.fftn(image) * part)


def window(shape: Sequence[int]) -> Tensor:
    """Which part of k-space is read, and with which weight: an ellipsoid, cut at one side.

    Elliptical in the phase-encoded plane [Bernstein2001]_, `ACQUIRED` of every axis (the rest is
    filled with zeros), partial Fourier along axis 1, a cosine roll-off at the ellipsoid's rim.
    """
    k = [torch.fft.fftfreq(n) * 2 / ACQUIRED for n in shape]
    plane = (k[1][:, None] ** 2 + k[2][None] ** 2).sqrt()
    across = ((1 - plane) / ROLL_OFF).clamp(0, 1)
    along = ((1 - k[0].abs()) / ROLL_OFF).clamp(0, 1)
    smooth = (0.5 - 0.5 * torch.cos(math.pi * along))[:, None, None] * (
        0.5 - 0.5 * torch.cos(math.pi * across)
    )
    return smooth * (k[1] > 1 - 2 * PARTIAL).float()[:, None]


def _times(shape: Sequence[int]) -> Tensor:
    """When line `(Y, Z)` is read, in s, in the order of the transform's frequencies."""
    _, y, z = shape
    order = torch.arange(y * z).view(z, y).T  # from −k to +k, axis 1 fastest
    return torch.fft.ifftshift(order).float() * (DURATION / (y * z))


def _breaths(time: Tensor, rng: np.random.Generator) -> Tensor:
    """Breathing from −1 to 1: a sine whose pace wanders by a tenth."""
    seconds = np.arange(int(DURATION) + 2)
    pace = 1 + 0.1 * np.convolve(rng.normal(size=len(seconds)), np.ones(8) / 8**0.5, "same")
    turns = np.cumsum(pace) / BREATH + rng.uniform()
    at = np.interp(time.numpy(), seconds, turns)
    return torch.from_numpy(np.sin(2 * np.pi * at).astype(np.float32))


def _heights(head: Head) -> np.ndarray:
    """Height in mm of the slices of axis 2 above the brain's middle."""
    hit = np.flatnonzero(head.brain.any(axis=(0, 1)))
    middle = hit.mean() if hit.size else head.brain.shape[2] / 2
    return ((np.arange(head.brain.shape[2]) - middle) * head.voxel_size[2]).astype(np.float32)


def _seen(image: Tensor, lines: Lines, omega: float) -> Tensor:
    """Spectrum over axes 1 and 2, every line at its own state of breathing.

    The states between `_LEVELS` fixed ones are interpolated.
    """
    if lines.breath is None or lines.weight is None:
        return torch.fft.fftn(image, dim=(1, 2))
    spectrum = torch.zeros_like(image)
    place = (lines.breath + 1) / 2 * (_LEVELS - 1)
    for level in range(_LEVELS):
        share = (1 - (place - level).abs()).clamp_min(0)
        phase = omega * (2 * level / (_LEVELS - 1) - 1) * lines.weight
        state = image * torch.polar(torch.ones_like(phase), phase)
        spectrum += share * torch.fft.fftn(state, dim=(1, 2))
    return spectrum


def _eddy(shape: Sequence[int], drawn: Tensor) -> Tensor:
    ramps = [torch.linspace(-0.5, 0.5, n) for n in shape]
    x, y, z = (r * float(d) for r, d in zip(ramps, drawn[1:], strict=True))
    phase = float(drawn[0]) + x[:, None, None] + y[:, None] + z
    return torch.polar(torch.ones_like(phase), phase)


def _moved(image: Tensor, lines: Lines) -> Tensor:
    """`image` shifted, and turned about axes 0 and 2 by shears (angles are below a degree)."""
    about0, about2 = lines.turn
    sheared = (((1, 2), -about0), ((2, 1), about0), ((0, 1), -about2), ((1, 0), about2))
    for (axis, by), slope in sheared:
        image = _shear(image, axis, by, slope, 0.0)
    for axis, shift in enumerate(lines.shift):
        image = _shear(image, axis, (axis + 1) % 3, 0.0, shift)
    return image


def _shear(image: Tensor, axis: int, by: int, slope: float, shift: float) -> Tensor:
    """Move along `axis` by `shift` + `slope` × (voxels from the middle along `by`)."""
    n, m = image.shape[axis], image.shape[by]
    k = torch.fft.fftfreq(n).view([-1 if a == axis else 1 for a in range(3)])
    off = (shift + slope * (torch.arange(m) - (m - 1) / 2)).view(
        [-1 if a == by else 1 for a in range(3)]
    )
    ramp = torch.exp(-2j * math.pi * k * off)
    return torch.fft.ifft(torch.fft.fft(image, dim=axis) * ramp, dim=axis)
