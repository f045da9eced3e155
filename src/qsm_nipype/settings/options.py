"""What the user can choose: one frozen dataclass, every default written here once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qsm_nipype import methods
from qsm_nipype.core.given import KINDS as GIVEN_KINDS
from qsm_nipype.core.given import UNITS
from qsm_nipype.core.mask_language import parse_masks

#: Networks whose weights the user may replace.
NETWORKS = tuple(dict.fromkeys(m.network for m in methods.METHODS if m.network is not None))


#: The first step after a map that was given, by its kind.
STARTS_AT = {"chi": "reference", "localfield": "inversion", "totalfield": "background"}
#: What turns off a step that is optional.
NO_METHOD = "none"


def _option(default: Any, group: str, help_text: str, *flags: str, **extra: Any) -> Any:
    """A field with what the command line needs to know of it."""
    metadata = {"group": group, "help": help_text, "flags": flags, **extra}
    if isinstance(default, dict):
        return field(default_factory=lambda: MappingProxyType(dict(default)), metadata=metadata)
    return field(default=default, metadata=metadata)


_WHAT, HOW, _RUN, _SHOW = "what to process", "how to process it", "how to run", "what to see"
_JOBS = "one SLURM job per participant"


@dataclass(frozen=True)
class Settings:
    """All choices of one run; field metadata holds flag, help text and the help's group."""

    bids_dir: Path
    output_dir: Path
    analysis_level: str = "participant"

    participant_label: tuple[str, ...] = _option(
        (),
        _WHAT,
        "participants to process, with or without sub-",
        "--participant-label",
        "--participant_label",
    )
    session_label: tuple[str, ...] = _option(
        (), _WHAT, "sessions to process, with or without ses-", "--session-label"
    )
    bids_filter_file: Path | None = _option(
        None, _WHAT, "JSON file with pybids filters under the key 'gre'", "--bids-filter-file"
    )
    derivatives: Mapping[str, str] = _option(
        {},
        _WHAT,
        "your own files, NAME=PATH: masks of the brain, reference region, segmentation (labels of "
        "any space of the head), lesions (MS, with a FLAIR in the dataset), r2 (map of R2 "
        "or T2); or a map to start at: chi, localfield or totalfield (no gradient echoes are "
        "needed)",
        "-d",
        "--derivatives",
    )
    bids_database_dir: Path | None = _option(
        None,
        _WHAT,
        "pybids database, for filters that only pybids reads",
        "--bids-database-dir",
    )
    skip_bids_validation: bool = _option(
        False, _WHAT, "do not run the BIDS validator first", "--skip-bids-validation"
    )

    preset: str | None = _option(None, HOW, "start from a named preset", "--preset")
    phase_sign: str = _option(
        "auto",
        HOW,
        "sign of the stored phase; auto: from the outline of the head; slabs are left as stored",
        "--phase-sign",
        choices=("auto", "positive", "negative"),
    )
    phase_units: str = _option(
        "",
        HOW,
        "unit of the stored phase, where the images show none: rad, mrad, deg, cycles, or the "
        "range of one turn as in -4096..4095",
        "--phase-units",
    )
    map_units: str = _option(
        "auto",
        HOW,
        "unit of the map of -d chi, localfield or totalfield; auto: as its sidecar says, else ppm",
        "--map-units",
        choices=("auto", *UNITS),
    )
    offset: str = _option("mcpc3ds", HOW, "phase offset removal", "--offset", step="offset")
    unwrapping: str = _option("romeo", HOW, "phase unwrapping", "--unwrapping", step="unwrapping")
    fit: str = _option("linear", HOW, "field fit over the echoes", "--fit", step="fit")
    mask: str = _option(
        "quality&net:dilate:2",
        HOW,
        "brain mask; several joined by & intersect, each after its own operations, as in "
        "quality&net:dilate:3",
        "--mask",
        step="mask",
    )
    trim: str = _option(
        "reliable", HOW, "which voxels of the mask are kept", "--trim", step="trim"
    )
    background: str = _option(
        "ismv_tv", HOW, "background field removal", "--background", "--bfr", step="background"
    )
    inversion: tuple[str, ...] = _option(
        ("whtv",),
        HOW,
        "dipole inversion; several, separated by commas: the default, or else the first, is the "
        "main map",
        "--inversion",
        step="inversion",
    )
    relaxometry: str = _option(
        "loglinear",
        HOW,
        "R2* and T2* mapping; none: no such maps",
        "--relaxometry",
        step="relaxometry",
        optional=True,
    )
    segmentation: tuple[str, ...] = _option(
        ("dentate", "deepgrey"),
        HOW,
        "what is segmented on the map, separated by commas; none: nothing",
        "--segmentation",
        step="segmentation",
        optional=True,
    )
    swi: tuple[str, ...] = _option(
        (),
        HOW,
        "susceptibility-weighted images with their minimum intensity projections; several, "
        "separated by commas",
        "--swi",
        step="swi",
        optional=True,
    )
    separation: str = _option(
        "none",
        HOW,
        "paramagnetic and diamagnetic susceptibility apart, by R2′; R2 is that of -d r2 or of "
        "MESE images, else it is assumed",
        "--separation",
        step="separation",
        optional=True,
    )
    vessels: tuple[str, ...] = _option(
        (),
        HOW,
        "what is looked for on the map: veins, bleeds (candidates); several, separated by commas",
        "--vessels",
        step="vessels",
        optional=True,
    )
    reference: str = _option(
        "brain",
        HOW,
        "region whose mean susceptibility is zero",
        "--reference",
        choices=tuple(methods.names("reference")),
    )
    two_stage: float = _option(
        0.0,
        HOW,
        "make χ again without sources above PPM (0.3), then fill them in: no streaks around "
        "haemorrhages",
        "--two-stage",
        unit="PPM",
    )
    mask_operations: str = _option(
        "", HOW, "what to do to the mask, for instance 'erode:1,fill'", "--mask-operations"
    )
    parameters: Mapping[str, Mapping[str, Any]] = _option(
        {}, HOW, "a method's parameter, STEP.METHOD.NAME=VALUE; may be repeated", "--set"
    )
    weights: Mapping[str, str] = _option(
        {},
        HOW,
        "other weights, NETWORK=PATH: qsmgan or mask (file or published folder), rim (file), "
        "dentate or regions (nnU-Net v2 folder or zip)",
        "--weights",
    )
    lesion_instances: str = _option(
        "split",
        HOW,
        "how confluent lesions are numbered: parted at necks, or as they connect",
        "--lesion-instances",
        choices=("split", "components"),
    )
    lesion_volume: float = _option(
        10.0, HOW, "smallest lesion whose rim is judged, mm³", "--lesion-volume", unit="MM3"
    )
    save_unwrapped: bool = _option(
        False, HOW, "also write the unwrapped phase", "--save-unwrapped"
    )

    work_dir: Path = _option(
        Path("work"), _RUN, "where intermediate results are kept", "-w", "--work-dir"
    )
    nprocs: int = _option(
        0,
        _RUN,
        "processes at the same time; 0: as many as this job may use",
        "--nprocs",
        "--n-cpus",
    )
    omp_nthreads: int = _option(0, _RUN, "threads of one process; 0: chosen", "--omp-nthreads")
    mem: float = _option(
        0.0, _RUN, "memory limit in GB; 0: what this job may use", "--mem", "--mem-gb"
    )
    plugin: str = _option(
        "MultiProc",
        _RUN,
        "execution plugin",
        "--plugin",
        choices=("Linear", "MultiProc", "SLURM", "SLURMGraph"),
    )
    use_plugin: Path | None = _option(
        None, _RUN, "YAML file with Nipype's plugin and plugin_args", "--use-plugin"
    )
    device: str = _option(
        "auto",
        _RUN,
        "where networks and inversions compute",
        "--device",
        choices=("auto", "cpu", "cuda"),
    )
    n_gpus: int = _option(0, _RUN, "GPUs that may be used at once; 0: all visible", "--n-gpus")
    stop_on_first_crash: bool = _option(
        False, _RUN, "end the run at the first failure", "--stop-on-first-crash"
    )
    fail_on: str = _option(
        "error",
        _RUN,
        "exit code 1 for maps with an error (red), with a warning too (red or yellow), or never "
        "because of a map",
        "--fail-on",
        choices=("error", "warning", "never"),
    )
    clean_workdir: bool = _option(
        False, _RUN, "delete this run's intermediate results after success", "--clean-workdir"
    )
    resource_monitor: bool = _option(
        False, _RUN, "record memory and CPU of every node", "--resource-monitor"
    )

    submit: str | None = _option(
        None, _JOBS, "submit a job array, then the group job", "--submit", choices=("slurm",)
    )
    array_size: int = _option(0, _JOBS, "most jobs at the same time; 0: no limit", "--array-size")
    sbatch_args: str = _option(
        "", _JOBS, "further options of sbatch, as one word", "--sbatch-args"
    )
    container: Path | None = _option(
        None, _JOBS, "Apptainer image to run the jobs in", "--container"
    )

    boilerplate_only: bool = _option(
        False,
        _SHOW,
        "only print the Methods paragraph",
        "--boilerplate-only",
        "--boilerplate_only",
    )
    reports_only: bool = _option(False, _SHOW, "only write the reports again", "--reports-only")
    write_graph: bool = _option(
        False, _SHOW, "write the workflow as a graph (SVG)", "--write-graph"
    )
    dry_run: bool = _option(
        False, _SHOW, "print the acquisitions and the plan, touch nothing", "--dry-run"
    )
    verbose: int = _option(0, _SHOW, "say more; twice: everything", "-v", "--verbose", count=True)

    def __post_init__(self) -> None:
        """The default inversion leads where it is among several: its map is the main one."""
        (main,) = type(self).inversion
        ordered = sorted(self.inversion, key=lambda name: name != main)
        object.__setattr__(self, "inversion", tuple(ordered))

    def chosen(self) -> list[methods.Method]:
        """Every method that this run uses, in the order of the steps."""
        names: dict[str, tuple[str, ...]] = {"read": ("stored",)}
        for step in methods.CHOSEN:
            value = getattr(self, step)
            names[step] = value if isinstance(value, tuple) else (value,)
        if self.relaxometry == NO_METHOD:
            names["relaxometry"] = ()
        if NO_METHOD in (self.separation, self.relaxometry):
            names["separation"] = ()
        names["r2prime"] = ("assumed",) if names["separation"] else ()
        names["mask"] = tuple(dict.fromkeys(part.name for part in parse_masks(self.mask)))
        names["two_stage"] = ("robust",) if self.two_stage else ()
        names["reference"] = (self.reference,)
        names["lesions"] = ("rimnet",) if "lesions" in self.derivatives else ()
        for step in self.passed_over():
            names[step] = ()
        return [methods.get(step, n) for step in methods.STEPS for n in names.get(step, ())]

    @property
    def start(self) -> str:
        """The kind of map that the run starts at, of `core.given.KINDS`; empty: at the images."""
        return next((kind for kind in GIVEN_KINDS if kind in self.derivatives), "")

    def passed_over(self) -> list[str]:
        """The steps that a run does not do because it starts at a given map.

        A given susceptibility keeps its reference, unless a region of the user's is named.
        """
        if not self.start:
            return []
        order = list(methods.STEPS)
        kept = self.start == "chi" and self.reference in ("brain", "none")
        steps = [*order[: order.index(STARTS_AT[self.start])], "relaxometry", "swi", "r2prime",
                 "separation"]  # fmt: skip
        return [*steps, *(["two_stage"] if self.start != "totalfield" else []),
                *(["reference"] if kept else [])]  # fmt: skip

    def weights_of(self, method: methods.Method) -> Path | None:
        """The user's weights for a method's network; None: the shipped ones, or no network."""
        given = self.weights.get(method.network or "")
        return None if given is None else Path(os.path.abspath(given))

    def parameters_of(self, method: methods.Method) -> dict[str, Any]:
        """What the user set for a method."""
        return dict(self.parameters.get(method.key, {}))


def options() -> list[Field[Any]]:
    """The fields that have a flag, in the order of the help."""
    return [f for f in fields(Settings) if f.metadata]


def default(option: Field[Any]) -> Any:
    """An option's default value."""
    factory: Any = option.default_factory
    return factory() if option.default is MISSING else option.default
