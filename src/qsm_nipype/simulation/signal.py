"""From tissue to gradient echoes: field, shim, phase offset, dephasing, coils, noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.core.dipole import dipole_field
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.field import voxel_field
from qsm_nipype.simulation.head import Head
from qsm_nipype.simulation.tissue import AIR_CHI, Tissue

FAT_SHIFT = -3.4  # ppm of B0, against water


@dataclass(frozen=True)
class Protocol:
    """A multi-echo gradient-echo acquisition.

    `b0` in T, `echo_times` and `repetition_time` in s, `flip_angle` in degrees; `snr` is that of
    white matter in the first echo (None: no noise). `bipolar` adds the phase that readout
    gradients of alternating sign leave (rad across the field of view). `coils` > 0 returns the
    uncombined images of that many receivers. `shim` is the order of the harmonic shim. `angles`
    (degrees about x, y, z) tilt the slab; `contrasts` are "T1w" and "FLAIR" images of the session.
    `effects` are those of a real scanner (`scanner.effects.EFFECTS`); none makes the clean one.
    """

    b0: float = 3.0
    echo_times: tuple[float, ...] = (0.004, 0.012, 0.020, 0.028)
    repetition_time: float = 0.045
    flip_angle: float = 15.0
    snr: float | None = 60.0
    shim: int = 2
    dephasing: bool = True
    phase_offset: float = 1.0
    receive_bias: float = 0.25
    bipolar: float = 0.0
    coils: int = 0
    angles: tuple[float, float, float] = (0.0, 0.0, 0.0)
    contrasts: tuple[str, ...] = ()
    effects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fields:
    """Field shifts `(X, Y, Z)` in ppm of B0; `total` = `local` + `background` − `shim`.

    `local` is made by `chi`: the susceptibility inside the brain mask, minus its mean there, and
    zero outside. Everything else makes the background, which is harmonic inside the brain.
    """

    total: np.ndarray
    local: np.ndarray
    background: np.ndarray
    shim: np.ndarray
    chi: np.ndarray


@dataclass(frozen=True)
class Scan:
    """Magnitude and wrapped phase `(X, Y, Z, E)` (coils last if any) with the truth behind them.

    `truth.chi` in ppm: zero mean over `head.brain`, zero outside.
    """

    magnitude: np.ndarray
    phase: np.ndarray
    head: Head
    tissue: Tissue
    protocol: Protocol
    truth: Fields
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def affine(self) -> np.ndarray:
        """Voxel → scanner mm."""
        return self.head.affine

    @property
    def brain(self) -> np.ndarray:
        """The true brain mask."""
        return self.head.brain


def fields(head: Head, chi: np.ndarray, *, shim: int = 2) -> Fields:
    """The field of the whole head, taken apart. `chi` `(X, Y, Z)` in ppm relative to water.

    Tissue that the field of view cuts (the neck) is continued beyond it. The background is its
    mean over each voxel, the brain's own field band-limited (why: `simulation.field`).
    """
    # the brain's own susceptibility, and everything else relative to the air around the head
    inside = np.where(head.brain, chi, 0.0)
    mean = float(inside.sum() / max(head.brain.sum(), 1))
    own = np.where(head.brain, chi - mean, 0.0).astype(np.float32)
    with torch.no_grad():
        local = dipole_field(torch.from_numpy(own), head.voxel_size, head.b0_dir).numpy()
    background = _background((chi - own - AIR_CHI).astype(np.float32), head)
    total = local + background
    correction = harmonic_fit(total, head, shim)
    return Fields(total - correction, local, background, correction, own)


def _background(source: np.ndarray, head: Head) -> np.ndarray:
    """The field of what surrounds the brain, which is continued where the volume cuts it."""
    step = head.voxel_size
    extra = [_cut_faces(source, axis, round(48.0 / s)) for axis, s in enumerate(step)]
    padded = torch.from_numpy(np.pad(source, extra, mode="edge"))
    with torch.no_grad():
        found = voxel_field(padded, step, head.b0_dir).numpy()
    inner = tuple(slice(n, n + m) for (n, _), m in zip(extra, source.shape, strict=True))
    return np.ascontiguousarray(found[inner])


def _cut_faces(source: np.ndarray, axis: int, extra: int) -> tuple[int, int]:
    """How far to continue both ends of `axis`: only where tissue touches the end."""
    first, last = (np.abs(np.take(source, i, axis)).max() > 1.0 for i in (0, -1))
    return (extra if first else 0, extra if last else 0)


def harmonic_fit(values: np.ndarray, head: Head, order: int) -> np.ndarray:
    """Least-squares fit of the solid harmonics up to `order` (0 to 2) inside the brain."""
    shape = values.shape
    x, y, z = (
        ((np.arange(n, dtype=np.float32) - (n - 1) / 2) * s / 100.0).reshape(view)
        for n, s, view in zip(
            shape, head.voxel_size, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True
        )
    )
    terms = [x * 0 + 1.0]
    if order >= 1:
        terms += [x, y, z]
    if order >= 2:
        terms += [x * y, y * z, x * z, x**2 - y**2, 2 * z**2 - x**2 - y**2]
    inside = head.brain
    basis = np.stack([np.broadcast_to(t, shape)[inside] for t in terms], axis=1)
    weights, *_ = np.linalg.lstsq(
        basis.T @ basis, basis.T.astype(np.float64) @ values[inside], rcond=None
    )
    return sum(
        (np.float32(w) * t for w, t in zip(weights, terms, strict=True)),
        np.zeros(shape, dtype=np.float32),
    )


def acquire(head: Head, tissue: Tissue, protocol: Protocol, rng: np.random.Generator) -> Scan:
    """Simulate the acquisition of `head`."""
    truth = fields(head, tissue.chi, shim=protocol.shim)
    receive_rng, noise_rng = rng.spawn(2)
    signal = ideal_signal(head, tissue, truth.total, protocol)
    sensitivity = receivers(head, protocol, receive_rng)
    if protocol.coils:
        signal = signal[..., None] * sensitivity[..., None, :]
    else:
        signal *= sensitivity
    white = head.labels == lab.WHITE_MATTER
    if protocol.snr is not None and white.any():
        level = float(signal[white][:, 0].abs().mean()) / protocol.snr
        noise = noise_rng.standard_normal((*signal.shape, 2), dtype=np.float32)
        signal += level * torch.view_as_complex(torch.from_numpy(noise))
    return Scan(signal.abs().numpy(), signal.angle().numpy(), head, tissue, protocol, truth)


def ideal_signal(
    head: Head, tissue: Tissue, total: np.ndarray, protocol: Protocol
) -> torch.Tensor:
    """Complex signal `(X, Y, Z, E)` before the receiver: steady state, decay, phase, dephasing."""
    omega = 2 * math.pi * GYROMAGNETIC_RATIO * protocol.b0  # rad/s per ppm
    start = torch.from_numpy(steady_state(tissue, protocol))
    r2star = torch.from_numpy(tissue.r2star * rate_scale(protocol.b0))
    shift = torch.from_numpy(total) * omega
    slopes = phase_slopes(total, omega) if protocol.dephasing else []
    fat = torch.from_numpy(tissue.fat)
    echoes = []
    for number, te in enumerate(protocol.echo_times):
        magnitude = start * torch.exp(-te * r2star)
        for slope in slopes:  # ∫ exp(iγ∇B·r TE) over the voxel, one sinc per axis
            magnitude = magnitude * torch.sinc(slope * te / (2 * math.pi)).abs_()
        phase = shift * te + fat * (omega * FAT_SHIFT * te)
        if protocol.bipolar:
            phase = phase + _readout_phase(head, protocol.bipolar * (-1) ** number)
        echoes.append(torch.polar(magnitude, phase))
    return torch.stack(echoes, dim=-1)


def steady_state(
    tissue: Tissue, protocol: Protocol, transmit: np.ndarray | None = None
) -> np.ndarray:
    """Magnitude of the spoiled steady state (Ernst); `transmit` multiplies the flip angle."""
    e1 = np.exp(-protocol.repetition_time * tissue.r1 * (3.0 / protocol.b0) ** 0.35)
    alpha = np.deg2rad(protocol.flip_angle)
    if transmit is not None:
        alpha = alpha * transmit
    return (tissue.m0 * np.sin(alpha) * (1 - e1) / (1 - np.cos(alpha) * e1)).astype(np.float32)


def rate_scale(b0: float) -> np.float32:
    """R2* grows with B0: about 40 % of it at 3 T does not."""
    return np.float32(0.4 + 0.6 * b0 / 3.0)


def phase_slopes(total: np.ndarray, omega: float) -> list[torch.Tensor]:
    """Phase rate across one voxel along each axis (rad/s)."""
    volume = torch.from_numpy(total) * omega
    return list(torch.gradient(volume))


def _readout_phase(head: Head, across: float) -> torch.Tensor:
    ramp = torch.linspace(-0.5, 0.5, head.labels.shape[0]).view(-1, 1, 1)
    return (ramp + 0.15) * across


def receivers(head: Head, protocol: Protocol, rng: np.random.Generator) -> torch.Tensor:
    """Complex smooth sensitivity `(X, Y, Z, 1)` of the combined coil, or `(X, Y, Z, C)`."""
    x, y, z = (
        torch.linspace(-1, 1, n).view(view)
        for n, view in zip(head.labels.shape, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True)
    )
    channels = []
    for _ in range(max(protocol.coils, 1)):
        w = torch.from_numpy(rng.normal(size=20).astype(np.float32))
        phase = w[0] * 1.5 + w[1] * x + w[2] * y + w[3] * z + 0.6 * (
            w[4] * x * y + w[5] * y * z + w[6] * x * z + w[7] * x**2 + w[8] * y**2 + w[9] * z**2
        )  # fmt: skip
        bias = w[10] * x + w[11] * y + w[12] * z + w[13] * x**2 + w[14] * y**2 + w[15] * z**2
        if protocol.coils:
            place = torch.nn.functional.normalize(w[16:19], dim=0) * 1.3
            far = (x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2
            magnitude = torch.exp(-far / 1.8)
        else:
            magnitude = torch.exp(protocol.receive_bias * bias / 1.5)
        channels.append(torch.polar(magnitude, protocol.phase_offset * phase))
    return torch.stack(channels, dim=-1)
