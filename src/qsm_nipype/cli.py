"""The entry point: `qsm-nipype BIDS_DIR OUT_DIR participant` and the further commands."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import Field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from qsm_nipype import __version__, methods, settings
from qsm_nipype.errors import QSMError, UsageError, did_you_mean
from qsm_nipype.execution.resources import use_numba_cache
from qsm_nipype.settings import Settings
from qsm_nipype.system.arguments import Parser

#: First arguments that are commands; anything else is the BIDS folder (`./demo` is a path).
COMMANDS = {
    "demo": ("qsm_nipype.commands.demo:main", "simulate a small head, process it, score it"),
    "convert": ("qsm_nipype.dicom.command:main", "DICOM gradient echoes to BIDS"),
    "simulate": ("qsm_nipype.simulation.command:main", "simulate heads as a BIDS dataset"),
    "stage": (
        "qsm_nipype.commands.stage:main",
        "run one step on the files of the QSM-CI contract",
    ),
    "segment": (
        "qsm_nipype.commands.segment:main",
        "label dentate and deep grey nuclei on one susceptibility map",
    ),
    "rims": (
        "qsm_nipype.commands.rims:main",
        "which MS lesions have a rim, from one susceptibility map and a FLAIR",
    ),
    "status": ("qsm_nipype.execution.status:main", "who is done, running or failed, and why"),
    "evaluate": ("qsm_nipype.cli:evaluate", "how well a trained network does"),
    "train": ("qsm_nipype.training.command:main", "train a network on simulated data"),
    "methods": ("qsm_nipype.cli:list_methods", "list every method with its parameters"),
}
#: Networks whose training can be evaluated, with the function that takes the rest of the line.
EVALUATIONS = {"rim": "qsm_nipype.training.rim_command:evaluate"}

_EPILOG = """
examples:
  qsm-nipype /data/bids /data/qsm participant
  qsm-nipype /data/bids /data/qsm participant --participant-label 01 02 --inversion tv,rts
  qsm-nipype /data/bids /data/qsm participant --set inversion.tv.regularization=4e-4
  qsm-nipype /data/bids /data/qsm group

exit codes:
  0  every acquisition has a map, and none is red
  1  an acquisition failed, or a map is red (see --fail-on)
  2  unusable input or usage: nothing was run

other commands (qsm-nipype COMMAND --help):
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (README.md has the table)."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch starts its threads
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments and arguments[0] in COMMANDS:
            module, name = COMMANDS[arguments[0]][0].split(":")
            use_numba_cache()
            return int(getattr(importlib.import_module(module), name)(arguments[1:]))
        _check_command(arguments)
        return _run(parse(arguments))
    except QSMError as exc:
        print(f"qsm-nipype: {exc}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as exc:
        return _end_of_machine(exc)
    except MemoryError:
        print("qsm-nipype: out of memory; take a machine with more of it", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("qsm-nipype: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _check_command(arguments: Sequence[str]) -> None:
    """Refuse a misspelt command, which else would be a folder. Raises UsageError."""
    word = arguments[0] if arguments else "-"
    near = did_you_mean(word, COMMANDS)
    if near and not word.startswith("-") and not os.path.exists(word):
        raise UsageError(f"{word}: there is no such folder and no such command{near}")


def _end_of_machine(exc: OSError) -> int:
    """Say which file or folder the machine refused, and return the exit code."""
    where = f"{exc.filename}: " if exc.filename else ""
    full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
    cure = "free some" if full else "check it"
    print(f"qsm-nipype: {where}{exc.strerror or exc}; {cure} and try again", file=sys.stderr)
    return 1 if full else 2


def _run(chosen: Settings) -> int:
    if chosen.submit is not None:
        from qsm_nipype.run.submit import submit

        return submit(chosen)
    if chosen.analysis_level == "group":
        from qsm_nipype.run import group

        return group.run(chosen)
    from qsm_nipype.run import participant

    return participant.run(chosen)


def parse(arguments: Sequence[str]) -> Settings:
    """Settings from the command line over the configuration file over the preset."""
    parser = build_parser()
    given = vars(parser.parse_args(_joined(arguments)))
    places = {name: given.pop(name) for name in settings.PLACES}
    config_file = given.pop("config_file", None)
    known = {option.name: option for option in settings.options()}
    flags = {name: _from_flag(known[name], value) for name, value in given.items()}
    config = settings.load_config(config_file) if config_file else {}
    preset = flags.get("preset") or config.get("preset")
    layers = [_preset(preset) if preset else {}, config, flags]
    chosen = Settings(
        Path(places["bids_dir"]), Path(places["output_dir"]), places["analysis_level"]
    )
    for layer in layers:
        chosen = settings.combine(chosen, layer)
    chosen = settings.combine(
        chosen,
        {  # .. taken out, links left as they are
            name: Path(os.path.abspath(getattr(chosen, name)))
            for name in ("bids_dir", "output_dir", "work_dir")
        },
    )
    settings.check(chosen)
    return chosen


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--sbatch-args X` as one word: the parser would take an X with a dash for an option.

    So with `--phase-units`, whose range may begin below zero.
    """
    found: list[str] = []
    for word in arguments:
        if found and found[-1] in ("--sbatch-args", "--phase-units"):
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def _preset(name: str) -> dict[str, Any]:
    available = settings.presets()
    if name not in available:
        raise UsageError(
            f"there is no preset {name!r}{did_you_mean(name, available)}; "
            f"choose from {', '.join(available)}"
        )
    return settings.load_config(available[name])


def build_parser() -> argparse.ArgumentParser:
    """The parser; every option, default and help text comes from Settings."""
    commands = "\n".join(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items())
    parser = Parser(
        prog="qsm-nipype",
        description="Quantitative susceptibility maps from BIDS gradient-echo data.",
        epilog=_EPILOG + commands,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("bids_dir", help="root of the BIDS dataset")
    parser.add_argument("output_dir", help="where the derivatives go")
    parser.add_argument(
        "analysis_level",
        choices=("participant", "group"),
        help="participant: make maps; group: join the participants' tables",
    )
    parser.add_argument("--version", action="version", version=f"qsm-nipype {__version__}")
    groups: dict[str, Any] = {}
    for option in settings.options():
        title = option.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add(groups[title], option)
    groups["how to process it"].add_argument(
        "--config-file",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="FILE",
        help="YAML file of settings, as written to OUT/logs/settings.yml",
    )
    return parser


def _add(group: Any, option: Field[Any]) -> None:
    start, meta = settings.default(option), option.metadata
    keywords: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS}
    text = meta["help"]
    if meta.get("count"):
        keywords["action"] = "count"
    elif isinstance(start, bool):
        keywords["action"] = "store_true"
    elif isinstance(start, Mapping):
        keywords.update(nargs="+", action="extend", metavar="NAME=VALUE")
    elif isinstance(start, tuple) and "step" not in meta:
        keywords.update(nargs="+", metavar="LABEL")
    else:
        keywords.update(_value_keywords(option, start))
        if start not in (None, 0, 0.0, ""):
            text += f" (default: {','.join(start) if isinstance(start, tuple) else start})"
    if option.name == "preset":
        found = settings.preset_descriptions()
        text += ": " + "; ".join(f"{name} ({what})" for name, what in found.items())
    if "step" in meta:
        text += f": {', '.join(methods.names(meta['step']))}"
    group.add_argument(*meta["flags"], help=text.replace("%", "%%"), **keywords)


def _value_keywords(option: Field[Any], start: Any) -> dict[str, Any]:
    if option.metadata.get("choices"):
        return {"choices": option.metadata["choices"]}
    name = option.name.rsplit("_", 1)[-1].upper()
    kind = type(start) if isinstance(start, (int, float)) else str
    return {
        "type": kind,
        "metavar": {int: "N", float: option.metadata.get("unit", "GB")}.get(kind, name),
    }


def _from_flag(option: Field[Any], value: Any) -> Any:
    if option.name == "parameters":
        return MappingProxyType(_parameters(value))
    if isinstance(settings.default(option), Mapping):
        flag = option.metadata["flags"][-1]
        return MappingProxyType(dict(_pair(item, flag) for item in value))
    if "step" in option.metadata and isinstance(settings.default(option), tuple):
        value = tuple(name.strip() for name in value.split(",") if name.strip())
        if option.metadata.get("optional") and value == (settings.NO_METHOD,):
            return ()
        if not value:
            raise UsageError(f"--{option.name} names no method")
        return value
    return settings.coerce(option, value, where="the command line")


def _parameters(items: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`inversion.tv.regularization=4e-4` → {"inversion.tv": {"regularization": 0.0004}}."""
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        key, value = _pair(item, "--set")
        method, _, parameter = key.rpartition(".")
        if method.count(".") != 1:
            raise UsageError(f"--set {item}: give it as STEP.METHOD.NAME=VALUE")
        found.setdefault(method, {})[parameter] = parse_value(value)
    return found


def parse_value(text: str) -> Any:
    """A value as YAML reads it, and 4e-4 as the number it is."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _pair(item: str, flag: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals or not name or not value:
        raise UsageError(f"{flag} {item}: give it as NAME=VALUE")
    return name, value


def list_methods(arguments: Sequence[str]) -> int:
    """`qsm-nipype methods`: every method, its parameters and their defaults."""
    Parser(
        prog="qsm-nipype methods", description="List every method with its parameters."
    ).parse_args(arguments)
    for step, kind in methods.STEPS.items():
        if not methods.names(step):
            continue
        print(f"{kind.title} (--{step})" if kind.option else kind.title)
        for method in methods.METHODS:
            if method.step == step:
                print(f"  {method.name:<12} {method.label}")
                for name, value in method.parameters().items():
                    shown = "chosen from the data" if value is None else value
                    print(f"  {'':<12}   {method.key}.{name} = {shown}")
    return 0


def evaluate(arguments: Sequence[str]) -> int:
    """`qsm-nipype evaluate NETWORK …`: how well a trained network does. Raises UsageError."""
    if not arguments:
        raise UsageError(
            f"evaluate: name a network first ({', '.join(EVALUATIONS)}), then its folder"
        )
    parser = Parser(
        prog="qsm-nipype evaluate",
        description="How well a trained network does; evaluate NETWORK --help says how.",
    )
    parser.add_argument("network", choices=list(EVALUATIONS))
    name = parser.parse_args(arguments[:1]).network
    module, function = EVALUATIONS[name].split(":")
    return int(getattr(importlib.import_module(module), function)(arguments[1:]))
