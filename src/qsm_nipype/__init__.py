"""Quantitative susceptibility mapping from gradient-echo MRI, as a BIDS App on Nipype."""

__version__ = "0.1.0"
