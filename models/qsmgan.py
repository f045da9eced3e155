"""QSMGAN: a 3-D U-Net with context around its output, refined by a Wasserstein critic [Chen2020]_.

Layers and their names are the published ones, so that the authors' checkpoints load. The input is
the local field (ppm) times `INPUT_SCALE`, the output tanh(`OUTPUT_SCALE` · χ), χ in ppm. Ours has
two more input channels, the `first_guesses` of the whole head, the second of which the network
corrects: they bring what lies beyond the patch, and learning starts from total variation instead
of from nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from qsm_nipype.core.field_noise import field_noise
from qsm_nipype.core.inversion import Solution
from qsm_nipype.core.inversion.harmonic import whtv
from qsm_nipype.core.inversion.problem import field_problem
from qsm_nipype.errors import UsageError, WeightsError
from qsm_nipype.models.consistency import consistent, settled
from qsm_nipype.models.frames import network_frame
from qsm_nipype.models.inference import sliding_window
from qsm_nipype.models.untrusted import stated_number
from qsm_nipype.models.weights import Weights, fill

INPUT_SCALE = 100.0
OUTPUT_SCALE = 10.0
#: Voxels of context on each side of the output: 64³ in, 48³ out, as published.
CONTEXT = 8
#: Voxels that the outputs of neighbouring tiles share.
OVERLAP = 8
#: Edges of patches are multiples of this: four halvings.
STRIDE = 16
#: Error (ppm) to expect of the network's map, against which the field's noise is weighed.
PRIOR_ERROR = 0.004
#: Share of the model's error that does not count against the map (`core.inversion.problem`).
MODEL_SHARE = 0.3
#: Spread of χ (ppm) that the guess of least norm expects, against which the noise is weighed.
GUESS_SPREAD = 0.04
#: Iterations of that guess: further ones change it by less than the network's error.
GUESS_ITERATIONS = 10


class ConvBlock(nn.Module):
    """Twice convolution 3³, batch normalisation, LeakyReLU 0.1."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n in (in_channels, out_channels):
            layers += [
                nn.Conv3d(n, out_channels, 3, padding=1),
                nn.BatchNorm3d(out_channels),
                nn.LeakyReLU(0.1),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def fuse(self) -> None:
        """Fold the normalisations into the convolutions (evaluation mode only, in place)."""
        for i in (0, 3):
            convolution, norm = self.layers[i], self.layers[i + 1]
            self.layers[i] = fuse_conv_bn_eval(convolution, norm)  # type: ignore[arg-type, type-var]
            self.layers[i + 1] = nn.Identity()


class Generator(nn.Module):
    """The four-level U-Net: 2,686,803 parameters at the published 16 channels.

    `forward` takes `(B, inputs, X, Y, Z)` with edges divisible by 16 and returns the middle,
    `crop` voxels smaller on each side. Of several inputs the last is a first guess of χ, scaled
    by `OUTPUT_SCALE`, and the layers give the correction to it.
    """

    def __init__(self, channels: int = 16, levels: int = 4, inputs: int = 1) -> None:
        super().__init__()
        self.inputs = inputs
        widths = [channels * 2**i for i in range(levels)]
        self.down_sample_layers = nn.ModuleList(
            ConvBlock(n, m) for n, m in zip([inputs, *widths[:-1]], widths, strict=True)
        )
        self.conv = ConvBlock(widths[-1], widths[-1])
        ups = widths[::-1]
        self.conv_transpose_layers = nn.ModuleList(
            nn.ConvTranspose3d(n, n, 2, stride=2) for n in ups
        )
        self.up_sample_layers = nn.ModuleList(
            ConvBlock(2 * n, m) for n, m in zip(ups, [*ups[1:], channels], strict=True)
        )
        project, last = nn.Conv3d(channels, 1, 1), nn.Conv3d(1, 1, 1)
        self.conv2 = nn.Sequential(project, last, nn.Tanh())
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.xavier_uniform_(layer.weight)
        if inputs > 1:
            nn.init.constant_(last.weight, 0.1)  # start near the first guess

    def forward(self, x: Tensor, crop: int = CONTEXT) -> Tensor:
        return self.conv2[2](self.argument(x, crop))

    def argument(self, x: Tensor, crop: int = CONTEXT) -> Tensor:
        """What the last tanh is taken of: `OUTPUT_SCALE` · χ."""
        skips, guess = [], x[:, -1:]
        for down in self.down_sample_layers:
            x = down(x)
            skips.append(x)
            x = functional.avg_pool3d(x, 2)
        x = self.conv(x)
        for rise, up in zip(self.conv_transpose_layers, self.up_sample_layers, strict=True):
            x = up(torch.cat([rise(x), skips.pop()], dim=1))
        x = self.conv2[1](self.conv2[0](crop_middle(x, crop)))
        return x + crop_middle(guess, crop) if self.inputs > 1 else x

    def fused(self) -> Generator:
        """This network in evaluation mode with the normalisations folded in: same output, faster.

        Works in place and returns itself; it cannot be trained afterwards.
        """
        self.eval()
        for layer in self.modules():
            if isinstance(layer, ConvBlock):
                layer.fuse()
        return self


class Critic(nn.Module):
    """Four strided convolutions (no batch norm, which the gradient penalty forbids) and a score.

    `(B, 1, X, Y, Z)`, edges ≥ 16, → `(B,)`: how much the patch looks like a susceptibility map.
    """

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        widths = [1, *(channels * 2**i for i in range(4))]
        layers: list[nn.Module] = []
        for n, m in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Conv3d(n, m, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.score = nn.Conv3d(widths[-1], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.score(self.layers(x)).mean(dim=(1, 2, 3, 4))


def crop_middle(x: Tensor, crop: int) -> Tensor:
    """The volume without `crop` voxels at each side."""
    return x[..., crop:-crop, crop:-crop, crop:-crop] if crop else x


def scale_field(field: Tensor) -> Tensor:
    """Local field (ppm) → what the generator takes."""
    return field * INPUT_SCALE


@dataclass(frozen=True)
class Trained:
    """A generator with its weights and scales; a negative `input_scale` turns the field's sign."""

    network: Generator
    input_scale: float = INPUT_SCALE
    output_scale: float = OUTPUT_SCALE


def load_network(weights: Weights) -> Trained:
    """The generator that `weights` belong to, channels and levels read off their shapes.

    Scales and field sign come from what the file says about itself. Raises WeightsError.
    """
    first = weights.tensors.get("down_sample_layers.0.layers.0.weight")
    if first is None or first.ndim != 5:
        raise WeightsError(
            f"{weights.path}: these are not the weights of a QSMGAN generator; "
            "give the file of the right network"
        )
    blocks = {n.split(".")[1] for n in weights.tensors if n.startswith("down_sample_layers.")}
    if first.shape[0] > 512 or first.shape[1] > 16 or len(blocks) > 8:
        raise WeightsError(f"{weights.path}: too large for a QSMGAN generator; give another file")
    network = Generator(first.shape[0], len(blocks), first.shape[1])
    fill(network, weights)
    scales = {"field_sign": 1.0, "input_scale": INPUT_SCALE, "output_scale": OUTPUT_SCALE}
    sign, given, made = (
        stated_number(weights.about, k, v, weights.path) for k, v in scales.items()
    )
    return Trained(network.fused(), sign * given, made)


def qsmgan(  # noqa: PLR0913  what each inversion may be given
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    generator: Trained,
    patch: int = 64,
    consistency: float | None = None,
    noise: Tensor | None = None,
    region: Tensor | None = None,
) -> Solution:
    """Susceptibility (ppm) by the QSMGAN [Chen2020]_ from the local `field` (ppm).

    `field` and `mask` (bool) are `(X, Y, Z)`. Tiles of `patch` voxels whose outputs overlap
    run in the 1 mm frame along B0 that the network knows; acquisitions on other
    grids are interpolated there and back. The map is then made consistent with the measured
    field (`consistency.settled`): χ minimises ‖W(D χ + c − f)‖² + `consistency`·‖χ − χ_net‖², so
    that the network decides where the field does not tell; c is what no susceptibility explains,
    and sources may lie in `region` (bool; None: in the mask only). `consistency` None: the squared
    ratio of the noise (median of `noise` in the mask, ppm; measured in the field if there is none)
    to the network's typical error. W follows the map of the `noise`, and a `consistency` of
    `float("inf")` leaves the network's map as it is. Raises UsageError for a `patch` that the
    network cannot halve four times or that is all context.
    """
    if patch % STRIDE or patch <= 2 * CONTEXT:
        raise UsageError(f"qsmgan: patch is {patch}; give a multiple of {STRIDE} above {STRIDE}")
    frame = network_frame(field.shape, voxel_size, b0_dir)
    inside = field.new_zeros(field.shape).masked_fill(mask, 1.0)
    where = frame.enter(inside) > 0.5
    sd = field_noise(field, mask, voxel_size, b0_dir, noise=noise)
    channels = [frame.enter(field * inside) * generator.input_scale]
    if generator.network.inputs > 1:
        guesses = first_guesses(
            field, mask, voxel_size, b0_dir, noise=sd, noise_map=noise, region=region
        )
        channels += [frame.enter(guess) * generator.output_scale for guess in guesses]
    network = generator.network.to(field.device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    out = sliding_window(
        torch.stack(channels) * where,
        lambda x: network.argument(x.contiguous(memory_format=torch.channels_last_3d)),
        patch=(patch,) * 3,
        overlap=(OVERLAP,) * 3,
        context=CONTEXT,
        where=where,
    )
    prior = frame.leave(out / generator.output_scale)  # as if by atanh, but never saturated
    weight = consistency_weight(sd) if consistency is None else consistency
    parameters = {"consistency": weight}
    if weight == float("inf"):
        return Solution(prior * inside, parameters=parameters)
    problem = field_problem(
        field, mask, voxel_size, b0_dir, noise=noise, region=region, model_share=MODEL_SHARE
    )
    chi, steps = settled(prior * inside, problem, weight=weight)
    return Solution(chi, iterations=steps, parameters=parameters)


def first_guesses(
    field: Tensor,
    mask: Tensor,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float],
    *,
    noise: float,
    noise_map: Tensor | None = None,
    region: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Two maps χ (ppm, `(X, Y, Z)`) that the network starts from; it corrects the second.

    The χ of least norm that explains the `field` inside the `mask` only: noisy, but with all
    detail. And that of weak-harmonic total variation, which knows of sources in `region` beyond
    the mask, of rests of the background and of the model's error. Unlike division by the dipole
    kernel, both know that the field outside the mask was not measured. `noise` is the field's SD
    in ppm, `noise_map` its map if there is one.
    """
    weight = max(noise / GUESS_SPREAD, 0.01) ** 2
    nothing = torch.zeros_like(field)
    case = (field * mask, mask, voxel_size, b0_dir)
    least, _ = consistent(nothing, *case, weight=weight, max_iterations=GUESS_ITERATIONS)
    known = torch.full_like(field, noise) if noise_map is None else noise_map
    return least, whtv(*case, noise=known, region=region).chi


def consistency_weight(noise: float) -> float:
    """Squared ratio of the field's noise (SD, ppm) to the error expected of the network's map."""
    return max(noise / PRIOR_ERROR, 1e-3) ** 2
