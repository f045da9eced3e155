"""What the user can choose: one frozen dataclass, every default written here once."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from qsm_nipype import methods
from qsm_nipype.core.given import KINDS as GIVEN_KINDS
from qsm_nipype.core.given import UNITS
from qsm_nipype.core.mask_language import parse_masks, parse_operations
from qsm_nipype.core.reading.units import parse_units
from qsm_nipype.dataset.own_files import KINDS
from qsm_nipype.errors import UsageError

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


_WHAT, _HOW, _RUN, _SHOW = "what to process", "how to process it", "how to run", "what to see"
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
        "any space of the head), lesions (MS, with a FLAIR in the dataset); or a map to start at: "
        "chi, localfield or totalfield (no gradient echoes are needed)",
        "-d",
        "--derivatives",
    )
    bids_database_dir: Path | None = _option(
        None, _WHAT, "pybids database to read, or to write for the next run", "--bids-database-dir"
    )
    skip_bids_validation: bool = _option(
        False, _WHAT, "do not run the BIDS validator first", "--skip-bids-validation"
    )

    preset: str | None = _option(None, _HOW, "start from a named preset", "--preset")
    phase_sign: str = _option(
        "auto",
        _HOW,
        "sign of the stored phase; auto: from the outline of the head; slabs are left as stored",
        "--phase-sign",
        choices=("auto", "positive", "negative"),
    )
    phase_units: str = _option(
        "",
        _HOW,
        "unit of the stored phase, where the images show none: rad, mrad, deg, cycles, or the "
        "range of one turn as in -4096..4095",
        "--phase-units",
    )
    map_units: str = _option(
        "auto",
        _HOW,
        "unit of the map of -d chi, localfield or totalfield; auto: as its sidecar says, else ppm",
        "--map-units",
        choices=("auto", *UNITS),
    )
    offset: str = _option("mcpc3ds", _HOW, "phase offset removal", "--offset", step="offset")
    unwrapping: str = _option("romeo", _HOW, "phase unwrapping", "--unwrapping", step="unwrapping")
    fit: str = _option("linear", _HOW, "field fit over the echoes", "--fit", step="fit")
    mask: str = _option(
        "quality&net:dilate:2",
        _HOW,
        "brain mask; several joined by & intersect, each after its own operations, as in "
        "quality&net:dilate:3",
        "--mask",
        step="mask",
    )
    trim: str = _option(
        "reliable", _HOW, "which voxels of the mask are kept", "--trim", step="trim"
    )
    background: str = _option(
        "ismv_tv", _HOW, "background field removal", "--background", "--bfr", step="background"
    )
    inversion: tuple[str, ...] = _option(
        ("whtv",),
        _HOW,
        "dipole inversion; several, separated by commas",
        "--inversion",
        step="inversion",
    )
    relaxometry: str = _option(
        "loglinear",
        _HOW,
        "R2* and T2* mapping; none: no such maps",
        "--relaxometry",
        step="relaxometry",
        optional=True,
    )
    segmentation: tuple[str, ...] = _option(
        ("dentate",),
        _HOW,
        "what is segmented on the map; none: nothing",
        "--segmentation",
        step="segmentation",
        optional=True,
    )
    swi: tuple[str, ...] = _option(
        (),
        _HOW,
        "susceptibility-weighted images with their minimum intensity projections; several, "
        "separated by commas",
        "--swi",
        step="swi",
        optional=True,
    )
    reference: str = _option(
        "brain",
        _HOW,
        "region whose mean susceptibility is zero",
        "--reference",
        choices=tuple(methods.names("reference")),
    )
    two_stage: float = _option(
        0.0,
        _HOW,
        "make χ again without sources above PPM (0.3), then fill them in: no streaks around "
        "haemorrhages",
        "--two-stage",
        unit="PPM",
    )
    mask_operations: str = _option(
        "", _HOW, "what to do to the mask, for instance 'erode:1,fill'", "--mask-operations"
    )
    parameters: Mapping[str, Mapping[str, Any]] = _option(
        {}, _HOW, "a method's parameter, STEP.METHOD.NAME=VALUE; may be repeated", "--set"
    )
    weights: Mapping[str, str] = _option(
        {},
        _HOW,
        "other weights, NETWORK=PATH: qsmgan or mask (file or published folder), rim (file), "
        "dentate (nnU-Net v2 folder or zip)",
        "--weights",
    )
    lesion_instances: str = _option(
        "split",
        _HOW,
        "how confluent lesions are numbered: parted at necks, or as they connect",
        "--lesion-instances",
        choices=("split", "components"),
    )
    lesion_volume: float = _option(
        10.0, _HOW, "smallest lesion whose rim is judged, mm³", "--lesion-volume", unit="MM3"
    )
    save_unwrapped: bool = _option(
        False, _HOW, "also write the unwrapped phase", "--save-unwrapped"
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

    def chosen(self) -> list[methods.Method]:
        """Every method that this run uses, in the order of the steps."""
        names: dict[str, tuple[str, ...]] = {"read": ("stored",)}
        for step in methods.CHOSEN:
            value = getattr(self, step)
            names[step] = value if isinstance(value, tuple) else (value,)
        if self.relaxometry == NO_METHOD:
            names["relaxometry"] = ()
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
        steps = [*order[: order.index(STARTS_AT[self.start])], "relaxometry", "swi"]
        return [*steps, *(["two_stage"] if self.start != "totalfield" else []),
                *(["reference"] if kept else [])]  # fmt: skip

    def weights_of(self, method: methods.Method) -> Path | None:
        """The user's weights for a method's network; None: the shipped ones, or no network."""
        given = self.weights.get(method.network or "")
        return None if given is None else Path(os.path.abspath(given))

    def parameters_of(self, method: methods.Method) -> dict[str, Any]:
        """What the user set for a method."""
        return dict(self.parameters.get(method.key, {}))


#: Fields that name this run's place, not its science: left out of the saved settings.
PLACES = ("bids_dir", "output_dir", "analysis_level")
#: Fields of one invocation, which a saved settings file must not repeat.
MOMENTARY = (
    "participant_label",
    "session_label",
    "submit",
    "array_size",
    "sbatch_args",
    "container",
    "boilerplate_only",
    "reports_only",
    "dry_run",
    "verbose",
    "preset",
    "bids_filter_file",
)


def options() -> list[Field[Any]]:
    """The fields that have a flag, in the order of the help."""
    return [f for f in fields(Settings) if f.metadata]


def default(option: Field[Any]) -> Any:
    """An option's default value."""
    factory: Any = option.default_factory
    return factory() if option.default is MISSING else option.default


def presets() -> dict[str, Path]:
    """Names and files of the presets that come with the package."""
    folder = Path(str(resources.files("qsm_nipype.data"))) / "presets"
    return {path.stem: path for path in sorted(folder.glob("*.yml"))}


def preset_descriptions() -> dict[str, str]:
    """What each preset is, from the first line of its file."""
    return {
        name: path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
        for name, path in presets().items()
    }


def load_config(path: Path) -> dict[str, Any]:
    """Settings from a YAML file, by field name. Raises UsageError naming what is wrong."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise UsageError(f"{path}: cannot be read ({exc.strerror}); check the path") from exc
    except yaml.YAMLError as exc:
        raise UsageError(f"{path}: not valid YAML ({str(exc).splitlines()[-1].strip()})") from exc
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{path}: must hold 'name: value' lines")
    known = {f.name: f for f in options()}
    config = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise UsageError(f"{path}: there is no setting {key!r}; see qsm-nipype --help")
        config[name] = coerce(known[name], value, where=str(path))
    return config


def coerce(option: Field[Any], value: Any, *, where: str) -> Any:
    """A value from YAML in the type of its field. Raises UsageError."""
    start = default(option)
    try:
        if isinstance(start, tuple):
            return tuple(str(v) for v in ([value] if isinstance(value, str) else value))
        if option.name == "parameters":
            return MappingProxyType({key: dict(own or {}) for key, own in (value or {}).items()})
        if isinstance(start, Mapping):
            return MappingProxyType(dict(value or {}))
        if isinstance(start, bool):
            if not isinstance(value, bool):
                raise TypeError
            return value
        if "Path" in str(option.type):
            return None if value is None else Path(value)
        return value if value is None or start is None else type(start)(value)
    except (AttributeError, TypeError, ValueError) as exc:
        raise UsageError(f"{where}: {option.name} cannot be {value!r}") from exc


def combine(base: Settings, changes: Mapping[str, Any]) -> Settings:
    """`base` with `changes`; parameters of methods are merged, everything else replaced."""
    changes = dict(changes)
    if "parameters" in changes:
        merged = {key: dict(values) for key, values in base.parameters.items()}
        for key, values in changes["parameters"].items():
            merged.setdefault(key, {}).update(values or {})
        changes["parameters"] = MappingProxyType(merged)
    return replace(base, **changes)


def check(settings: Settings) -> None:
    """Refuse choices that cannot work, as far as no disk is needed. Raises UsageError."""
    settings.chosen()
    _check_languages(settings)
    for name in settings.derivatives:
        if name not in KINDS:
            raise UsageError(f"-d {name}: there is no such kind; give {', '.join(KINDS)}")
    _check_start(settings)
    if settings.reference in ("csf", "region") and "reference" not in settings.derivatives:
        raise UsageError(f"--reference {settings.reference}: give its mask by -d reference=PATH")
    if settings.two_stage < 0:
        raise UsageError(f"--two-stage {settings.two_stage:g}: give a susceptibility above 0 ppm")
    methods.check_parameters(settings.parameters)
    if "threshold" in settings.parameters.get("two_stage.robust", {}):
        raise UsageError("two_stage.robust.threshold: give it by --two-stage PPM")
    for network in settings.weights:
        if network not in NETWORKS:
            raise UsageError(
                f"--weights {network}: there is no such network; choose from {', '.join(NETWORKS)}"
            )
    _check_numbers(settings)
    _check_twice(settings)
    _check_jobs(settings)
    for option in options():
        allowed = option.metadata.get("choices")
        value = getattr(settings, option.name)
        if allowed and value is not None and value not in allowed:
            raise UsageError(
                f"{option.name} cannot be {getattr(settings, option.name)!r}; choose from "
                f"{', '.join(allowed)}"
            )


def _check_start(settings: Settings) -> None:
    """Refuse what a run that starts at a given map cannot do. Raises UsageError."""
    given = [kind for kind in GIVEN_KINDS if kind in settings.derivatives]
    if not given:
        if settings.map_units != "auto":
            raise UsageError(
                f"--map-units {settings.map_units}: no map is given; give it by -d chi=PATH, "
                f"localfield=PATH or totalfield=PATH, or leave the unit out"
            )
        return
    if len(given) > 1:
        raise UsageError(f"-d {given[0]} and -d {given[1]}: a run starts at one map; give one")
    (kind,) = given
    if settings.bids_filter_file is not None:
        raise UsageError(
            f"--bids-filter-file chooses gradient echoes, and the run starts at -d {kind}; leave "
            f"it out, or choose by --participant-label"
        )
    if kind == "totalfield":
        return
    if settings.two_stage:
        raise UsageError(
            f"--two-stage needs the total field; give -d totalfield=PATH and not -d {kind}"
        )
    for name in settings.inversion if kind == "localfield" else ():
        if methods.get("inversion", name).from_total_field:
            raise UsageError(
                f"--inversion {name} works on the total field; give -d totalfield=PATH, or "
                f"another inversion"
            )


def _check_languages(settings: Settings) -> None:
    """Refuse what cannot be read of the small languages. Raises UsageError."""
    parse_operations(settings.mask_operations)
    if settings.phase_units:
        parse_units(settings.phase_units)


def _check_numbers(settings: Settings) -> None:
    """Refuse negative numbers: 0 leaves the choice to the program. Raises UsageError."""
    for option in options():
        value = getattr(settings, option.name)
        if isinstance(value, (int, float)) and not 0 <= value < math.inf:
            raise UsageError(f"{option.metadata['flags'][0]} {value:g}: give 0 or more")


def _check_twice(settings: Settings) -> None:
    """Refuse a method that is named twice for one step. Raises UsageError."""
    for step in methods.CHOSEN:
        value = getattr(settings, step)
        names = value if isinstance(value, tuple) else ()
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"--{step} {','.join(names)}: name {name} once only")


def _check_jobs(settings: Settings) -> None:
    """Refuse jobs for what takes seconds. Raises UsageError."""
    if settings.submit is None:
        return
    if settings.analysis_level == "group":
        raise UsageError(
            f"--submit {settings.submit}: the group level takes seconds; run it without --submit, "
            f"or submit the participant level, which adds a group job"
        )
    if settings.reports_only:
        raise UsageError(
            f"--submit {settings.submit}: reports take seconds; run --reports-only without it"
        )


def to_yaml(settings: Settings) -> str:
    """The settings as a configuration file that makes the same run again."""
    content = {}
    for option in options():
        if option.name not in PLACES + MOMENTARY:
            content[option.name] = _plain(getattr(settings, option.name))
    return yaml.safe_dump(content, sort_keys=False)


def with_absolute_paths(settings: Settings) -> Settings:
    """The settings as they hold in any folder: every path from the root."""
    changes: dict[str, Any] = {
        f.name: Path(os.path.abspath(getattr(settings, f.name)))
        for f in fields(Settings)
        if isinstance(getattr(settings, f.name), Path)
    }
    for name in ("derivatives", "weights"):
        given = getattr(settings, name)
        changes[name] = MappingProxyType({k: os.path.abspath(p) for k, p in given.items()})
    return replace(settings, **changes)


def named_paths(settings: Settings) -> list[Path]:
    """Every file and folder that the settings name."""
    values = [getattr(settings, f.name) for f in fields(Settings)]
    return [v for v in values if isinstance(v, Path)] + [
        Path(path) for path in (*settings.derivatives.values(), *settings.weights.values())
    ]


def science(settings: Settings) -> dict[str, Any]:
    """The choices that change a result: what decides whether a participant is done."""
    names = [o.name for o in options() if o.metadata["group"] == _HOW and o.name != "preset"]
    return {name: _plain(getattr(settings, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return os.fspath(value) if isinstance(value, Path) else value
