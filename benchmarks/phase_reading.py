"""How clearly phase shows itself: the seam of a turn, and the head's field before a filter.

    python benchmarks/phase_reading.py [--data ../shared/data]

Prints, for simulated heads and for scanner data where the folder has it, the share of neighbours
across the seam (`reading.proof.find_turn`; none: no seam) of phase and magnitude, and by how much
the phase of 12 mm blocks differs (`reading.proof.large_scale_phase`) in ppm of the field: as
acquired, in the least of all slabs of 36 mm, and after high-pass filters for SWI.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import nibabel as nib
import numpy as np

from qsm_nipype.core import GYROMAGNETIC_RATIO
from qsm_nipype.core.reading.proof import find_turn, large_scale_phase
from qsm_nipype.core.reading.stored import StoredEcho, find_signal
from qsm_nipype.simulation.scanner.effects import EFFECTS
from qsm_nipype.simulation.signal import Protocol
from qsm_nipype.simulation.subject import simulate_subject

#: Scanner data: phase, magnitude, echo time (s, None: not known) and field strength (T).
SCANS = {
    "Philips, echo 1": (
        "bids_philips/sub-01/anat/sub-01_echo-1_part-phase_MEGRE.nii.gz",
        "bids_philips/sub-01/anat/sub-01_echo-1_part-mag_MEGRE.nii.gz", 0.0023, 3.0),
    "Philips, echo 2": (
        "bids_philips/sub-01/anat/sub-01_echo-2_part-phase_MEGRE.nii.gz",
        "bids_philips/sub-01/anat/sub-01_echo-2_part-mag_MEGRE.nii.gz", 0.0046, 3.0),
    "Siemens difference": (
        "siemens_me_fmap/me_FieldMap_GRE_3_e2_ph.nii",
        "siemens_me_fmap/me_FieldMap_GRE_2_e1.nii", 0.00246, 2.895),
    "cut-out of ROMEO.jl": ("romeo_small/Phase.nii", "romeo_small/Mag.nii", None, 0.0),
    "cut-out of CLEARSWI.jl": ("clearswi_small/Phase.nii", "clearswi_small/Mag.nii", None, 0.0),
}  # fmt: skip


def main() -> None:
    """Print one line for each image."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    folder = parser.parse_args().data
    for name, effects in (("simulated, clean", ()), ("simulated, realistic", tuple(EFFECTS))):
        times = (0.004, 0.012, 0.020, 0.028)
        protocol = Protocol(echo_times=times, effects=effects)
        scan = simulate_subject(2, shape=(64, 76, 64), voxel_size=3.0, protocol=protocol)
        for e, time in enumerate(times):
            phase, magnitude = scan.phase[..., e], scan.magnitude[..., e]
            show(f"{name}, {1000 * time:g} ms", phase, magnitude, (3.0,) * 3, time, 3.0)
    for name, (phase_file, magnitude_file, time, b0) in SCANS.items():
        if not (folder / phase_file).exists():
            continue
        image, other = nib.load(folder / phase_file), nib.load(folder / magnitude_file)
        phase, magnitude = image.get_fdata(), other.get_fdata()
        if phase.ndim == 4:
            phase, magnitude = phase[..., -1], magnitude[..., -1]
        size = [float(s) for s in image.header.get_zooms()[:3]]
        turn = find_turn(phase, find_signal([StoredEcho(name, phase)])[0])
        radians = phase * 2 * math.pi / turn.length if turn else phase
        show(name, radians, magnitude, size, time, b0)


def show(name, phase, magnitude, size, time, b0) -> None:
    """One line: shares across the seam, and the field between parts of the head."""
    words = [f"{name:32}", f"across: phase {across(phase)}, magnitude {across(magnitude)}"]
    if time is not None:
        unit = 2 * math.pi * GYROMAGNETIC_RATIO * b0 * time
        signal = magnitude * np.exp(1j * phase)
        least = min(slabs(phase, magnitude, size, 36.0))
        found = [large_scale_phase(phase, magnitude, size), least]
        found += [large_scale_phase(high_pass(signal, n), magnitude, size) for n in (16, 24, 32)]
        words.append("ppm: " + " ".join(f"{value / unit:.4f}" for value in found))
    print("; ".join(words))


def across(values) -> str:
    """The share of neighbours across the seam, or none."""
    turn = find_turn(values, find_signal([StoredEcho("", values)])[0])
    return "none" if turn is None else f"{turn.across:.2f}"


def slabs(phase, magnitude, size, thickness):
    """The phase between parts of the head in every slab along every axis."""
    for axis in range(3):
        count = round(thickness / size[axis])
        for first in range(0, phase.shape[axis] - count + 1, max(1, count // 2)):
            chosen = range(first, first + count)
            value = large_scale_phase(phase.take(chosen, axis), magnitude.take(chosen, axis), size)
            if value is not None:
                yield value


def high_pass(signal, lines):
    """The phase less that of the middle `lines` of k-space (Hann), slice by slice."""
    window = np.zeros(signal.shape[:2])
    middle = tuple(slice(n // 2 - lines // 2, n // 2 + lines // 2) for n in window.shape)
    window[middle] = np.outer(np.hanning(lines), np.hanning(lines))
    k = np.fft.fft2(signal, axes=(0, 1)) * np.fft.ifftshift(window)[..., None]
    return np.angle(signal * np.conj(np.fft.ifft2(k, axes=(0, 1))))


if __name__ == "__main__":
    main()
