"""Susceptibility-weighted imaging: the magnitude, darker where phase or χ say so.

`phase` and `chi` hold the methods, `magnitude` joins the echoes, `projection` makes the minimum
intensity projection, `filters` the low pass that all share. Every method takes
`(magnitude, mask, voxel_size, b0_dir)` and what else it needs by name, and returns a `Weighted`.
"""

from qsm_nipype.core.swi.result import Weighted

__all__ = ["Weighted"]
