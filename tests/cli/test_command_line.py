"""The parser says what Settings say; configuration layers; errors in one sentence."""

import re
from pathlib import Path

import pytest

from qsm_nipype import cli, methods, settings
from qsm_nipype.errors import UsageError
from qsm_nipype.settings import Settings


def parse(*more: str) -> Settings:
    """Settings of a command line."""
    return cli.parse(["bids", "out", "participant", *more])


def test_no_option_gives_the_defaults():
    assert parse() == Settings(Path("bids"), Path("out"), "participant")


def test_defaults_are_methods_of_the_registry():
    chosen = Settings(Path(), Path())
    wanted = [step for step in methods.STEPS if getattr(chosen, step)]
    assert [m.step for m in chosen.chosen()] == wanted


@pytest.mark.parametrize("option", settings.options(), ids=lambda option: option.name)
def test_every_option_has_a_flag_in_the_help(option):
    text = cli.build_parser().format_help()
    assert all(re.search(rf"{flag}\b", text) for flag in option.metadata["flags"])


def test_flag_wins_over_file_and_file_over_default(tmp_path):
    config = tmp_path / "my.yml"
    config.write_text("background: sharp\nparameters: {inversion.tv: {tolerance: 0.01}}\n")
    chosen = parse("--config-file", str(config), "--set", "inversion.tv.max_iterations=7")
    assert chosen.background == "sharp"
    assert chosen.parameters["inversion.tv"] == {"tolerance": 0.01, "max_iterations": 7}
    assert parse("--config-file", str(config), "--bfr", "vsharp").background == "vsharp"


def test_saved_settings_make_the_same_run_again(tmp_path):
    chosen = parse(
        "--inversion", "tv,tkd", "--set", "inversion.tkd.threshold=2e-1", "--mem", "3.5"
    )
    saved = tmp_path / "settings.yml"
    saved.write_text(settings.to_yaml(chosen))
    assert parse("--config-file", str(saved)) == chosen


@pytest.mark.parametrize("name", settings.presets())
def test_presets_are_valid(name):
    assert parse("--preset", name).chosen()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--inversion", "magic"], "'magic' is no method for dipole inversion; choose from tv"),
        (["--set", "inversion.tv.lambda=1"], "inversion.tv has no parameter 'lambda'; it has"),
        (["--set", "tv=1"], "give it as STEP.METHOD.NAME=VALUE"),
        (["--set", "cooking.tv.x=1"], "is no STEP.METHOD"),
        (["--preset", "nice"], "there is no preset 'nice'"),
        (["-d", "masks"], "give it as NAME=VALUE"),
        (["--config-file", "/nowhere.yml"], "/nowhere.yml: cannot be read"),
    ],
)
def test_wrong_choices_are_refused_in_one_sentence(flags, words):
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        parse(*flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [("nprocs: many", "nprocs cannot be 'many'"), ("taste: 1", "there is no setting 'taste'"),
     ("a: [", "not valid YAML"), ("- 1", "must hold 'name: value' lines"),
     ("dry_run: 3", "dry_run cannot be 3")],
)  # fmt: skip
def test_wrong_configuration_files_are_refused(tmp_path, content, words):
    config = tmp_path / "bad.yml"
    config.write_text(content)
    with pytest.raises(UsageError, match=re.escape(words)):
        parse("--config-file", str(config))


def test_numbers_are_read_as_numbers():
    assert cli.parse_value("4e-4") == 0.0004
    assert cli.parse_value("7") == 7
    assert cli.parse_value("true") is True
    assert cli.parse_value("median") == "median"


def test_unusable_input_ends_with_code_two(tmp_path, capsys):
    assert cli.main([str(tmp_path / "none"), str(tmp_path / "out"), "participant"]) == 2
    error = capsys.readouterr().err
    assert "no such folder" in error and "Traceback" not in error


def test_output_folder_in_its_own_input_is_refused(tmp_path, capsys):
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    assert cli.main([str(tmp_path), str(tmp_path), "participant"]) == 2


def test_a_command_is_one_only_as_the_bare_first_word(monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "list_methods", lambda argv: seen.append(list(argv)) or 0)
    assert cli.main(["methods", "-x"]) == 0 and seen == [["-x"]]
    assert cli.main(["./methods", "out", "participant"]) == 2


def test_every_method_is_listed_with_its_parameters(capsys):
    assert cli.main(["methods"]) == 0
    text = capsys.readouterr().out
    for method in methods.METHODS:
        assert method.label in text
        assert all(f"{method.key}.{name}" in text for name in method.parameters())


def test_a_network_without_weights_is_refused_before_anything_runs(capsys, tmp_path):
    from qsm_nipype.models import registry

    for flags, name in ((["--inversion", "qsmgan"], "qsmgan"), (["--mask", "net"], "mask")):
        if registry.shipped(name):
            continue
        assert cli.main([str(tmp_path), str(tmp_path / "out"), "participant", *flags]) == 2
        error = capsys.readouterr().err
        assert f"{name}: this version ships no weights; train them" in error
    flags = ["--inversion", "qsmgan", "--inversion-weights", str(tmp_path / "none.safetensors")]
    assert cli.main([str(tmp_path), str(tmp_path / "out"), "participant", *flags]) == 2
    assert "none.safetensors" in capsys.readouterr().err
