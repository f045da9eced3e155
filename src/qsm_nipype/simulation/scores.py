"""Scores of a susceptibility map against a known truth, by the public scorer of QSM-CI."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

#: What the scores mean, in the order in which they are shown.
DESCRIPTIONS = {
    "nrmse": "error over truth, both without mean (%)",
    "xsim": "structural similarity made for QSM, 1 is perfect",
    "hfen": "error of fine detail (%)",
    "dgm_slope_error": "|1 − slope| over the deep grey nuclei, 0 is perfect",
    "correlation": "Pearson's r over voxels",
}


def score_chi(
    chi: np.ndarray, truth: np.ndarray, mask: np.ndarray, labels: np.ndarray | None = None
) -> Mapping[str, float]:
    """Scores of `chi` `(X, Y, Z)` in ppm inside `mask`; `labels` as QSM-CI numbers the nuclei.

    Both maps are set to zero outside the mask first, so that nothing there counts.
    """
    from qsm_ci import qsm_eval

    inside = mask > 0
    chi, truth = (np.where(inside, x, 0.0).astype(np.float64) for x in (chi, truth))
    nrmse, _ = qsm_eval.nrmse_challenge(chi, truth, inside)
    slope = math.nan
    if labels is not None:
        slope = qsm_eval.dgm_linearity(chi, truth, np.where(inside, np.rint(labels), 0))
    return {
        "nrmse": nrmse,
        "xsim": qsm_eval.xsim(chi, truth, inside),
        "hfen": qsm_eval.hfen(chi, truth, inside),
        "dgm_slope_error": slope,
        "correlation": qsm_eval.correlation(chi, truth, inside),
    }
