"""The subject's page: whole, escaped, without personal data, honest about failures."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from qsm_nipype.errors import DataError
from qsm_nipype.ranges import judge_all
from qsm_nipype.record import AcquisitionRecord, Scan
from qsm_nipype.report.page import arrange_subject, render_subject
from qsm_nipype.report.processing import SCAN_FACTS
from qsm_nipype.report.publish import publish_subject
from qsm_nipype.report.subject import write_subject_report
from qsm_nipype.report.words import (
    format_duration,
    format_measure,
    format_number,
    without_folders,
)

VOID = {"meta", "img", "br", "input", "link", "hr"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects what is referred to."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack, self.tags, self.links, self.ids, self.text = [], [], [], [], []
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        assert len(found) == len(attrs), f"an attribute of <{tag}> is given twice"
        self.links += [found[k] for k in ("href", "src") if k in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if not self.stack or self.stack[-1] not in ("script", "style"):
            self.text.append(data)


def record(tmp_path, **changes):
    picture = tmp_path / "node" / "chi.png"
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(b"png")
    for name in ("chi.js", "mask.js"):
        (picture.parent / name).write_bytes(b"x")
    layer = {"name": "chi", "label": "χ", "unit": "ppm", "window": [-0.1, 0.1], "file": "chi.js"}
    overlay = {"name": "mask", "label": "Brain mask", "names": {}, "file": "mask.js"}
    return {
        "entities": {"sub": "01", "ses": "a", "run": "1"},
        "source_files": ["bids/sub-01/anat/sub-01_part-phase_MEGRE.nii.gz"],
        "acquisition": {
            "manufacturer": "Siemens",
            "field_strength": 3.0,
            "echo_times": [0.004, 0.0105],
            "voxel_size": [1, 1, 2],
        },
        "phase_reading": {
            "decision": "12-bit 0…4095 (Siemens)",
            "reason": "the values fill this range",
        },
        "warnings": ["53 % of the voxels are −π"],
        "steps": [{"step": "inversion", "method": "tv", "label": "TV", "parameters": {"a": 1}}],
        "numbers": {
            "mask_volume": {"value": 1400.0, "unit": "cm³"},
            "reference": {"value": -0.002, "unit": "ppm", "sd": 0.03},
        },
        "runtimes": {"inversion": 12.0, "unwrapping": 70.0},
        "figures": [{"name": "chi", "title": "χ", "caption": "c", "path": str(picture)}],
        "viewer": {"layers": [layer], "overlays": [overlay], "folder": str(picture.parent)},
        **changes,
    }


def made(content):
    """A path as it is, JSON content as the record that it is of."""
    return AcquisitionRecord.from_json(content) if isinstance(content, dict) else content


def published(tmp_path, *records, subject="01"):
    records = [made(content) for content in records]
    path = publish_subject(records, tmp_path / "out", subject=subject, version="0.1")
    html = path.read_text(encoding="utf-8")
    return path, html, Page(html)


def test_page_is_well_formed_and_every_reference_exists(tmp_path):
    path, html, page = published(tmp_path, record(tmp_path), record(tmp_path))
    assert path.name == "sub-01.html"
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        elif not link.startswith("https://doi.org/"):
            assert (path.parent / unquote(link)).is_file(), link
    manifest = json.loads(re.search(r'type="application/json">(.*?)</script>', html)[1])
    assert (path.parent / manifest["folder"] / "chi.js").is_file()
    assert (path.parent / manifest["folder"] / "mask.js").is_file()
    library = re.search(r'data-library="([^"]+)"', html)[1]
    assert b"niivue" in (path.parent / unquote(library)).read_bytes()


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    _, html, page = published(tmp_path, record(tmp_path))
    assert not {"link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"(src|url\()\s*=?\s*[\"']?(https?:)?//", html)
    assert not re.search(r"@import|fetch\(|XMLHttpRequest", html)


def test_what_a_reader_needs_is_said(tmp_path):
    text = " ".join("".join(published(tmp_path, record(tmp_path))[2].text).split())
    for expected in ("4, 10.5 ms", "1 × 1 × 2 mm", "3 T", "Siemens", "12-bit 0…4095",
                     "the values fill this range", "53 % of the voxels", "1400",
                     "−0.002 ± 0.03 ppm", "dipole inversion", "1 min 10 s", "Copy BibTeX",
                     "@article"):  # fmt: skip
        assert expected in text, expected


def test_the_weight_that_was_used_is_among_the_parameters(tmp_path):
    steps = [{"step": "inversion", "method": "tv", "label": "TV",
              "parameters": {"regularization": 4.2e-4}}]  # fmt: skip
    text = "".join(published(tmp_path, record(tmp_path, steps=steps))[2].text)
    assert "λ 4.2 × 10⁻⁴" in " ".join(text.split())


def test_a_step_shows_what_a_reader_can_use_and_no_internals(tmp_path):
    found = {"template": 0, "regions": 431, "noise_of_signal": 70734.0, "iterations": 73}
    steps = [{"step": "inversion", "method": "tv", "record": found}]
    text = " ".join("".join(published(tmp_path, record(tmp_path, steps=steps))[2].text).split())
    assert "after 73 iterations" in text
    assert not re.search("template|431|70734", text)


def test_the_duration_is_that_of_the_run(tmp_path):
    states = tmp_path / "out" / "logs" / "state"
    states.mkdir(parents=True)
    state = {"status": "done", "started": 1000.0, "updated": 1068.0}
    (states / "sub-01.json").write_text(json.dumps(state))
    assert "the run took 1 min 8 s" in " ".join(
        "".join(published(tmp_path, record(tmp_path))[2].text).split()
    )


def test_susceptibility_and_verdict_stand_first(tmp_path):
    others = [{"name": name, "title": name, "path": ""} for name in ("magnitude", "chi_tkd")]
    own = record(tmp_path)
    own["figures"] = [{**o, "path": own["figures"][0]["path"]} for o in others] + own["figures"]
    html = published(tmp_path, own)[1]
    order = [html.index(part) for part in ('class="box yellow"', 'id="ses-a-run-1-chi"',
             'id="ses-a-run-1-viewer"', 'id="ses-a-run-1-quality"', "<b>magnitude.")]  # fmt: skip
    assert order == sorted(order)
    assert html.index("<b>chi_tkd.") < order[2]


def test_pictures_say_what_they_show(tmp_path):
    own = record(tmp_path)
    own["figures"][0] |= {"title": "χ (−0.1 to 0.1 ppm)", "alt": "Nine slices"}
    assert 'alt="χ (−0.1 to 0.1 ppm): Nine slices"' in published(tmp_path, own)[1]


def test_hostile_names_are_escaped(tmp_path):
    evil = "</script><script>alert(1)</script>\"'<img src=x onerror=alert(2)>"
    bad = record(
        tmp_path,
        entities={"sub": "01", "run": evil},
        warnings=[evil],
        error={"message": evil, "node": evil, "crashfile": evil},
        steps=[{"step": "inversion", "method": "tv", "label": evil, "parameters": {evil: evil}}],
        maps={evil: evil},
    )
    bad["acquisition"]["model"] = evil
    bad["phase_reading"] = {"decision": evil, "reason": evil}
    bad["figures"][0] |= {"name": "../../" + evil, "title": evil, "caption": evil}
    bad["viewer"]["layers"][0]["label"] = evil
    path, html, page = published(tmp_path, bad, subject="01")
    plain = Page(published(tmp_path, record(tmp_path))[1])
    assert page.tags.count("script") == plain.tags.count("script")
    assert page.tags.count("img") == plain.tags.count("img")
    written = {p.relative_to(path.parent).parts[0] for p in path.parent.rglob("*")}
    assert written == {"sub-01", "sub-01.html"}


def test_a_hostile_subject_stays_in_the_folder(tmp_path):
    path, _, _ = published(tmp_path, subject="../../x/y")
    assert path.parent == tmp_path / "out"


PERSONAL = {
    "PatientName": "Doe^Jane",
    "PatientID": "P123",
    "PatientBirthDate": "19700101",
    "DeviceSerialNumber": "SN99887",
    "StationName": "MRC35",
    "InstitutionName": "General Hospital",
    "AcquisitionTime": "12:34:56",
    "AcquisitionDateTime": "2020-02-02T12:34:56",
    "station_name": "MRC36",
    "institution_address": "Main Street",
}


@pytest.mark.parametrize("part", ["record", "acquisition", "phase_reading"])
def test_a_record_with_a_personal_field_is_refused_and_no_value_shown(tmp_path, part):
    own = record(tmp_path)
    for name, value in PERSONAL.items():
        content = (
            {**own, name: value} if part == "record" else {**own, part: {**own[part], name: value}}
        )
        stored = tmp_path / "sub-01_ses-a_run-1.json"
        stored.write_text(json.dumps(content))
        text = published(tmp_path, stored)[1]
        assert "is no field of this part of a record" in text
        assert value not in text


def test_files_are_named_without_their_folders(tmp_path):
    path = "/data/DoeJane/Jane Doe/sub-01_MEGRE.nii.gz"
    link = "file:///data/DoeJane/atlas.nii.gz"
    own = record(
        tmp_path,
        source_files=[path],
        warnings=[f"{path}: its grid differs", f"see {link}"],
        error={"message": f"cannot read '{path}'", "crashfile": "/home/doe/crash-1.pklz"},
    )
    html = published(tmp_path, own)[1]
    assert "sub-01_MEGRE.nii.gz: its grid differs" in html
    assert "crash-1.pklz" in html
    assert not re.search(r"jane|/data|/home|file:", html, re.I)


@pytest.mark.parametrize(
    "text",
    ["https://doi.org/10.1002/mrm.1", "R2* (1/s) and/or T2*", "logs/crashes/", "a / b / c", "n/a",
     "R2*/T2* maps", "5 %/s", "bids:raw:sub-01/anat/x.nii", "sub-01/anat/sub-01_T2w.json"],
)  # fmt: skip
def test_what_is_no_path_is_left_alone(text):
    assert without_folders(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/data/JaneDoe: no space is left", "a folder: no space is left"),
        ("~/study/JaneDoe/out: cannot be written", "a folder: cannot be written"),
        ("see '/data/Jane Doe/sub-01_T1w.nii.gz'.", "see 'sub-01_T1w.nii.gz'."),
        ("/home/jane/logs/crash-1.txt", "crash-1.txt"),
        ("[Errno 28] in /home/jane.", "[Errno 28] in a folder."),
        ("file:///home/jane/bids/sub-01", "sub-01"),
        (r"C:\Users\Jane Doe\bids\x.nii: cut short", "x.nii: cut short"),
    ],
)
def test_folders_are_left_out_wherever_they_stand(text, shown):
    assert without_folders(text) == shown


def test_a_failed_acquisition_says_why_and_the_others_stay(tmp_path):
    failed = {
        "entities": {"sub": "01", "ses": "b"},
        "error": {
            "message": "sub-01_echo-2_MEGRE.json: EchoTime is missing; add it",
            "node": "qsm_nipype_479334f5.sub_01.phase_wf.read_phase",
            "crashfile": "/home/someone/work/crash-1.txt",
        },
    }
    path, _, page = published(tmp_path, record(tmp_path), failed)
    text = "".join(page.text)
    assert "EchoTime is missing; add it" in text
    assert "Step: phase (read_phase)" in text
    assert "crash-1.txt" in text
    assert "/home/someone" not in text
    assert "1 failed" in " ".join(text.split())
    assert (path.parent / "sub-01/figures/sub-01_ses-a_run-1_desc-chi.png").is_file()


def test_a_missing_figure_becomes_a_warning(tmp_path):
    lost = record(tmp_path, figures=[{"name": "chi", "title": "Chi map", "path": "gone.png"}])
    page = published(tmp_path, lost)[2]
    assert "the figure “Chi map” is missing" in "".join(page.text)
    assert "img" not in page.tags


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"numbers": {"a": {"value": float("nan")}, "b": {"value": "no"}}},
        {"viewer": {"layers": [{}], "folder": ""}},
        {"viewer": {"layers": [{}], "planes": {"axial": {}}, "folder": ""}},  # of before
        {"steps": [{"step": "reference", "method": "none", "record": {"mean": None, "x": [1]}}]},
    ],
)
def test_missing_and_odd_parts_do_not_break_the_page(tmp_path, odd):
    published(tmp_path, {"entities": {"sub": "01"}, **odd})


def test_an_earlier_record_that_cannot_be_read_costs_no_other_acquisition(tmp_path):
    records = tmp_path / "out" / "logs" / "records"
    records.mkdir(parents=True)
    (records / "sub-01_ses-b.json").write_text('{"entities": {')
    (records / "sub-011_ses-b.json").write_text("another subject")
    text = "".join(published(tmp_path, record(tmp_path))[2].text)
    assert "sub-01_ses-b.json: this record could not be read" in text
    assert "1 failed" in " ".join(text.split())
    assert "1400" in text
    assert "sub-011" not in text


def test_the_page_of_a_subject_is_written_from_what_is_stored(tmp_path):
    records = tmp_path / "out" / "logs" / "records"
    records.mkdir(parents=True)
    for run in ("2", "10"):
        own = record(tmp_path, entities={"sub": "01", "run": run})
        (records / f"sub-01_run-{run}.json").write_text(json.dumps(own))
    errors = {"sub-01_run-3": {"message": "no echoes", "node": "", "crashfile": ""}}
    labels = ["sub-01_run-10", "sub-01_run-2", "sub-01_run-3", "sub-01_run-4"]
    page = Page(write_subject_report(tmp_path / "out", "01", labels, errors).read_text())
    assert [i for i in page.ids if re.fullmatch(r"run-\d+", i)] == ["run-2", "run-3", "run-10"]
    assert "no echoes" in "".join(page.text)


def test_a_method_without_a_sentence_is_an_error():
    steps = [{"step": "inversion", "method": "mystery"}]
    own = AcquisitionRecord.from_json({"entities": {"sub": "01"}, "steps": steps})
    with pytest.raises(DataError, match="inversion.mystery has no sentence"):
        arrange_subject([own], subject="01", version="1")


def test_every_field_of_a_scan_has_its_label():
    assert set(SCAN_FACTS) == set(Scan.__dataclass_fields__)


def test_a_subject_without_acquisitions_has_a_page(tmp_path):
    assert "No acquisition was processed." in "".join(published(tmp_path)[2].text)


def test_methods_appear_once_for_acquisitions_processed_alike(tmp_path):
    one, two = record(tmp_path), record(tmp_path)
    two["steps"] = [{"step": "inversion", "method": "tkd"}]
    records = [AcquisitionRecord.from_json(r) for r in (one, one, two)]
    report = arrange_subject(records, subject="01", version="1")
    assert len(report.methods) == 2
    assert {r.key for r in report.methods[1].text.references} >= {"Shmueli2009"}
    assert "Bilgic2014TV" not in report.methods[1].text.bibtex
    Page(render_subject(report))


def test_unusual_numbers_are_marked(tmp_path):
    few = judge_all({"r2star": {"value": 20.0}, "mask_volume": {"value": 300.0}})
    html = published(tmp_path, record(tmp_path, numbers=few))[1]
    marked = html[html.index('"number caution"') :]
    assert marked.index("Mask volume</div>") < marked.index("R2*, median</div>")
    assert "usual: 800 to 2000 cm³" in html
    many = judge_all({**few, "mask_volume": {"value": 3000.0}})
    assert 'class="number bad"' in published(tmp_path, record(tmp_path, numbers=many))[1]
    usual = judge_all({"unreliable_fraction": {"value": 3.0, "unit": "%"}})
    html = published(tmp_path, record(tmp_path, numbers=usual))[1]
    assert "number caution" not in html and "usual: at most 25 %" in html


def test_minor_numbers_are_folded_unless_they_are_unusual(tmp_path):
    for value, folded in ((0.01, True), (1.0, False)):
        numbers = judge_all({"mask_volume": {"value": 1400.0}, "field_cone": {"value": value}})
        html = published(tmp_path, record(tmp_path, numbers=numbers))[1]
        assert ("1 more\n" in html) == folded
        other = html.index("Local field on the cone</div>")
        assert (other > html.index("Mask volume</div>")) == folded


def test_pictures_inside_the_dataset_stay_where_they_are(tmp_path):
    inside = tmp_path / "out" / "sub-01" / "figures" / "x.png"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(b"png")
    picture = {"name": "x", "title": "X", "path": "sub-01/figures/x.png"}
    own = record(tmp_path, figures=[picture])
    del own["viewer"]
    published(tmp_path, own)
    assert [p.name for p in inside.parent.iterdir()] == ["x.png"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.2e-4, "4.2 × 10⁻⁴"),
        (-0.0021, "−0.0021"),
        (1432.4, "1432"),
        (0.0, "0"),
        (2e6, "2 × 10⁶"),
        (float("nan"), "n/a"),
        ("auto", "auto"),
    ],
)
def test_numbers_are_written_for_people(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00488, "%", "< 0.1"),
        (-0.001, "ppb", "> −0.1"),
        (0.0, "%", "0"),
        (85.73, "%", "85.7"),
        (0.1761, "ppm", "0.176"),
        (0.0173, "rad", "0.0173"),
    ],
)
def test_measures_have_the_digits_of_their_unit(value, unit, text):
    assert format_measure(value, unit) == text


def test_durations_are_written_for_people():
    assert [format_duration(s) for s in (3.14, 125, 7300)] == ["3.1 s", "2 min 5 s", "2 h 2 min"]
