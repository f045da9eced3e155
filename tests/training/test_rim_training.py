"""The rim cohort and its training: folds of whole patients, resumable, written and read again."""

import csv
from pathlib import Path

import numpy as np
import pytest

from qsm_nipype.errors import UsageError
from qsm_nipype.models import radiomics, registry, rim
from qsm_nipype.training import rim_cohort, rim_command
from qsm_nipype.training.rim import Lesions, assign_folds

needed = pytest.mark.skipif(not radiomics.available(), reason="PyRadiomics is not installed")


def test_folds_hold_whole_patients_and_like_numbers_of_rims():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 20)
    labels = rng.random(1200) < np.repeat(rng.beta(0.5, 8, 60), 20)
    place = assign_folds(patients, labels, 5, seed=1)
    assert all(np.unique(place[patients == p]).size == 1 for p in range(60))
    counts = np.bincount(place[labels], minlength=5)
    assert counts.max() - counts.min() <= 4
    assert np.bincount(place[::20]).tolist() == [12] * 5
    assert np.array_equal(place, assign_folds(patients, labels, 5, seed=1))
    with pytest.raises(UsageError, match="add patients"):
        assign_folds(patients, patients == 3, 5, seed=1)


@pytest.mark.slow
def test_a_simulated_patient_is_reproducible_and_close_to_its_truth():
    from qsm_nipype.simulation.lesions import lesion_region

    one, other = (lesion_region(5, edge=26, count=1).tissue.chi for _ in "ab")
    assert np.array_equal(one, other)
    region = lesion_region(5, edge=52, count=5, rims=2)
    assert sum(p.positive for p in region.plans) <= 2
    assert region.instances.max() == len(region.plans) >= 3
    chi, mask = rim_cohort.reconstruct(region, np.random.default_rng(0))
    truth = region.tissue.chi
    assert np.corrcoef(chi[mask], truth[mask])[0, 1] > 0.8
    assert abs(chi[mask].mean()) < 1e-6 and not chi[~mask].any()
    for number, (plan, center) in enumerate(zip(region.plans, region.centers, strict=True), 1):
        drawn = np.argwhere(region.instances == number)
        if len(drawn) > 30:
            assert np.linalg.norm(drawn.mean(0) - center) < 0.6 * plan.radius + 1


@pytest.fixture
def cohort(tmp_path):
    """Ten small patients; a lesion with a rim is bright at its edge."""
    rng = np.random.default_rng(0)
    for number in range(10):
        chi = rng.normal(0, 0.01, (40, 40, 40)).astype(np.float32)
        instances = np.zeros(chi.shape, np.uint8)
        rims = np.array([True, False, False])
        for n, center in enumerate(((10, 10, 10), (28, 28, 28), (10, 28, 20)), start=1):
            grid = np.indices(chi.shape) - np.reshape(center, (3, 1, 1, 1))
            radius = np.sqrt((grid**2).sum(0))
            instances[radius < 5] = n
            chi += 0.08 * ((radius < 5) & (radius > 3)) * rims[n - 1]
        mask = np.ones(chi.shape, bool)
        flair = np.full(chi.shape, 50.0, np.float32)
        patient = rim_cohort.Patient(chi, flair, instances, mask, rims)
        path = tmp_path / "cache" / f"patient-{number:04d}.npz"
        np.savez(path, **rim_cohort.arrays_of(patient))
    (tmp_path / "cache" / "patient.json").write_text('{"rims": null, "seed": 0}')
    return tmp_path


@pytest.fixture(autouse=True)
def _cache(tmp_path):
    (tmp_path / "cache").mkdir()


def test_patients_survive_their_file(cohort):
    patient = rim_cohort.read_patient(cohort / "cache" / "patient-0003.npz")
    assert patient.chi.dtype == np.float32 and patient.rim.tolist() == [True, False, False]
    assert patient.chi.max() == pytest.approx(0.1, abs=0.03)


@needed
def test_training_learns_resumes_and_writes_what_the_pipeline_reads(cohort, monkeypatch, capsys):
    names = radiomics.feature_names()[:8]
    monkeypatch.setattr(radiomics, "feature_names", lambda: names)
    monkeypatch.setattr("qsm_nipype.training.rim.BATCH", 8)
    text = "--patients 10 --folds 2 --width 2 --steps 12 --validate-every 6 --supplement 0"
    command = [str(cohort), *text.split(), "--variants", "full", "radiomics"]
    assert rim_command.main(command) == 0
    printed = capsys.readouterr().out
    assert "10 patients, 30 lesions, 10 with rim" in printed
    assert "| baseline | 1.000" in printed  # so simple is this cohort
    first = (cohort / "full" / "predictions.csv").read_bytes()
    rows = list(csv.DictReader((cohort / "full" / "predictions.csv").open()))
    assert sorted(int(r["lesion"]) for r in rows) == list(range(30))
    (cohort / "full" / "fold-2.npz").unlink()
    assert rim_command.main(command) == 0
    assert (cohort / "full" / "predictions.csv").read_bytes() == first
    with pytest.raises(UsageError, match="fold trained with .* give another OUT"):
        rim_command.main([*command, "--width", "3"])
    read = rim.load_network(registry.read_weights("rim", cohort / "rim.safetensors"))
    assert read.names == names and 0 < read.threshold < 1
    assert read.network.classifier[0].in_features == 16


@needed
def test_batches_are_seeded_and_the_centre_stays_in_the_middle(cohort, monkeypatch):
    names = radiomics.feature_names()[:3]
    monkeypatch.setattr(radiomics, "feature_names", lambda: names)
    lesions = Lesions.load(cohort / "cache")
    rows = np.array([0, 3])
    plain, _, labels = lesions.batch(rows, None)
    assert plain.shape == (2, 2, rim.EDGE, rim.EDGE, rim.EDGE) and labels.tolist() == [1, 1]
    middle = plain[0, 0, 11:18, 11:18, 11:18]
    assert middle.mean() > plain[0, 0].mean()
    one, other = (lesions.batch(rows, np.random.default_rng(1))[0] for _ in "ab")
    assert one.equal(other) and not one.equal(plain)
    assert lesions.join(lesions).patients.max() == 2 * lesions.patients.max() + 1


def test_an_empty_folder_is_said(tmp_path: Path):
    with pytest.raises(UsageError, match="no patients there"):
        Lesions.load(tmp_path / "cache")
