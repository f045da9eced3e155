"""A scan with the effects of a real scanner."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.simulation import labels as lab
from qsm_nipype.simulation.head import Head
from qsm_nipype.simulation.scanner import finer
from qsm_nipype.simulation.scanner.effects import EFFECTS
from qsm_nipype.simulation.scanner.fat import displacement, fat_factor, shifted
from qsm_nipype.simulation.scanner.flow import (
    dephasing,
    flow_phase,
    readout_velocity,
    voxel_along_readout,
)
from qsm_nipype.simulation.scanner.frequency import anisotropic_field, fibres, microstructure
from qsm_nipype.simulation.scanner.kspace import acquired, filtered, lines_of
from qsm_nipype.simulation.scanner.noise import g_factor
from qsm_nipype.simulation.scanner.receive import poles, transmit_field
from qsm_nipype.simulation.scanner.storage import twelve_bit_magnitude, twelve_bits
from qsm_nipype.simulation.signal import (
    FAT_SHIFT,
    Protocol,
    Scan,
    fields,
    phase_slopes,
    rate_scale,
    receivers,
    steady_state,
)
from qsm_nipype.simulation.tissue import Tissue

Rngs = dict[str, np.random.Generator]


@dataclass(frozen=True)
class Spins:
    """Maps `(X, Y, Z)` on the simulated grid, from which every echo is made.

    `start`: steady state; `r2star` in 1/s; `rate`: precession in rad/s; `slopes`: phase rates
    across one voxel in rad/s; `fat`: share of the signal; `velocity` along the readout in mm/s.
    """

    start: Tensor
    r2star: Tensor
    rate: Tensor
    slopes: list[Tensor]
    fat: Tensor
    velocity: np.ndarray | None


def acquire_realistic(
    head: Head, tissue: Tissue, protocol: Protocol, rng: np.random.Generator
) -> Scan:
    """Simulate the acquisition of `head` with `protocol.effects`.

    With the effect "finer", `head` and `tissue` are on half voxels and the scan on whole ones.
    Each effect draws from a generator of its own, so that switching one changes no other.
    Raises ValueError for uncombined coils.
    """
    if protocol.coils:
        raise ValueError("the scanner's effects are those of combined coils; leave `coils` at 0")
    effects = protocol.effects
    receive_rng, noise_rng = rng.spawn(2)
    rngs = dict(zip(EFFECTS, rng.spawn(len(EFFECTS)), strict=True))
    truth = fields(head, tissue.chi, shim=protocol.shim)
    spins = _spins(head, tissue, truth.total, protocol, rngs)
    seen, body = head, tissue
    if "finer" in effects:
        seen, body = finer.whole_head(head), finer.whole_tissue(tissue)
        truth = finer.whole_fields(truth, seen.brain)
    lines = lines_of(seen, effects, len(protocol.echo_times), rngs)
    receiver = receivers(seen, protocol, receive_rng)[..., 0]
    if "poles" in effects:
        receiver = receiver * poles(seen, rngs["poles"])
    echoes = [
        acquired(_echo(spins, protocol, number, head) * receiver, lines, number, te, protocol.b0)
        for number, te in enumerate(protocol.echo_times)
    ]
    signal = torch.stack(echoes, dim=-1)
    signal = _with_noise(signal, seen, protocol, noise_rng, lines.window)
    magnitude, phase = signal.abs().numpy(), signal.angle().numpy()
    if "storage" in effects:
        magnitude, phase = twelve_bit_magnitude(magnitude), twelve_bits(phase)
    return Scan(magnitude, phase, seen, body, protocol, truth)


def _spins(head: Head, tissue: Tissue, total: np.ndarray, protocol: Protocol, rngs: Rngs) -> Spins:
    effects = protocol.effects
    omega = 2 * math.pi * GYROMAGNETIC_RATIO * protocol.b0
    shift = total
    if {"anisotropy", "microstructure"} & set(effects):
        # both effects see the same fibres, whichever of them is on
        direction = fibres(head, rngs["microstructure"])
        if "anisotropy" in effects:
            shift = shift + anisotropic_field(head, direction)
        if "microstructure" in effects:
            shift = shift + microstructure(direction)
    flip = None
    if "transmit" in effects:
        flip = transmit_field(head, protocol.b0, rngs["transmit"])
    velocity = readout_velocity(head, rngs["flow"]) if "flow" in effects else None
    return Spins(
        start=torch.from_numpy(steady_state(tissue, protocol, flip)),
        r2star=torch.from_numpy(tissue.r2star * rate_scale(protocol.b0)),
        rate=torch.from_numpy(shift) * omega,
        slopes=phase_slopes(total, omega) if protocol.dephasing else [],
        fat=torch.from_numpy(tissue.fat),
        velocity=velocity,
    )


def _echo(spins: Spins, protocol: Protocol, number: int, head: Head) -> Tensor:
    """Complex image of one echo on whole voxels, before receivers and k-space."""
    te = protocol.echo_times[number]
    magnitude = spins.start * torch.exp(-te * spins.r2star)
    for slope in spins.slopes:
        magnitude = magnitude * torch.sinc(slope * te / (2 * math.pi)).abs_()
    phase = spins.rate * te
    if spins.velocity is not None:
        voxel = voxel_along_readout(head) * (2 if "finer" in protocol.effects else 1)
        moved = flow_phase(spins.velocity, number, head, voxel)
        phase = phase + torch.from_numpy(moved)
        magnitude = magnitude * torch.from_numpy(dephasing(moved))
    turn = (-1) ** number if protocol.bipolar else 1
    if protocol.bipolar:
        ramp = torch.linspace(-0.5, 0.5, phase.shape[0]).view(-1, 1, 1) + 0.15
        phase = phase + turn * protocol.bipolar * ramp
    if "fat" not in protocol.effects:
        omega = 2 * math.pi * GYROMAGNETIC_RATIO * protocol.b0
        return _whole(
            torch.polar(magnitude, phase + spins.fat * (omega * FAT_SHIFT * te)), protocol
        )
    spin = torch.polar(magnitude, phase)
    water = _whole(spin * (1 - spins.fat), protocol)
    fat = _whole(spin * spins.fat, protocol) * fat_factor(te, protocol.b0)
    return water + shifted(fat, turn * displacement(protocol.b0))


def _whole(image: Tensor, protocol: Protocol) -> Tensor:
    return finer.voxel_mean(image) if "finer" in protocol.effects else image


def _with_noise(
    signal: Tensor,
    head: Head,
    protocol: Protocol,
    rng: np.random.Generator,
    window: Tensor | None,
) -> Tensor:
    """`signal` `(X, Y, Z, E)` with the noise of the protocol's SNR, shaped as k-space is."""
    white = head.labels == lab.WHITE_MATTER
    if protocol.snr is None or not white.any():
        return signal
    level = float(signal[white][:, 0].abs().mean()) / protocol.snr
    drawn = rng.standard_normal((*signal.shape, 2), dtype=np.float32)
    noise = torch.view_as_complex(torch.from_numpy(drawn))
    if window is not None:
        kept = float(window.square().mean().sqrt())
        noise = torch.stack([filtered(n, window) / kept for n in noise.unbind(-1)], dim=-1)
    if "gfactor" in protocol.effects:
        noise = noise * torch.from_numpy(g_factor(head, white))[..., None]
    return signal + level * noise
