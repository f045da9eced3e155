"""Numbers of a map that tell its faults from its anatomy, on cubes of about 3 mm (`seen`).

A haemorrhage is no fault. So what no tissue has (strong χ, strong field, quick decay) is counted
in the rim of the mask, where orbits, skull base and air would be, and slow shading is that of
values that tissue has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from qsm_nipype.core.dipole import dipole_kernel
from qsm_nipype.core.field_noise import window_inside
from qsm_nipype.core.fourier import frequencies, irfft, rfft, working_grid
from qsm_nipype.core.morphology import dilate, erode
from qsm_nipype.core.quality.seen import Seen

#: χ and field (ppm), decay (1/s at 3 T) of a cube that tissue hardly has; bone, air and fat do.
STRONG, DARK, STRONG_FIELD, QUICK = 0.3, -0.15, 0.1, 70.0
#: |χ| (ppm) beyond which a cube says nothing of shading.
TISSUE = 0.1
#: Depth (mm) of the rim.
RIM = 9.0
#: Radius (mm) round the mask's middle within which the iron-rich nuclei lie.
CORE = 40.0
#: Full widths (mm) of the bells under which nuclei and shading are what is left.
NUCLEUS, BROAD = 5.0, 22.0
#: Full width (mm) of the bell beside which structure of the residual is fine; depth (mm) of it.
FINE, OUTER = 9.0, 6.0
#: Shells (1/mm) in which cone and rest are set against each other.
SHELLS, STEP = (0.03, 0.05, 0.07, 0.09, 0.11), 0.02
#: |D| of the cone, and from where on a frequency is away from it.
CONE, AWAY = 0.06, 0.2
#: Share of a turn that a wrap within a cube leaves to one of its sides at least.
JUMP = 0.45
#: Frequencies of cone and rest in a shell that can tell.
FEWEST_OF_SHELL = 10
#: Voxels of the window inside the mask, and cubes of the core, below which nothing is said.
FEWEST = 50


# ---- the mask and its rim -----------------------------------------------------------------------


def mask_shape(seen: Seen) -> dict[str, float]:
    """Share of the mask (%) in parts thinner than 20 mm: necks, optic nerves, strips of scalp."""
    brain = seen.brain
    core = dilate(erode(brain, seen.edges, 10.0), seen.edges, 12.0)
    thin = float((brain & ~core).sum()) / max(float(brain.sum()), 1.0)
    return {"mask_thin": 100 * thin}


def rim_chi(seen: Seen) -> dict[str, float]:
    """Share of the rim (%) whose χ is that of bone, air, fat or an artefact."""
    chi = seen.maps["chi"]
    return {
        "rim_strong": _share(seen, chi.abs() > STRONG),
        "rim_dark": _share(seen, chi < DARK),
    }


def rim_field(seen: Seen) -> dict[str, float]:
    """Share of the rim (%) whose local field no tissue makes."""
    return {"rim_field": _share(seen, seen.maps["local_field"].abs() > STRONG_FIELD)}


def rim_decay(seen: Seen) -> dict[str, float]:
    """Share of the rim (%) that decays quicker than tissue, which does so more with B0."""
    quick = QUICK * (0.4 + 0.6 * seen.b0 / 3.0)
    return {"rim_decay": _share(seen, seen.maps["r2star"] > quick)}


def _share(seen: Seen, what: Tensor) -> float:
    rim = seen.known & (seen.depth <= RIM)
    return 100 * float((what & rim).sum()) / max(float(rim.sum()), 1.0)


# ---- χ ------------------------------------------------------------------------------------------


def spread_of_chi(seen: Seen) -> dict[str, float]:
    """Half the 16th to 84th percentile of χ, and its median as it was written (ppb)."""
    inside = seen.maps["chi"][seen.known]
    return {"chi_spread": 1000 * spread(inside), "chi_level": 1000 * seen.level}


def nuclei(seen: Seen) -> dict[str, float]:
    """χ (ppb) of the middle's most unusual hundredth, and which way the middle leans (−1 to 1)."""
    core = _core(seen)
    if int(core.sum()) < FEWEST:
        return {}
    chi = smooth(seen.maps["chi"], seen.known, seen.edges, NUCLEUS)[core]
    middle, low, high = (quantile(chi, share) for share in (0.5, 0.01, 0.99))
    return {
        "chi_nuclei": 1000 * max(high - middle, middle - low),
        "chi_lean": (high + low - 2 * middle) / max(high - low, 1e-9),
    }


def iron(seen: Seen) -> dict[str, float]:
    """Median χ (ppb) where the middle decays quickest: iron raises both, whatever the contrast.

    A calcification that fills less than half of these places does not turn it.
    """
    core = _core(seen)
    if int(core.sum()) < FEWEST:
        return {}
    chi, decay = (
        smooth(seen.maps[name], seen.known, seen.edges, NUCLEUS)[core]
        for name in ("chi", "r2star")
    )
    quick = decay >= quantile(decay, 0.96)
    return {"chi_iron": 1000 * (quantile(chi[quick], 0.5) - quantile(chi, 0.5))}


def shading(seen: Seen) -> dict[str, float]:
    """SD (ppb) of χ under a broad bell: tissue has little there, wedges and bands have."""
    chi = seen.maps["chi"].clamp(-TISSUE, TISSUE)
    return {"shading": 1000 * float(smooth(chi, seen.known, seen.edges, BROAD)[seen.known].std())}


def streaks(seen: Seen) -> dict[str, float]:
    """Power of χ on the magic cone over that away from it."""
    ratio = cone_ratio(seen.maps["chi"], seen)
    return {} if ratio is None else {"streaks": ratio}


def _core(seen: Seen) -> Tensor:
    """Cubes deep in the mask and near its middle, where the nuclei of the brain lie."""
    where = seen.known.nonzero()
    index = where.to(torch.float32)
    off = (index - index.mean(0)) * torch.tensor(seen.edges, device=index.device)
    core = torch.zeros_like(seen.known)
    core[where[off.square().sum(1) < CORE**2].unbind(1)] = True
    return core & (seen.depth > RIM)


# ---- fields -------------------------------------------------------------------------------------


def local_field(seen: Seen) -> dict[str, float]:
    """Half the 16th to 84th percentile of the local field (ppb), and its power on the cone.

    A field that χ makes has none there; noise, motion, wraps and a wrong direction of B0 do.
    """
    field = seen.maps["local_field"]
    found = {"field_spread": 1000 * spread(field[seen.known])}
    ratio = cone_ratio(field, seen)
    return found if ratio is None else {**found, "field_cone": ratio}


def misfit(seen: Seen) -> dict[str, float]:
    """Share (%) of the local field's power that the field of χ does not explain."""
    chi, field = seen.maps["chi"], seen.maps["local_field"]
    deep = seen.known & (seen.depth > 2 * max(seen.edges))
    if int(deep.sum()) < FEWEST:
        return {}
    grid = working_grid(seen.known, padding=[max(8, n // 3) for n in seen.known.shape])
    D = dipole_kernel(grid.shape, seen.edges, seen.b0_dir, chi)
    made = grid.restore(irfft(rfft(grid.embed(chi * seen.known)).mul_(D), grid.shape))
    a, b = ((v - smooth(v, seen.known, seen.edges, BROAD))[deep] for v in (made, field))
    r = float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-30))
    return {"misfit": 100 * (1 - r * abs(r))}


def jumps(seen: Seen) -> dict[str, float]:
    """Neighbouring cubes whose total field is almost half a turn apart (‰ of all)."""
    if seen.turn is None:
        return {}
    over = pairs = 0
    for axis, n in enumerate(seen.known.shape):
        both = seen.known.narrow(axis, 0, n - 1) & seen.known.narrow(axis, 1, n - 1)
        off = seen.maps["total_field"].diff(dim=axis).abs()
        over += int((both & (off > JUMP * seen.turn)).sum())
        pairs += int(both.sum())
    return {"field_jumps": 1000 * over / max(pairs, 1)}


def echoes(seen: Seen) -> dict[str, float]:
    """How far the echoes are from one field (rad): 90th percentile, and that of fine structure.

    What a model leaves out is smooth; lines and grains deep in the mask are motion and ghosts.
    """
    residual = seen.maps["residual"]
    found = {"residual_p90": quantile(residual[seen.known], 0.9)}
    inside = erode(seen.brain, seen.edges, OUTER)
    if int(inside.sum()) >= FEWEST:
        fine = residual - smooth(residual, seen.brain, seen.edges, FINE)
        found["residual_fine"] = quantile(fine[inside].abs(), 0.9)
    return found


def together(seen: Seen) -> dict[str, float]:
    """Geometric mean of the residual's 90th percentile and the field's power on the cone.

    Echoes that disagree and a field that no χ makes are independent signs of motion: both raised
    a little say more than one of them.
    """
    cone = cone_ratio(seen.maps["local_field"], seen)
    if cone is None:
        return {}
    return {"echoes_and_cone": math.sqrt(cone * echoes(seen)["residual_p90"])}


def noise(seen: Seen) -> dict[str, float]:
    """Median noise (ppb) of the field's mean over 27 mm³."""
    inside = seen.maps["noise"][seen.known]
    return {"noise_cube": 1000 * quantile(inside, 0.5) * math.sqrt(seen.voxel / 27)}


# ---- pieces -------------------------------------------------------------------------------------


def quantile(values: Tensor, share: float) -> float:
    """The value below which `share` of `values` lie (0.5: the lower median)."""
    values = values.flatten()
    rank = min(len(values), max(1, math.ceil(share * len(values))))
    return float(values.kthvalue(rank).values)


def spread(values: Tensor) -> float:
    """Half the distance between the 16th and the 84th percentile: the SD of a normal one."""
    return (quantile(values, 0.84) - quantile(values, 0.16)) / 2


def smooth(values: Tensor, mask: Tensor, edges: tuple[float, float, float], fwhm: float) -> Tensor:
    """Mean of `values` in `mask` under a bell of `fwhm` (mm); zero outside."""
    grid = working_grid(mask, padding=[math.ceil(2 * fwhm / e) for e in edges])
    k = frequencies(grid.shape, edges, values)
    squared = k[0].square() + k[1].square() + k[2].square()
    bell = torch.exp(squared * (-((math.pi * fwhm) ** 2) / (4 * math.log(2))))
    inside = mask.to(values.dtype)
    top = irfft(rfft(grid.embed(values * inside)).mul_(bell), grid.shape)
    bottom = irfft(rfft(grid.embed(inside)).mul_(bell), grid.shape)
    return grid.restore(top / bottom.clamp_min(0.05)) * inside


def cone_ratio(volume: Tensor, seen: Seen) -> float | None:
    """Power of `volume` near the cone D = 0 over that away from it, at the same |k|.

    Median over the shells; a smooth window inside the mask keeps its edge out. None where the
    mask is too small to tell.
    """
    mask = seen.known
    grid = working_grid(mask, padding=8)
    window = window_inside(grid.embed(mask.to(volume.dtype)), seen.edges)
    if float(window.sum()) < FEWEST:
        return None
    inside = grid.embed(volume * mask)
    inside = (inside - (inside * window).sum() / window.sum()).mul_(window)
    power = rfft(inside).abs().square()
    twice = torch.full_like(power, 2.0)  # the half grid stands for the whole
    twice[..., 0] = twice[..., -1] = 1.0
    D = dipole_kernel(grid.shape, seen.edges, seen.b0_dir, volume).abs()
    k = frequencies(grid.shape, seen.edges, volume)
    radius = (k[0].square() + k[1].square() + k[2].square()).sqrt()
    ratios = []
    for low in SHELLS:
        shell = (radius >= low) & (radius < low + STEP)
        near, rest = (shell & part for part in (D < CONE, D > AWAY))
        if int(near.sum()) > FEWEST_OF_SHELL and int(rest.sum()) > FEWEST_OF_SHELL:
            means = [(power[w] * twice[w]).sum() / twice[w].sum() for w in (near, rest)]
            ratios.append(float(means[0] / means[1].clamp_min(1e-30)))
    return sorted(ratios)[len(ratios) // 2] if ratios else None


#: Every measure and the maps that it takes.
MEASURES: Mapping[Callable[[Seen], dict[str, float]], tuple[str, ...]] = MappingProxyType(
    {
        mask_shape: (),
        rim_chi: ("chi",),
        rim_field: ("local_field",),
        rim_decay: ("r2star",),
        spread_of_chi: ("chi",),
        nuclei: ("chi",),
        iron: ("chi", "r2star"),
        shading: ("chi",),
        streaks: ("chi",),
        local_field: ("local_field",),
        misfit: ("chi", "local_field"),
        jumps: ("total_field",),
        echoes: ("residual",),
        together: ("residual", "local_field"),
        noise: ("noise",),
    }
)


def measured(seen: Seen) -> dict[str, float]:
    """Every measure that the maps of `seen` allow, by name."""
    found: dict[str, float] = {}
    for measure, needed in MEASURES.items():
        if all(name in seen.maps for name in needed):
            found |= measure(seen)
    return found
