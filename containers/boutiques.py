"""The Boutiques descriptor of the participant and group runs, from the options of the program.

    python containers/boutiques.py > containers/boutiques.json

`tests/packaging/test_descriptor.py` says when it must be made again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import Field
from typing import Any

from qsm_nipype import __version__, methods, settings

#: What a descriptor cannot say or a platform decides: they submit jobs, or only print.
LEFT_OUT = {"submit", "array_size", "sbatch_args", "container", "verbose"}


def descriptor() -> dict[str, Any]:
    """The descriptor, schema 0.5."""
    places = [
        _input("bids_dir", "root of the BIDS dataset", "File", "[BIDS_DIR]"),
        _input("output_dir", "where the derivatives go", "String", "[OUTPUT_DIR]"),
        {
            **_input("analysis_level", "make maps, or join the tables", "String", "[LEVEL]"),
            "value-choices": ["participant", "group"],
        },
    ]
    chosen = [option for option in settings.options() if option.name not in LEFT_OUT]
    words = " ".join(f"[{option.name.upper()}]" for option in chosen)
    return {
        "name": "qsm-nipype",
        "tool-version": __version__,
        "schema-version": "0.5",
        "description": "Quantitative susceptibility maps from BIDS gradient-echo data.",
        "command-line": f"qsm-nipype [BIDS_DIR] [OUTPUT_DIR] [LEVEL] {words}",
        "container-image": {
            "type": "docker",
            "image": f"qsm-nipype:{__version__}",
            "container-opts": ["--network", "none"],
        },
        "inputs": [*places, *map(_option, chosen)],
        "output-files": [
            {
                "id": "output",
                "name": "derivatives",
                "path-template": "[OUTPUT_DIR]",
                "optional": False,
            }
        ],
        "suggested-resources": {"cpu-cores": 2, "ram": 8, "walltime-estimate": 600},
        "error-codes": [
            {"code": 1, "description": "An acquisition failed, or a map must not be used."},
            {"code": 2, "description": "Unusable input or usage: nothing was run."},
        ],
        "tags": {"domain": ["neuroinformatics", "mri", "bids"]},
    }


def _input(name: str, text: str, kind: str, key: str) -> dict[str, Any]:
    return {
        "id": name,
        "name": name.replace("_", " "),
        "description": text,
        "type": kind,
        "value-key": key,
        "optional": False,
    }


def _option(option: Field[Any]) -> dict[str, Any]:
    """One option as an input."""
    start, meta = settings.default(option), option.metadata
    found = {
        **_input(option.name, meta["help"], "String", f"[{option.name.upper()}]"),
        "optional": True,
        "command-line-flag": next(f for f in meta["flags"] if f.startswith("--")),
    }
    if isinstance(start, bool):
        return {**found, "type": "Flag"}
    if isinstance(start, (int, float)):
        return {**found, "type": "Number", "integer": isinstance(start, int)}
    if isinstance(start, Mapping) or (isinstance(start, tuple) and "step" not in meta):
        return {**found, "list": True}
    if meta.get("choices"):
        return {**found, "value-choices": list(meta["choices"])}
    if "Path" in str(option.type):
        return {**found, "type": "File"} if option.name != "work_dir" else found
    if "step" in meta:
        found["description"] += f": {', '.join(methods.names(meta['step']))}"
    return found


def text() -> str:
    """The descriptor as it is kept."""
    return json.dumps(descriptor(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
