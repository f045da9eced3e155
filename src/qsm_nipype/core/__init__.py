"""Numerics as pure functions of tensors: no file, no Nipype, no logging.

Units everywhere: phase in rad, fields and susceptibility in ppm of B0, time in s, length in mm,
R2* in 1/s. Volumes are `(X, Y, Z)` tensors, echoes come last. `b0_dir` is the unit direction of
the main field along the voxel axes. Paramagnetic susceptibility is positive.
"""

#: γ/2π of the proton in MHz/T (CODATA 2018), so that ppm · B0 · GYROMAGNETIC_RATIO is in Hz.
GYROMAGNETIC_RATIO = 42.577478
