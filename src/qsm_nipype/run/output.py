"""The derivatives dataset around the maps: description, settings, pages of what failed."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from qsm_nipype import __version__, plan
from qsm_nipype import settings as configuration
from qsm_nipype.dataset.acquisitions import Acquisition
from qsm_nipype.dataset.derivatives import ignored
from qsm_nipype.report.subject import write_subject_report
from qsm_nipype.run.failures import Failure
from qsm_nipype.settings import Settings
from qsm_nipype.system.files import PARTIAL, sweep, write_text

_README = """Quantitative susceptibility maps made by qsm-nipype {version}.

sub-*.html shows each participant's maps and how they were made; *_Chimap.nii.gz is susceptibility
in ppm, paramagnetic positive; logs/settings.yml makes the same run again.
"""


def prepare_output(settings: Settings) -> None:
    """Make the derivatives dataset: its description, .bidsignore, and the settings used."""
    description = {
        "Name": "qsm-nipype: quantitative susceptibility maps",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "qsm-nipype", "Version": __version__}],
        "SourceDatasets": [{"URL": "bids:raw:"}],
        "DatasetLinks": plan.links(settings),
    }
    ignore = [*ignored(), "*.html", "sub-*/figures", "logs/", "group*", "*_rims*.tsv"]
    out = settings.output_dir
    write_text(out / "dataset_description.json", json.dumps(description, indent=2) + "\n")
    write_text(out / ".bidsignore", "\n".join(ignore) + "\n")
    write_text(out / "README", _README.format(version=__version__))
    write_text(out / "logs" / "settings.yml", configuration.to_yaml(settings))
    if not settings.skip_bids_validation:
        _validate(settings)


def remove_partial(out_dir: Path, labels: Sequence[str]) -> None:
    """Remove what killed runs of participants (`sub-XX`) left half written; we hold locks."""
    known = set(labels)

    def is_ours(name: str) -> bool:
        return re.split(r"[_.]", name, maxsplit=1)[0] in known

    for path in out_dir.glob(f"{PARTIAL}*.html"):
        if is_ours(path.name[len(PARTIAL) + 33 :]):
            path.unlink(missing_ok=True)
    sweep(out_dir / "logs", is_ours)
    for label in labels:
        sweep(out_dir / label, lambda _: True)


def _validate(settings: Settings) -> None:
    """Run the BIDS validator where it is installed; its errors are shown, and do not stop us."""
    program = shutil.which("bids-validator-deno")
    if program is None:
        return
    done = subprocess.run(
        [program, "--format", "json", str(settings.bids_dir)], capture_output=True, text=True
    )
    with contextlib.suppress(ValueError, KeyError):
        issues = json.loads(done.stdout)["issues"]["issues"]
        errors = sorted({i.get("code", "?") for i in issues if i.get("severity") == "error"})
        if errors:
            listed = ", ".join(errors[:5])
            print(f"qsm-nipype: the BIDS validator finds errors: {listed}", file=sys.stderr)


def write_reports(
    settings: Settings, acquisitions: Sequence[Acquisition], failures: Sequence[Failure]
) -> None:
    """Write the page of each subject whose report node could not run, with what there is."""
    by_label = {f.label: f for f in failures}
    subjects = {f.label: f.subject for f in failures}
    subjects |= {a.label: a.subject for a in acquisitions}
    wanted = {f.subject for f in failures}
    if settings.reports_only:  # no node has written them
        wanted |= {a.subject for a in acquisitions}
    for subject in sorted(wanted):
        labels = sorted(label for label, owner in subjects.items() if owner == subject)
        errors = {
            label: {"message": f.reason, "node": f.node, "crashfile": f.crash_file}
            for label, f in by_label.items()
            if f.subject == subject
        }
        write_subject_report(settings.output_dir, subject, labels, errors)
