"""The site builds without a warning or the network, and its commands exist."""

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from qsm_nipype import cli, settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.skipif(
    find_spec("sphinx") is None, reason="Sphinx is not installed: pip install .[docs]"
)
def test_the_site_builds_without_a_warning_and_asks_nothing_of_the_network(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    built = subprocess.run(
        [*command, "-d", str(tmp_path / "trees"), str(ROOT / "docs"), str(tmp_path / "site")],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    loaded = (
        r"""<(?:script|img|iframe)[^>]*src="https?:|<link[^>]*rel="stylesheet"[^>]*href="https?:"""
    )
    for page in (tmp_path / "site").glob("*.html"):
        assert not re.search(loaded, page.read_text(encoding="utf-8")), page.name
    methods = (tmp_path / "site" / "methods.html").read_text(encoding="utf-8")
    assert "inversion.tkd.threshold" in methods and "Dymerska2021" in methods


def commands():
    """Every `qsm-nipype …` line of the pages' shell blocks, as words."""
    for page in PAGES:
        for block in re.findall(r"```(?:sh|bash)?\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.split("&&"):
                    words = shlex.split(part, comments=True) if "qsm-nipype " in part else []
                    if words[:1] == ["qsm-nipype"] and "<" not in part:
                        yield page.name, words[1:]


def known_flags(command, capsys):
    if command not in cli.COMMANDS:
        flags = {flag for option in settings.options() for flag in option.metadata["flags"]}
        return flags | {"--config-file", "--version", "--help", "-h"}
    with pytest.raises(SystemExit):
        cli.main([command, *(["rim"] if command == "evaluate" else []), "--help"])
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", capsys.readouterr().out))


def test_every_flag_that_the_pages_name_is_one(capsys):
    found = list(commands())
    assert len(found) > 30
    cache = {}
    for page, words in found:
        command = words[0]
        if command not in cli.COMMANDS:
            command = ""
        if command == "train" and "rim" in words:
            continue  # a parser of its own
        flags = cache.setdefault(command, None) or known_flags(command, capsys)
        cache[command] = flags
        used = {word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)}
        assert used <= flags, (page, words, used - flags)
