"""The templates of the pages."""

from __future__ import annotations

from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from qsm_nipype.report.words import href


@lru_cache(maxsize=1)
def load_templates() -> Environment:
    """The templates, with every value escaped."""
    env = Environment(
        loader=PackageLoader("qsm_nipype.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["href"] = href
    return env
