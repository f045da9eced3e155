"""Integers in which vendors store phase and magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Stored:
    """Integers, and the `slope` and `intercept` that an image's header gives them.

    `units` are BIDS': rad where header and integers make radians, else arbitrary.
    """

    values: np.ndarray
    slope: float = 1.0
    intercept: float = 0.0
    units: str = "arbitrary"


def radians(phase: np.ndarray) -> Stored:
    """Float32 in rad: nothing is lost."""
    return Stored(phase.astype(np.float32), units="rad")


def siemens(phase: np.ndarray) -> Stored:
    """−4096 … 4094 in steps of two: 12 bits, as the converted images of a Siemens scanner."""
    steps = 2 * np.clip(np.round(phase / np.pi * 2048), -2048, 2047)
    return Stored(steps.astype(np.int16))


def ge(phase: np.ndarray) -> Stored:
    """Milliradian, −3142 … 3142, as General Electric stores phase."""
    return Stored(np.round(phase * 1000).astype(np.int16))


def philips(phase: np.ndarray) -> Stored:
    """0 … 4095 with slope and intercept that make radians, as Philips stores phase."""
    slope = 2 * np.pi / 4095
    steps = np.clip(np.round((phase + np.pi) / slope), 0, 4095)
    return Stored(steps.astype(np.int16), slope, -np.pi, "rad")


def twelve_bits(phase: np.ndarray) -> np.ndarray:
    """Phase in rad as it reads back from 12 bits."""
    read = siemens(phase).values.astype(np.float32)
    return read * np.float32(np.pi / 4096)


def twelve_bit_magnitude(magnitude: np.ndarray) -> np.ndarray:
    """`magnitude` rounded to the 4095 steps that end at its 99.95th percentile."""
    step = max(float(np.percentile(magnitude[..., 0], 99.95)), 1e-12) / 4095
    return (np.clip(np.round(magnitude / step), 0, 4095) * step).astype(np.float32)
