"""Maps that the user gives to start at: found by name, judged by values, said in a sentence."""

import json
import re
from pathlib import Path
from types import MappingProxyType

import nibabel as nib
import numpy as np
import pytest

from qsm_nipype import plan, settings
from qsm_nipype.dataset.given_acquisitions import find_given
from qsm_nipype.dataset.layout import Selection
from qsm_nipype.errors import UsageError
from qsm_nipype.record import Step
from qsm_nipype.report.methods_text import write_methods

SHAPE = (24, 24, 24)
AFFINE = np.diag([6.0, 6, 6, 1])


def values(sd: float) -> np.ndarray:
    """Random values in a ball of 900 cm³."""
    x, y, z = np.indices(SHAPE) - 11.5
    noise = np.random.default_rng(0).standard_normal(SHAPE)
    return np.where(x**2 + y**2 + z**2 < 100, sd * noise, 0).astype(np.float32)


#: A field that is not zero anywhere.
WHOLE = 0.01 * np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)


def write(path: Path, data: np.ndarray, **metadata) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, AFFINE), path)
    if metadata:
        Path(str(path).replace(".nii.gz", ".json")).write_text(json.dumps(metadata))
    return path


def look(root: Path, place: Path, kind: str = "chi", **changes):
    (root / "empty").mkdir(exist_ok=True)
    own = MappingProxyType({kind: place, **changes.pop("own", {})})
    return find_given(root / "empty", Selection(own=own, **changes))


def test_participants_are_those_of_the_maps_and_no_images_are_needed(tmp_path):
    maps = tmp_path / "maps"
    write(maps / "sub-01" / "anat" / "sub-01_Chimap.nii.gz", values(0.03), Units="ppm")
    write(maps / "sub-01" / "anat" / "sub-01_desc-tkd_Chimap.nii.gz", values(0.04))
    write(maps / "sub-02" / "ses-1" / "anat" / "sub-02_ses-1_run-2_QSM.nii.gz", values(0.03))
    good, bad = look(tmp_path, maps)
    assert not bad and [a.label for a in good] == ["sub-01", "sub-02_ses-1_run-2"]
    assert Path(good[0].files[0]).name == "sub-01_Chimap.nii.gz"
    assert good[0].given.uri == "bids:chi:sub-01/anat/sub-01_Chimap.nii.gz"
    assert "value other than 0" in good[0].notes[0] and not good[0].warnings
    (one,), _ = look(tmp_path, maps, participants=("sub-02",))
    assert one.subject == "02"
    with pytest.raises(UsageError, match="no map of sub-77"):
        look(tmp_path, maps, participants=("77",))
    with pytest.raises(UsageError, match="sub-LABEL_desc-local_fieldmap"):
        look(tmp_path, maps, kind="localfield")


@pytest.mark.parametrize(
    ("kind", "sd", "metadata", "units", "factor"),
    [
        ("chi", 30.0, {"Units": "ppb"}, "", 1e-3),
        ("chi", 30.0, {}, "ppb", 1e-3),
        ("chi", 30.0, {"Units": "ppm"}, "ppb", 1e-3),
        ("localfield", 1.3, {"Units": "Hz", "MagneticFieldStrength": 3}, "", 1 / 127.732434),
        ("totalfield", 0.2, {}, "", 1.0),
    ],
)
def test_units_are_those_of_the_sidecar_or_of_the_user(
    tmp_path, kind, sd, metadata, units, factor
):
    file = write(tmp_path / "maps" / "sub-01_map.nii.gz", values(sd), **metadata)
    (one,), bad = look(tmp_path, file, kind, units=units)
    assert not bad and one.given.unit.factor == pytest.approx(factor)


@pytest.mark.parametrize(
    ("kind", "data", "metadata", "said"),
    [
        ("chi", values(30.0), {}, "looks like ppb; name the unit by --map-units"),
        ("chi", values(0.0), {}, "no voxel has a value"),
        ("chi", values(0.03), {"Units": "T"}, "Units are 'T'"),
        ("chi", np.stack([values(0.03)] * 2, -1), {}, "has 2 volumes"),
        ("localfield", values(1.3), {}, "looks like Hz"),
        ("localfield", values(1.3), {"Units": "Hz"}, "add MagneticFieldStrength"),
        ("localfield", WHOLE, {}, "every voxel has a value, .* -d masks=PATH"),
        ("totalfield", values(0.2), {"SkullStripped": False}, "skull .* -d masks=PATH"),
    ],
)
def test_what_cannot_be_used_gets_its_sentence(tmp_path, kind, data, metadata, said):
    file = write(tmp_path / "maps" / "sub-01_map.nii.gz", data, **metadata)
    good, (refused,) = look(tmp_path, file, kind)
    assert not good
    assert refused.reason.startswith("sub-01_map.nii.gz: ")
    assert re.search(said, refused.reason)


def test_the_users_mask_says_where_the_brain_is(tmp_path):
    file = write(tmp_path / "maps" / "sub-01_map.nii.gz", values(0.01) + 5)
    mask = write(tmp_path / "sub-01_mask.nii.gz", (values(1.0) != 0).astype(np.uint8))
    (one,), bad = look(tmp_path, file, "localfield", own={"masks": mask})
    assert not bad and one.own.mask == mask and not one.notes


def test_a_run_does_and_tells_only_the_steps_after_the_map(tmp_path):
    def steps(**changes):
        chosen = settings.combine(settings.Settings(tmp_path, tmp_path), changes)
        settings.check(chosen)
        return plan.steps(chosen)

    of_chi = steps(derivatives={"chi": "x"})
    assert [s["step"] for s in of_chi] == ["given", "mask", *["segmentation"] * 2]
    text = write_methods([Step.from_json(s) for s in of_chi], version="1").paragraph
    assert "susceptibility map was given" in text
    assert "computed" not in text and "inver" not in text.lower()
    local = steps(derivatives={"localfield": "x", "masks": "y"})
    assert [s["step"] for s in local] == [
        *("given", "mask", "inversion", "reference", "segmentation", "segmentation")
    ]
    assert local[1]["method"] == "user"
    total = [s["step"] for s in steps(derivatives={"totalfield": "x"})]
    assert total[:4] == ["given", "mask", "background", "inversion"]
    again = steps(derivatives={"chi": "x", "reference": "y"}, reference="csf")
    assert "reference" in [s["step"] for s in again]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"derivatives": {"chi": "x", "localfield": "y"}}, "starts at one map"),
        ({"derivatives": {"chi": "x"}, "two_stage": 0.3}, "needs the total field"),
        ({"derivatives": {"localfield": "x"}, "inversion": ("tgv",)}, "-d totalfield=PATH"),
        ({"derivatives": {"chi": "x"}, "bids_filter_file": Path("f")}, "leave it out"),
        ({"map_units": "ppb"}, "no map is given"),
    ],
)
def test_choices_that_contradict_the_way_in_are_refused(tmp_path, changes, said):
    chosen = settings.combine(settings.Settings(tmp_path, tmp_path), changes)
    with pytest.raises(UsageError, match=said):
        settings.check(chosen)
