"""Veins and bleeds on a susceptibility map: `hessian` its curvatures, `veins`, `bleeds`."""
