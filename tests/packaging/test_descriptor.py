"""What others install or run the program by says the same as the program."""

import configparser
import runpy
from pathlib import Path

import yaml

from qsm_nipype import __version__

TREE = Path(__file__).parents[2]


def test_the_boutiques_descriptor_is_that_of_todays_options():
    made = runpy.run_path(str(TREE / "containers" / "boutiques.py"))
    kept = (TREE / "containers" / "boutiques.json").read_text(encoding="utf-8")
    assert kept == made["text"](), (
        "run: python containers/boutiques.py > containers/boutiques.json"
    )
    found = made["descriptor"]()
    names = [given["id"] for given in found["inputs"]]
    assert len(names) == len(set(names)) > 30
    assert all(f"{given['value-key']}" in found["command-line"] for given in found["inputs"])


def test_every_page_of_a_release_has_one_version():
    assert yaml.safe_load((TREE / "CITATION.cff").read_text())["version"] == __version__
    submission = yaml.safe_load((TREE / "containers/qsm-ci/algorithm.yml").read_text())
    assert submission["image"].endswith(f":{__version__}")
    assert f"## {__version__}" in (TREE / "CHANGES.md").read_text(encoding="utf-8")


def test_the_conda_recipe_asks_for_what_setup_cfg_asks_for():
    parser = configparser.ConfigParser()
    parser.read(TREE / "setup.cfg")
    wanted = sorted(parser["options"]["install_requires"].split())
    recipe = yaml.safe_load((TREE / "containers/conda/recipe.yaml").read_text())
    assert recipe["context"]["version"] == __version__
    asked = recipe["requirements"]["run"]
    conda = {"torch": "pytorch", "qsm-ci": "qsm-ci", "SimpleITK": "simpleitk", "PyYAML": "pyyaml"}
    expected = []
    for line in wanted:
        name, _, least = line.partition(">=")
        expected.append(f"{conda.get(name, name.lower())} >={least}")
    assert sorted(asked) == sorted([*expected, "python >=3.11"])
