"""The parser says what Settings say; configuration layers; errors in one sentence."""

import math
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
    here = Path.cwd()
    places = {"output_dir": here / "out", "work_dir": here / "work"}
    assert parse() == Settings(here / "bids", analysis_level="participant", **places)


def test_defaults_are_methods_of_the_registry():
    chosen = Settings(Path(), Path())
    steps = [step for step in methods.CHOSEN if getattr(chosen, step) not in ((), "none")]
    wanted = ["read", *steps]
    assert list(dict.fromkeys(m.step for m in chosen.chosen())) == wanted


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
    assert f"{name} ({settings.preset_descriptions()[name]})" in " ".join(
        cli.build_parser().format_help().split()
    )


def test_the_preset_default_is_what_is_done_without_one():
    assert settings.science(parse("--preset", "default")) == settings.science(parse())


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
        (
            ["--set", "inversion.whtv.tolerance=abc"],
            "whtv.tolerance cannot be 'abc'; give a float",
        ),
        (["--set", "inversion.tv.max_iterations=2.5"], "cannot be 2.5; give an integer"),
        (["--set", "inversion.tv.max_iterations=true"], "cannot be True; give an integer"),
        (["--set", "inversion.tv.tolerance=.nan"], "cannot be nan; give a float"),
        (["--set", "inversion.tkd.correct=7"], "cannot be 7; give a boolean"),
        (["--set", "inversion.tv.regularization=null"], "cannot be None; give a float, or leave"),
        (["--set", "unwrapping.romeo.template=-1"], "cannot be -1; give an integer >= 0"),
        (["--inversion", "tv,tv"], "--inversion tv,tv: name tv once only"),
        (["--nprocs", "-2"], "--nprocs -2: give 0 or more"),
        (["--omp-nthreads", "-1"], "--omp-nthreads -1: give 0 or more"),
        (["--mem", "-0.5"], "--mem -0.5: give 0 or more"),
        (["--mem", "nan"], "--mem nan: give 0 or more"),
        (["--n-gpus", "-1"], "--n-gpus -1: give 0 or more"),
        (["--array-size", "-3", "--dry-run"], "--array-size -3: give 0 or more"),
        (["--submit", "slurm", "--reports-only"], "run --reports-only without it"),
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
     ("dry_run: 3", "dry_run cannot be 3"),
     ("parameters: {inversion.tv: 3}", "parameters cannot be {'inversion.tv': 3}")],
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
    flags = ["--inversion", "qsmgan", "--weights", f"qsmgan={tmp_path}/none.safetensors"]
    assert cli.main([str(tmp_path), str(tmp_path / "out"), "participant", *flags]) == 2
    assert "none.safetensors" in capsys.readouterr().err


def test_values_of_every_kind_are_taken():
    flags = [
        "offset.mcpc3ds.bipolar=true",
        "inversion.tv.tolerance=1",
        "unwrapping.romeo.template=2",
        "inversion.qsmgan.consistency=inf",  # the network's map as it is
    ]
    chosen = parse("--set", *flags, "unwrapping.romeo.mode=individual")
    assert chosen.parameters["offset.mcpc3ds"] == {"bipolar": True}
    assert chosen.parameters["inversion.qsmgan"] == {"consistency": math.inf}
    assert chosen.parameters["unwrapping.romeo"] == {"template": 2, "mode": "individual"}


def test_places_are_absolute_without_dots_and_links_stay(tmp_path, monkeypatch):
    (tmp_path / "data" / "sub-01").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data" / "sub-01")
    chosen = cli.parse(["../../link", "../../out/../out2", "participant", "-w", "../../w"])
    assert (chosen.bids_dir, chosen.output_dir) == (tmp_path / "link", tmp_path / "out2")
    assert chosen.work_dir == tmp_path / "w"


@pytest.mark.parametrize(
    "words", [["--sbatch-args", "--account=brain"], ["--sbatch-args=--account=brain"]]
)
def test_options_of_sbatch_may_begin_with_a_dash(words):
    assert parse(*words, "--submit", "slurm").sbatch_args == "--account=brain"


def test_the_unit_of_phase_may_begin_below_zero():
    assert parse("--phase-units", "-4096..4095").phase_units == "-4096..4095"
    assert parse("--phase-units=rad").phase_units == "rad" and parse().phase_units == ""
    with pytest.raises(UsageError, match="--phase-units gauss: give rad"):
        parse("--phase-units", "gauss")


def test_the_group_level_is_no_job():
    with pytest.raises(UsageError, match="the group level takes seconds"):
        cli.parse(["bids", "out", "group", "--submit", "slurm"])


def test_saved_settings_name_no_participant():
    text = settings.to_yaml(parse("--participant-label", "01", "--session-label", "a"))
    assert "participant_label" not in text and "session_label" not in text


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("bids", "the output folder is the BIDS dataset itself"),
        ("bids/sub-01", "the output folder lies inside the BIDS dataset"),
        ("bids/new/qsm", "the output folder lies inside the BIDS dataset"),
        ("bids/derivatives", "choose one elsewhere, or in"),
        ("file/qsm", "file: the output folder cannot be written there"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--submit", "slurm", "--dry-run"]])
def test_an_output_among_the_raw_data_is_refused_and_nothing_made(
    tmp_path, capsys, output, words, more
):
    bids = tmp_path / "bids"
    (bids / "sub-01").mkdir(parents=True)
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    line = [str(bids), str(tmp_path / output), "participant", "-w", str(tmp_path / "w"), *more]
    assert cli.main(line) == 2
    assert words in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("named", "kept"), [("medi,whtv", ("whtv", "medi")), ("tkd,medi", ("tkd", "medi"))]
)
def test_the_default_inversion_leads_where_it_is_among_several(named, kept):
    chosen = cli.parse(["/bids", "/out", "participant", "--inversion", named])
    assert chosen.inversion == kept
