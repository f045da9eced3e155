"""What a local field holds beside Dχ, read off the field itself, frequency by frequency.

A local field is D(k)·χ(k) + error. The spectrum P of χ and that of the error depend little on the
direction of k, D does: in a shell of |k| the power of the field is D²·Pχ + Pe, a line over D².
Its value on the magic cone, D = 0, is the error's, its slope that of χ. The window that keeps the
mask's edge out of this smears D over the cone a little; what it smears there follows from Pχ and
is taken off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsm_nipype.core.dipole import dipole_kernel
from qsm_nipype.core.field_noise import field_noise, window_inside
from qsm_nipype.core.fourier import frequencies, irfft, rfft, working_grid
from qsm_nipype.core.geometry import relative_voxel_size

#: Shells of |k| up to this multiple of the Nyquist frequency, and how many.
LARGEST_FREQUENCY, SHELLS = 1.3, 16
#: |D| within which a frequency tells of the error, and beyond which it tells of χ.
CONE, OUTSIDE = 0.04, 0.15
#: Fewest frequencies on the cone from which a shell can tell.
FEWEST = 12
#: Fewest voxels inside the window: 1 ppb of noise in 3000 was read as 0.4.
FEWEST_VOXELS = 5000
#: Shells (of the Nyquist frequency) that tell the white noise, and those that tell the share.
NOISY, TELLING = (0.7, 1.0), (0.18, 0.72)
#: Least noise power, as a share of the error's before the window's leak is taken off.
LEAST_NOISE = 1e-2


@dataclass(frozen=True)
class FieldError:
    """White noise of SD `noise` (ppm), and an error with `share`² of the power of χ.

    `power` is that of χ per voxel (ppm²) at the `frequencies` |k|, in units of the Nyquist
    frequency of the mean voxel; both are empty where the field could not tell.
    """

    noise: float
    share: float = 0.0
    frequencies: tuple[float, ...] = ()
    power: tuple[float, ...] = ()

    def model_to_noise(self, radius: Tensor, share: float) -> Tensor:
        """Power of the model's error over that of the noise at |k| = `radius`, as if `share`.

        Between shells the power is a power law; below the first and above the last, theirs.
        """
        x = torch.tensor(self.frequencies, dtype=torch.float64).log()
        y = torch.tensor(self.power, dtype=torch.float64).log()
        at = radius.clamp_min(1e-6).log().to(torch.float64).clamp(float(x[0]), float(x[-1]))
        upper = torch.bucketize(at, x.to(at.device)).clamp(1, len(x) - 1)
        x, y = x.to(at.device), y.to(at.device)
        t = (at - x[upper - 1]) / (x[upper] - x[upper - 1])
        found = torch.lerp(y[upper - 1], y[upper], t).exp_()
        return found.mul_((share / self.noise) ** 2).to(radius)


def field_error(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    noise: Tensor | None = None,
) -> FieldError:
    """Noise and model error of a local `field` `(X, Y, Z)` in ppm, where `mask` holds.

    Too small a mask tells nothing of the model: the noise is then that of `field_noise`, from
    the map `noise` (SD in ppm) where there is one.
    """
    mask = mask.bool() & torch.isfinite(field)
    shells = _shells(field, mask, voxel_size, b0_dir) if bool(mask.any()) else None
    if shells is None:
        return FieldError(field_noise(field, mask, voxel_size, b0_dir, noise=noise))
    radius, chi, error, leak = shells
    own = (error - leak).clamp_min(0).maximum(LEAST_NOISE * error)
    noisy = own[(radius > NOISY[0]) & (radius < NOISY[1])].median()
    telling = (radius > TELLING[0]) & (radius < TELLING[1])
    share = ((own - noisy).clamp_min(0) / chi)[telling].median()
    return FieldError(
        math.sqrt(float(noisy)),
        math.sqrt(float(share)),
        tuple(radius.tolist()),
        tuple(chi.tolist()),
    )


def _shells(
    field: Tensor, mask: Tensor, voxel_size: Sequence[float], b0_dir: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """|k|, power of χ, power on the cone and what the window leaks there; None if untold."""
    grid = working_grid(mask, padding=8)
    window = window_inside(grid.embed(mask.to(field.dtype)), voxel_size)
    energy = float(window.square().sum())
    if energy < FEWEST_VOXELS:
        return None
    inside = grid.embed(torch.where(mask, field, field.new_zeros(())))
    inside = _without_slow_part(inside, window)
    line = _Line(grid.shape, voxel_size, b0_dir, field)
    power = rfft(inside * window).abs().square().div_(energy)
    radius, chi, error = line.fit(power)
    kept = (chi > 0) & (error > 0)
    tells = kept & (radius > NOISY[0]) & (radius < NOISY[1])
    if not bool(tells.any()) or not bool((kept & (radius < TELLING[1])).any()):
        return None
    radius, chi, error = radius[kept], chi[kept], error[kept]
    # a χ of this power that fills space, seen through the window: the cone's share is the leak
    found = FieldError(1.0, 1.0, tuple(radius.tolist()), tuple(chi.tolist()))
    ideal = found.model_to_noise(line.radius, 1.0).mul_(line.D.square())
    blur = irfft(rfft(window).abs().square(), grid.shape)
    seen = rfft(blur.mul_(irfft(ideal, grid.shape))).real.div_(energy)
    again, bent, leak = line.fit(seen)
    bent, leak = bent[kept], leak[kept]
    return radius, chi, error, torch.where(bent > 0, leak / bent, 0.0) * chi


def _without_slow_part(field: Tensor, window: Tensor) -> Tensor:
    """`field` less its quadratic fit in the `window`, which would reach every frequency."""
    index = window.nonzero()
    inside = window[index.unbind(1)].to(torch.float64)
    x, y, z = ((index - index.double().mean(0)) / max(field.shape)).unbind(1)
    terms = (torch.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, y * z, z * x)
    basis = torch.stack(terms, dim=1)
    values = field[index.unbind(1)]
    weighted = basis.T * inside
    fit = basis @ torch.linalg.solve(weighted @ basis, weighted @ values.to(torch.float64))
    out = field.clone()
    out[index.unbind(1)] = values - fit.to(field.dtype)
    return out


class _Line:
    """The line of power over D², in every shell of |k|, on the half grid of `shape`."""

    def __init__(
        self,
        shape: Sequence[int],
        voxel_size: Sequence[float],
        b0_dir: Sequence[float],
        like: Tensor,
    ) -> None:
        self.D = dipole_kernel(tuple(shape), voxel_size, b0_dir, like)  # type: ignore[arg-type]
        self.radius = spectral_radius(shape, relative_voxel_size(voxel_size), like)
        square = self.D.square()
        shell = (self.radius * (SHELLS / LARGEST_FREQUENCY)).long()
        shell[self.radius == 0] = SHELLS
        # the half grid stands for the whole: its inner planes count twice
        twice = torch.full_like(square, 2.0)
        twice[..., 0] = twice[..., -1] = 1.0
        self._sets = []
        for chosen, power in ((square < CONE**2, 0), (square > OUTSIDE**2, -1)):
            chosen &= shell < SHELLS
            here, count = shell[chosen], twice[chosen]
            scale = square[chosen].pow(power) * count
            self._sets.append((chosen, here, scale, _summed(here, count)))
        cone, outside = self._sets
        self._count = cone[3]
        self._x = self._mean(square, cone)
        self._inverse = self._mean(torch.ones_like(square), outside)

    def fit(self, power: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """|k| of the shells, slope (power of χ) and value at D = 0 (power of the error)."""
        cone, outside = self._sets
        on, off = self._mean(power, cone), self._mean(power, outside)
        # on = x·Pχ + Pe,  off = Pχ + Pe·⟨1/D²⟩
        error = (on - self._x * off) / (1 - self._x * self._inverse)
        chi = off - self._inverse * error
        step = LARGEST_FREQUENCY / SHELLS
        radius = (torch.arange(SHELLS, dtype=torch.float64, device=chi.device) + 0.5) * step
        told = (self._count >= FEWEST) & torch.isfinite(chi) & torch.isfinite(error)
        return radius, torch.where(told, chi, 0.0), torch.where(told, error, 0.0)

    @staticmethod
    def _mean(values: Tensor, chosen: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        where, shell, scale, count = chosen
        return _summed(shell, values[where] * scale) / count


def _summed(shell: Tensor, values: Tensor) -> Tensor:
    """Sums of `values` in each shell, in double precision."""
    return torch.bincount(shell, weights=values.to(torch.float64), minlength=SHELLS)[:SHELLS]


def spectral_radius(shape: Sequence[int], voxel_size: Sequence[float], like: Tensor) -> Tensor:
    """|k| on the half grid of `shape`, in units of the Nyquist frequency of a voxel of 1."""
    k = frequencies(shape, voxel_size, like)
    return (2 * k[0]).square().add((2 * k[1]).square()).add((2 * k[2]).square()).sqrt_()
