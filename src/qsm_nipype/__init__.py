"""Quantitative susceptibility mapping from gradient-echo MRI, as a BIDS App on Nipype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qsm_nipype.chain import Maps, reconstruct

__all__ = ["Maps", "__version__", "reconstruct"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The reconstruction in memory, imported when first asked for: it needs torch."""
    if name in ("Maps", "reconstruct"):
        from qsm_nipype import chain

        return getattr(chain, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
