"""Intervals over patients: against plain loops, statsmodels-free textbook cases, and when there is none."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from medsae_plugin.statistics import bootstrap
from medsae_plugin.statistics.bootstrap import studentised_interval
from medsae_plugin.statistics.intervals import (
    auroc_interval,
    correlation_interval,
    independent_difference,
    p_above_zero,
    reason_for_none,
    t_interval,
    variance,
)
from medsae_plugin.statistics.jackknife import PatientJackknife


@pytest.fixture(scope="module")
def clustered():
    """Patients of one to three images, sparse activations with ties, labels of which some are unknown."""
    rng = np.random.default_rng(2)
    patients = np.repeat([f"p{k:02d}" for k in range(36)], [1, 2, 3] * 12)
    a = np.round(np.maximum(rng.normal(size=(len(patients), 2)), 0), 1)
    labels = rng.choice([0.0, 1.0, np.nan], p=[0.5, 0.4, 0.1], size=a.shape)
    return patients, a, labels


def test_the_jackknife_leaves_each_patient_out_in_turn(clustered):
    patients, a, labels = clustered
    jackknife = PatientJackknife(patients)
    r, auroc, mean = jackknife.pearson(a, labels), jackknife.auroc(a, labels), jackknife.mean(a[:, 0])
    assert jackknife.n_patients == 36
    for k, name in enumerate(np.unique(patients)):
        kept = patients != name
        assert mean[k] == pytest.approx(a[kept, 0].mean())
        for c in range(2):
            known = kept & ~np.isnan(labels[:, c])
            assert r[k, c] == pytest.approx(stats.pearsonr(a[known, c], labels[known, c])[0])
            assert auroc[k, c] == pytest.approx(roc_auc_score(labels[known, c], a[known, c]))


def test_what_rests_on_one_patient_is_undefined_without_it():
    """A latent that fires on one patient alone is constant without them: undefined, not r = 0."""
    patients = [str(k) for k in range(6)]
    a = np.array([[0.0, 0, 0, 0, 0, 2]]).T
    labels = np.array([[0.0, 1, 0, 1, 0, 1]]).T
    r = PatientJackknife(patients).pearson(a, labels)
    assert np.isnan(r[5, 0]) and not np.isnan(r[:5]).any()
    assert np.isnan(variance(r[:, 0]))
    for unit in np.random.default_rng(0).uniform(1e-6, 1e6, 30):  # and so are sums that cancel but for rounding errors
        again = PatientJackknife(patients).pearson(unit * (a + 0.1), labels)
        np.testing.assert_allclose(again, r, atol=1e-6)
    one_positive = np.array([[0.0, 0, 0, 0, 0, 1]]).T
    auroc = PatientJackknife(patients).auroc(a, one_positive)
    assert np.isnan(auroc[5, 0]) and (auroc[:5] == 1).all()
    assert np.isnan(auroc_interval(1.0, auroc[:, 0], (1.0, 5.0), (1.0, 5.0))).all()
    one_pair = PatientJackknife(patients[:3]).auroc(np.array([[1.0], [0], [2]]), np.array([[1.0], [0], [0]]))
    np.testing.assert_array_equal(one_pair, [[np.nan], [0], [1]])


def test_of_a_mean_the_jackknifes_interval_is_students():
    x = np.random.default_rng(0).normal(size=25)
    found = t_interval(float(x.mean()), PatientJackknife([str(k) for k in range(25)]).mean(x), 24.0)
    assert found == pytest.approx(tuple(stats.ttest_1samp(x, 0).confidence_interval()))


def test_the_interval_of_r_is_near_fishers_where_fisher_holds():
    """Of normal variables, one image a patient, artanh r has the standard error 1 / sqrt(n - 3)."""
    rng = np.random.default_rng(1)
    n = 4000
    x = rng.normal(size=n)
    y = 0.6 * x + 0.8 * rng.normal(size=n)
    without = PatientJackknife([str(k) for k in range(n)]).pearson(x[:, None], y[:, None])[:, 0]
    r = stats.pearsonr(x, y)
    low, high = correlation_interval(float(r.statistic), without, n - 1.0)
    expected = r.confidence_interval()
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.003)
    assert correlation_interval(-float(r.statistic), -without, n - 1.0) == pytest.approx((-high, -low))


def test_a_latent_that_is_the_label_or_its_opposite_has_a_narrow_interval():
    assert correlation_interval(-1.0, np.full(20, -1.0), 19.0) == pytest.approx((-1, -1))
    assert correlation_interval(1.0, np.full(20, 1.0), 19.0) == pytest.approx((1, 1))


def test_the_interval_of_auroc_solves_newcombes_equation():
    rng = np.random.default_rng(3)
    y = np.arange(60) < 12
    a = rng.normal(size=60) + y
    auroc = roc_auc_score(y, a)
    # Without a spread the formula's variance stands alone.
    low, high = auroc_interval(auroc, np.full(60, auroc), (12.0, 48.0), (12.0, 48.0))
    for x in (low, high):
        bracket = (1 - x) / (2 - x) + x / (1 + x)
        spread = np.sqrt(x * (1 - x) * (1 + 29 * bracket) / (12 * 48))
        assert abs(auroc - x) == pytest.approx(stats.norm.ppf(0.975) * spread, rel=1e-6)
    wide = auroc_interval(auroc, auroc + 0.2 * rng.normal(size=60), (12.0, 48.0), (12.0, 48.0))
    assert wide[0] < low < auroc < high < wide[1]
    # Two images a patient: counts between both.
    low, high = auroc_interval(auroc, np.full(30, auroc), (12.0, 48.0), (6.0, 24.0))
    for x in (low, high):
        m, n = np.sqrt(12 * 6), np.sqrt(48 * 24)
        bracket = (1 - x) / (2 - x) + x / (1 + x)
        spread = np.sqrt(x * (1 - x) * (1 + ((m + n) / 2 - 1) * bracket) / (m * n))
        assert abs(auroc - x) == pytest.approx(stats.norm.ppf(0.975) * spread, rel=1e-6)
    low, high = auroc_interval(1.0, np.ones(60), (12.0, 48.0), (12.0, 48.0))
    assert 0.7 < low < 0.97 and high == 1
    assert auroc_interval(0.0, np.zeros(60), (12.0, 48.0), (12.0, 48.0)) == pytest.approx((1 - high, 1 - low))


def test_none_of_few_patients_or_few_that_fire():
    assert reason_for_none(10.0, 50.0, 8.0, 0.2) is None
    assert reason_for_none(9.0, 50.0, 9.0, 9.0) == "fewer than 10 patients with the finding"
    assert reason_for_none(50.0, 9.0, 9.0, 9.0) == "fewer than 10 patients without the finding"
    assert reason_for_none(50.0, 50.0, 4.0, 4.9) == "fires on fewer than 5 patients with the finding"
    # A latent that is silent where many firings were to be expected says something: it has an interval.
    assert reason_for_none(50.0, 50.0, 0.0, 20.0) is None


def test_a_studentised_interval_covers_a_skewed_mean_where_percentiles_do_not():
    rng = np.random.default_rng(4)
    truth, trials, covered, plain = 0.3989, 200, 0, 0
    for k in range(trials):
        x = np.maximum(rng.normal(size=15), 0)
        low, high = studentised_interval(x, np.ones(15), 400, seed=k)
        covered += low <= truth <= high
        means = rng.choice(x, (400, 15)).mean(1)
        plain += np.percentile(means, 2.5) <= truth <= np.percentile(means, 97.5)
    assert covered / trials > 0.92 > plain / trials


def test_a_studentised_interval_is_that_of_a_loop_over_resampled_patients(monkeypatch):
    rng = np.random.default_rng(5)
    counts = rng.integers(1, 5, 14).astype(float)
    totals = counts * rng.exponential(size=14)

    def mean_and_error(totals, counts):
        mean = totals.sum() / counts.sum()
        n = len(totals)
        return mean, np.sqrt(((totals - mean * counts) ** 2).sum() * n / (n - 1)) / counts.sum()

    mean, error = mean_and_error(totals, counts)
    draws = np.random.default_rng(7)
    drawn = [np.repeat(np.arange(14), draws.multinomial(14, np.full(14, 1 / 14))) for _ in range(300)]
    t = [(m - mean) / e for m, e in (mean_and_error(totals[one], counts[one]) for one in drawn)]
    expected = mean - np.quantile(t, 0.975) * error, mean - np.quantile(t, 0.025) * error
    assert studentised_interval(totals, counts, 300, seed=7) == pytest.approx(expected)
    for elements in (0, 14 * 7):
        monkeypatch.setattr(bootstrap, "_CHUNK_ELEMENTS", elements)
        assert studentised_interval(totals, counts, 300, seed=7) == pytest.approx(expected)
    assert studentised_interval(totals, counts) == studentised_interval(totals, counts, 1000, seed=0)
    for unit in (1e-6, 1e6):
        assert studentised_interval(unit * totals, counts, 300, seed=7) == pytest.approx(np.multiply(unit, expected))


def test_of_means_the_difference_of_two_groups_is_welchs_and_p_is_students():
    """Without an image a patient's mean is scipy's t tests' own."""
    rng = np.random.default_rng(3)
    one, other = rng.normal(1, 2, 14), rng.normal(0, 1, 30)
    found = [(float(x.mean()), PatientJackknife(np.arange(len(x))).mean(x), len(x) - 1.0) for x in (one, other)]
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    assert independent_difference(*found) == pytest.approx((expected.low, expected.high))
    p = stats.ttest_1samp(one, 0, alternative="greater").pvalue
    assert p_above_zero(*found[0]) == pytest.approx(p)
    assert p_above_zero(0.0, np.zeros(5), 4.0) == 0.5


def test_resamples_without_a_spread_are_undefined():
    one = np.zeros(12)
    one[0] = 1.0  # in a third of resamples the one patient with an effect is missing
    assert np.isnan(studentised_interval(one, np.ones(12))).all()
    assert np.isnan(studentised_interval(np.ones(12), np.ones(12))).all()
    three = np.zeros(12)
    three[:3] = 1, 2, 3  # in 3% all three are missing: few enough
    assert np.isfinite(studentised_interval(three, np.ones(12))).all()
    two = np.zeros(12)
    two[:2] = 1, 2  # in 11%, which are too many
    assert np.isnan(studentised_interval(two, np.ones(12), 4000)).all()
