"""What a sidecar says of its image is held against the part that its name says."""

import pytest

from qsm_nipype.dataset.witnesses import check_image, check_witnesses, claimed_parts
from qsm_nipype.errors import DataError

NAME = "sub-01_echo-1_part-phase_MEGRE.nii.gz"


@pytest.mark.parametrize(
    ("image_type", "part"),
    [
        (["ORIGINAL", "PRIMARY", "P", "ND", "PHASE"], "phase"),  # Siemens by dcm2niix
        (["ORIGINAL", "PRIMARY", "M", "ND", "NORM"], "magnitude"),
        (["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"], "phase"),  # Philips
        (["ORIGINAL", "PRIMARY", "T1", "MIXED", "PHASE"], "phase"),  # Philips, enhanced
        (["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"], "magnitude"),
        (["DERIVED", "PRIMARY", "OTHER", "REAL"], "real"),  # GE by dcm2niix
        (["DERIVED", "PRIMARY", "OTHER", "IMAGINARY"], "imaginary"),
        ("ORIGINAL\\PRIMARY\\P\\ND", "phase"),
    ],
)
def test_image_type_names_the_part(image_type, part):
    assert claimed_parts({"ImageType": image_type}) == {part}
    check_image(NAME, part, {"ImageType": image_type})
    for other in {"phase", "magnitude", "real", "imaginary"} - {part}:
        with pytest.raises(DataError, match=f"named {other}.* says {part}") as caught:
            check_image(NAME, other, {"ImageType": image_type})
        assert NAME in str(caught.value) and "exchange their names" in str(caught.value)


@pytest.mark.parametrize(
    "sidecar",
    [
        {},
        {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "M", "P"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "P", "SWI"]},  # the sequence's name: the image tells
        {"ImageType": None, "ImageComments": 12, "Units": None},
        {"ImageComments": "Unfiltered phase"},
        {"ImageComments": "phase, no high-pass filter"},
        {"ImageComments": "not filtered"},
        {"ImageComments": "Phase"},
        {"ImageComments": "Unaliased MB3/PE3", "Units": "arbitrary"},
        {"Units": "rad"},
    ],
)
def test_what_does_not_contradict_passes(sidecar):
    check_image(NAME, "phase", sidecar)


@pytest.mark.parametrize(
    ("sidecar", "words"),
    [
        ({"ImageType": ["DERIVED", "PRIMARY", "SWI"]}, "susceptibility-weighted"),
        ({"ImageType": ["DERIVED", "PRIMARY", "MNIP", "ND"]}, "minimum-intensity"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "B0 MAP"]}, "field map"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "FILTERED"]}, "was filtered"),
        ({"ComplexImageComponent": "MAGNITUDE"}, "says magnitude"),
        ({"ImageComments": "Magnitude image"}, "says magnitude"),
        ({"ImageComments": "high-pass filtered phase"}, "was filtered"),
        ({"ImageComments": "Homodyne"}, "was filtered"),
        ({"ImageComments": "SWI phase"}, "was filtered"),
        ({"Units": "Hz"}, "Units: Hz"),
    ],
)
def test_what_contradicts_gets_one_sentence(sidecar, words):
    with pytest.raises(DataError, match=words) as caught:
        check_image(NAME, "phase", sidecar)
    assert str(caught.value).startswith(NAME) and "\n" not in str(caught.value)
    if "filtered" in words or "Units" in words:
        check_image(NAME, "magnitude", sidecar | {"ImageType": ["M"]})


def test_an_image_type_that_all_parts_share_speaks_for_none():
    both = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]}
    check_witnesses({"phase": [("a.nii", both)], "magnitude": [("b.nii", both)], "real": []})
    for phase, magnitude in ((both, {}), ({"ImageType": ["M"]}, {"ImageType": ["P"]})):
        with pytest.raises(DataError, match="a.nii: it is named phase"):
            check_witnesses({"phase": [("a.nii", phase)], "magnitude": [("b.nii", magnitude)]})
