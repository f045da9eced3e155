"""What the user can choose, as flags, files and presets, and what cannot work together."""

from qsm_nipype.settings.checks import check
from qsm_nipype.settings.files import (
    MOMENTARY,
    PLACES,
    coerce,
    combine,
    load_config,
    named_paths,
    preset_descriptions,
    presets,
    science,
    to_yaml,
    with_absolute_paths,
)
from qsm_nipype.settings.options import (
    NETWORKS,
    NO_METHOD,
    STARTS_AT,
    Settings,
    default,
    options,
)

__all__ = [
    "MOMENTARY",
    "NETWORKS",
    "NO_METHOD",
    "PLACES",
    "STARTS_AT",
    "Settings",
    "check",
    "coerce",
    "combine",
    "default",
    "load_config",
    "named_paths",
    "options",
    "preset_descriptions",
    "presets",
    "science",
    "to_yaml",
    "with_absolute_paths",
]
