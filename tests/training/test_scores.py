"""Classification measures against closed forms and scikit-learn."""

import numpy as np
import pytest

from qsm_nipype.training import rim_scores as scores

RNG = np.random.default_rng(3)
LABELS = RNG.random(800) < 0.08
SCORES = np.round(RNG.normal(size=800) + 1.5 * LABELS, 1)  # with ties


def test_areas_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    assert scores.roc_auc(LABELS, SCORES) == pytest.approx(metrics.roc_auc_score(LABELS, SCORES))
    assert scores.average_precision(LABELS, SCORES) == pytest.approx(
        metrics.average_precision_score(LABELS, SCORES)
    )
    fpr, tpr, _ = metrics.roc_curve(LABELS, SCORES, drop_intermediate=False)
    fine = np.linspace(0, 0.1, 100_001)
    wanted = np.interp(fine, fpr, tpr).mean()
    assert scores.roc_auc(LABELS, SCORES, 0.1) == pytest.approx(wanted, abs=1e-4)


def test_perfect_reversed_and_constant_scores():
    for limit in (1.0, 0.1):
        assert scores.roc_auc(LABELS, LABELS.astype(float), limit) == 1
        assert scores.roc_auc(LABELS, -LABELS.astype(float), limit) == pytest.approx(0)
        constant = np.zeros(LABELS.size)
        assert scores.roc_auc(LABELS, constant, limit) == pytest.approx(limit / 2)
    assert scores.average_precision(LABELS, np.zeros(LABELS.size)) == pytest.approx(LABELS.mean())


def test_order_preserving_changes_of_the_scores_change_nothing():
    for area in (scores.roc_auc, scores.average_precision):
        assert area(LABELS, SCORES) == pytest.approx(area(LABELS, np.exp(3 * SCORES) - 5))


def test_both_classes_are_needed():
    with pytest.raises(ValueError, match="with and without"):
        scores.roc_auc(np.ones(5, bool), np.arange(5.0))


def test_the_threshold_has_the_best_f1_below_the_limit():
    chosen = scores.choose_threshold(LABELS, SCORES)
    fpr = (chosen <= SCORES)[~LABELS].mean()
    assert fpr < 0.1

    def f1(t):
        found = t <= SCORES
        return 2 * (found & LABELS).sum() / (found.sum() + LABELS.sum())

    allowed = [t for t in np.unique(SCORES) if (t <= SCORES)[~LABELS].mean() < 0.1]
    assert f1(chosen) == pytest.approx(max(f1(t) for t in allowed))


def test_counts_and_their_interval():
    truth = RNG.poisson(2, 150).astype(float)
    same = scores.compare_counts(truth, truth)
    assert same.mse == 0 and same.correlation == pytest.approx(1)
    noisy = truth + RNG.normal(0, 1, 150)
    found = scores.compare_counts(truth, noisy)
    assert found.low < found.correlation < found.high
    stats = pytest.importorskip("scipy.stats")
    wanted = stats.pearsonr(truth, noisy).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-6)
    assert np.isnan(scores.compare_counts(truth, np.zeros(150)).correlation)


def test_counts_per_patient_and_sensitivity():
    patients = np.array([3, 3, 1, 1, 1])
    assert scores.per_patient(patients, np.array([1, 0, 1, 1, 0])).tolist() == [2, 1]
    labels, found = np.array([1, 1, 0, 0], bool), np.array([1, 0, 0, 1], bool)
    assert scores.sensitivity(labels, found) == (0.5, 0.5)


def test_the_bootstrap_holds_the_value_and_draws_patients():
    patients = np.repeat(np.arange(40), 20)
    low, high = scores.bootstrap(patients, LABELS, SCORES, scores.roc_auc, repeats=100)
    assert low < scores.roc_auc(LABELS, SCORES) < high
    again = scores.bootstrap(patients, LABELS, SCORES, scores.roc_auc, repeats=100)
    assert again == (low, high)
