"""The Methods paragraph cites exactly what was used."""

from __future__ import annotations

import re

import pytest

from qsm_nipype.errors import DataError
from qsm_nipype.methods import METHODS
from qsm_nipype.plan import steps
from qsm_nipype.record import Step
from qsm_nipype.report.methods_text import (
    find_citations,
    load_bibliography,
    load_sentences,
    write_methods,
)
from qsm_nipype.settings import Settings

ALWAYS = {"Gorgolewski2011", "Gorgolewski2016", "Gorgolewski2017", "Brett", "Paszke2019"}
ALWAYS |= {"Bilgic2024"}


def cited(*steps: Step) -> set[str]:
    return {r.key for r in write_methods(steps, version="1").references} - ALWAYS


def test_exactly_the_methods_used_are_cited():
    assert cited(Step("unwrapping", "romeo"), Step("inversion", "tkd")) == {
        "Dymerska2021",
        "Shmueli2009",
    }
    assert cited() == set()


def test_every_cited_key_is_in_the_bibliography_and_every_entry_is_cited():
    table = load_sentences()
    texts = [table["opening"], table["closing"]]
    for entry in table["methods"].values():
        texts += [entry["sentence"], *entry.get("details", ())]
    keys = {key for text in texts for key in find_citations(text)}
    assert keys == set(load_bibliography())


@pytest.mark.parametrize("key", sorted(load_bibliography()))
def test_entries_are_complete_and_dois_well_formed(key):
    entry = load_bibliography()[key]
    assert {"author", "title", "year"} <= set(entry.fields)
    assert re.fullmatch(r"10\.\d{4,9}/\S+", entry.doi) or key == "Paszke2019"
    assert entry.bibtex.count("{") == entry.bibtex.count("}")
    assert entry.text.startswith(entry.fields["author"].strip("{")[:2])
    assert not set("{}\\$") & set(entry.text)


#: Steps of a plan that are no methods of the registry: what was done with the user's masks.
PLANNED = {"mask.user", "mask.combined", "mask.edited", "mask.values"}
PLANNED |= {"given.chi", "given.localfield", "given.totalfield"}


def test_every_method_has_a_sentence_and_every_sentence_a_method():
    assert set(load_sentences()["methods"]) == {m.key for m in METHODS} | PLANNED


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.key)
def test_every_parameter_is_put_in_words(method):
    entry = load_sentences()["methods"][method.key]
    words = " ".join([entry["sentence"], *entry.get("details", ())])
    set_ = {k for k, v in method.parameters().items() if v is not None}
    assert set_ <= set(re.findall(r"\{(\w+)", words))


@pytest.mark.parametrize("name", ["V-SHARP", "v_sharp", "mystery", ""])
def test_a_method_is_found_by_its_key_only(name):
    with pytest.raises(DataError, match=f"background.{name} has no sentence"):
        write_methods([Step("background", name)], version="1")


def test_parameters_are_reported_and_unmentioned_ones_listed():
    step = Step("inversion", "tv", "TV", {"regularization": 4.2e-4, "extra_weight": True})
    text = write_methods([step], version="1").paragraph
    assert "λ = 0.00042" in text
    assert "extra weight on" in text
    assert "measured noise" not in text
    assert (
        "λ chosen from the measured noise"
        in write_methods([Step("inversion", "tv")], version="1").paragraph
    )


@pytest.mark.parametrize("step", ["mask.net", "inversion.qsmgan", "segmentation.dentate"])
def test_a_network_says_what_its_weights_were_trained_on(step):
    kind, _, name = step.partition(".")
    shipped = write_methods([Step(kind, name)], version="1").paragraph
    theirs = Step(kind, name, name, {"weights": "lab.pth"})
    foreign = write_methods([theirs], version="1").paragraph
    assert "trained on simulated data only" in shipped
    assert "simulated" not in foreign
    assert "weights: lab.pth" in foreign


def test_weights_of_the_user_are_reported_by_their_name(tmp_path):
    settings = Settings(
        bids_dir=tmp_path,
        output_dir=tmp_path / "out",
        mask="net",
        inversion=("tv", "qsmgan"),
        derivatives={"lesions": str(tmp_path)},
        weights={
            "mask": str(tmp_path / "mask.pth"),
            "qsmgan": str(tmp_path / "chi.pt"),
            "rim": str(tmp_path / "rim.pth"),
        },
    )
    reported = {s["method"]: s["parameters"].get("weights") for s in steps(settings)}
    assert (reported["net"], reported["qsmgan"], reported["rimnet"]) == (
        "mask.pth",
        "chi.pt",
        "rim.pth",
    )
    assert reported["tv"] is None


def test_a_file_among_the_parameters_is_not_named():
    step = Step("inversion", "tv", "TV", {"file": "/home/doe/w.pth", "k": 2})
    text = write_methods([step], version="1").paragraph
    assert "k 2" in text
    assert "/home" not in text


def test_citations_are_numbered_in_order_and_no_marker_is_left():
    steps = [Step("background", "resharp"), Step("inversion", "rts"), Step("inversion", "rts")]
    text = write_methods(steps, version="1")
    numbers = [int(n) for g in re.findall(r"\[([\d, ]+)\]", text.paragraph) for n in g.split(",")]
    assert sorted(set(numbers)) == list(range(1, len(text.references) + 1))
    first = list(dict.fromkeys(numbers))
    assert first == sorted(first)
    assert not set("@{}") & set(text.paragraph)
    assert text.paragraph.count("rapid two-step") == 1
    assert text.bibtex.count("@") == len(text.references)
    assert text.plain.count("https://doi.org/") == len(text.references) - 1
