"""The rule of `outside` and `inside`, on units whose place is made: in corners, in the region, by chance."""

import numpy as np
import pytest
from scipy.stats import binomtest

from medsae_plugin.localisation.inside import Shares
from medsae_plugin.statistics.bounded import hoeffding_p

RNG = np.random.default_rng(0)


def of(shares: np.ndarray, even: np.ndarray, patients: np.ndarray, parts: int = 1):
    sums = Shares(shares.shape[1])
    for mine in np.array_split(np.unique(patients), parts):
        at = np.isin(patients, mine)
        sums.add(shares[at], even[at], patients[at])
    return sums.frame()


def test_one_that_fires_in_corners_only_is_outside_one_in_the_region_inside_an_even_one_neither():
    patients = np.repeat(np.arange(40), 2)
    even = RNG.uniform(0.2, 0.4, 80)
    corner, within, everywhere = np.zeros(80), np.full(80, 0.95), even
    found = of(np.stack([corner, within, everywhere], axis=1), even, patients)
    assert found["flag"].tolist() == ["outside", "inside", ""]
    assert found["difference"].tolist() == pytest.approx([-even.mean(), 0.95 - even.mean(), 0])


def test_a_patient_counts_once_and_parts_give_the_same_sums():
    patients = np.repeat(np.arange(30), RNG.integers(1, 6, 30))
    even = RNG.uniform(0.2, 0.4, len(patients))
    shares = RNG.random((len(patients), 3))
    shares[RNG.random(shares.shape) < 0.3] = np.nan
    found = of(shares, even, patients)
    for j, row in found.iterrows():
        fires = ~np.isnan(shares[:, j])
        per_patient = [
            (shares[(patients == p) & fires, j].mean(), even[(patients == p) & fires].mean())
            for p in np.unique(patients[fires])
        ]
        own, area = np.array(per_patient).T
        assert (row["images"], row["patients"]) == (fires.sum(), len(own))
        assert (row["share_inside"], row["region_share"]) == pytest.approx((own.mean(), area.mean()))
        gap, error = own - area, np.std(own - area, ddof=1) / np.sqrt(len(own))
        assert row["low"] < gap.mean() < row["high"]
        assert row["high"] - row["low"] == pytest.approx(2 * 2.045 * error, rel=0.01)  # Student's t, 29 degrees
    assert np.allclose(of(shares, even, patients, parts=7).drop(columns="flag"), found.drop(columns="flag"))


def test_few_patients_are_not_tested():
    even = np.full(9, 0.5)
    found = of(np.zeros((9, 1)), even, np.arange(9))
    assert found["flag"].tolist() == [""] and found["p"].isna().all() and found["low"].isna().all()


@pytest.mark.parametrize("n_patients", [10, 40])
def test_units_whose_place_has_nothing_to_do_with_the_region_are_flagged_no_more_often_than_said(n_patients):
    """A unit of one cell, wherever it is, is inside by the region's share: the hardest case, of shares 0 and 1."""
    even = RNG.uniform(0.1, 0.6, n_patients)
    shares = (RNG.random((n_patients, 4000)) < even[:, None]).astype(float)
    found = of(shares, even, np.arange(n_patients))
    assert (found["p"] < 0.05).mean() <= 0.05
    assert (found["flag"] != "").sum() == 0, "none is true, so any flag would be a false discovery"


def test_the_bound_is_never_below_the_exact_p_of_a_coin():
    for n in (10, 25, 100):
        for wins in range(0, n + 1, max(1, n // 10)):
            exact = binomtest(wins, n, 0.3, alternative="less" if wins < 0.3 * n else "greater").pvalue
            (found,) = hoeffding_p(np.array([wins / n]), np.array([0.3]), np.array([float(n)]))
            assert found >= min(1, 2 * exact) - 1e-12
