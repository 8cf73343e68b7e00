"""What latents lean on: figures beside scipy's and statsmodels' and brute force, verdicts on planted latents."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from helpers.planted import reading_weights, relu_sae, save_sae, write_store
from scipy.stats import pearsonr
from sklearn.metrics import roc_auc_score

from medsae_plugin import MedSAEError, read_table
from medsae_plugin.cli import main
from medsae_plugin.confounding import Confounders, score_confounders
from medsae_plugin.confounding.leaning import leaning
from medsae_plugin.confounding.partial import Covariate, fisher_pooled, multiple_r, partial_r
from medsae_plugin.statistics.jackknife import PatientJackknife

N = 240
PATIENTS = np.array([f"p{i // 2}" for i in range(N)])


def made(seed=0, by_finding=1.0, by_sex=0.0):
    """Sex, age and a finding that goes with sex, and an activation that follows finding and sex by these weights."""
    rng = np.random.default_rng(seed)
    sex = np.repeat(rng.integers(0, 2, N // 2), 2)
    y = (rng.random(N) < np.where(sex == 1, 0.6, 0.25)).astype(float)
    a = np.maximum(by_finding * y + by_sex * sex + rng.normal(size=N), 0)
    return a, y, sex, rng.uniform(5, 95, N).round()


def test_partial_and_multiple_correlations_are_those_of_regressions_also_without_each_patient():
    a, y, sex, age = made(by_sex=0.5)
    site = np.random.default_rng(1).integers(0, 3, N)
    z = np.stack([sex, age, site == 1, site == 2], 1).astype(float)
    jackknife = PatientJackknife(PATIENTS)
    found, (eta, adjusted) = partial_r(a, y, z, jackknife), multiple_r(a, z, jackknife)
    order = np.unique(PATIENTS)
    for k in (None, 0, 57):
        rows = np.ones(N, dtype=bool) if k is None else order[k] != PATIENTS
        x = sm.add_constant(z[rows])
        fit, of_label = sm.OLS(a[rows], x).fit(), sm.OLS(y[rows], x).fit()
        for one, expected in (
            (found, pearsonr(fit.resid, of_label.resid).statistic),
            (eta, np.sqrt(fit.rsquared)),
            (adjusted, np.sqrt(max(0, fit.rsquared_adj))),
        ):
            assert (one.value if k is None else one.left_out[k]) == pytest.approx(expected, abs=1e-9)
    plain = partial_r(a, y, z[:, :0], jackknife)
    assert plain.value == pytest.approx(pearsonr(a, y).statistic)
    assert np.isnan(partial_r(a, sex.astype(float), z[:, :1], jackknife).value), "nothing of it is left"


def test_a_category_has_eta_and_strata_are_pooled_by_fishers_z():
    a, y, _, _ = made()
    site = pd.Series(np.random.default_rng(1).choice(["A", "B", "C"], N), name="site")
    own = Covariate.of(site)
    groups = [a[site == s] for s in "ABC"]
    between = sum(len(g) * (g.mean() - a.mean()) ** 2 for g in groups)
    eta, _ = multiple_r(a, own.design, PatientJackknife(PATIENTS))
    assert eta.value == pytest.approx(np.sqrt(between / ((a - a.mean()) ** 2).sum()))
    found = leaning(a, y, PATIENTS, own, "Effusion")
    assert found.with_covariate == pytest.approx(eta.value)
    rs = [pearsonr(a[site == s], y[site == s]).statistic for s in "ABC"]
    weights = [(site == s).sum() - 3 for s in "ABC"]
    assert found.within == pytest.approx(np.tanh(np.average(np.arctanh(rs), weights=weights)))
    aurocs = [roc_auc_score(y[site == s], a[site == s]) for s in "ABC"]
    assert [s.auroc for s in found.strata] == pytest.approx(aurocs)
    assert found.worst == "ABC"[int(np.argmin(aurocs))]
    assert all(s.auroc_low < s.auroc < s.auroc_high for s in found.strata)
    assert np.isnan(fisher_pooled([0.5], [3])), "three images weigh nothing"


def test_ages_are_put_into_the_bands_that_are_stated_and_unknown_is_left_out():
    own = Covariate.of(pd.Series([3.0, 20, 39, 40, 79, 80, np.nan], name="age"))
    assert own.stratum.tolist() == ["under 20", "20-39", "20-39", "40-59", "60-79", "80 and over", ""]
    a, y, _, age = made()
    age[:30] = np.nan
    found = leaning(a, y, PATIENTS, Covariate.of(pd.Series(age, name="age")), "Effusion")
    assert found.images == N - 30 == sum(s.images for s in found.strata)
    assert found.with_covariate == pytest.approx(pearsonr(a[30:], age[30:]).statistic)


@pytest.mark.parametrize(
    "weights,words",
    [
        ((1.5, 0.0), "holds in every stratum"),
        ((0.3, 4.0), "follows sex more than Effusion"),
        ((0.0, 0.0), "does not follow Effusion here"),
    ],
)
def test_the_verdict_names_what_was_planted(weights, words):
    a, y, sex, _ = made(3, *weights)
    found = leaning(a, y, PATIENTS, Covariate.of(pd.Series(np.where(sex == 1, "M", "F"), name="sex")), "Effusion")
    assert found.verdict == words
    if weights == (1.5, 0.0):
        assert found.explained == pytest.approx(1 - found.partial / found.r)


def test_what_goes_with_a_finding_through_sex_alone_is_explained_by_it_and_a_finding_of_one_sex_is_not_shown():
    _, y, sex, _ = made(3)
    y = np.where(np.random.default_rng(0).random(N) < 0.1, 1 - sex, sex).astype(float)
    rng = np.random.default_rng(5)
    words = Covariate.of(pd.Series(np.where(sex == 1, "M", "F"), name="sex"))
    through = leaning(sex + 1.2 * rng.normal(size=N), y, PATIENTS, words, "Effusion")
    assert through.verdict == "explained by sex" and through.explained > 0.5
    _, y, sex, _ = made(3)
    one = leaning(3 * y * (sex == 0) + rng.normal(size=N), y, PATIENTS, words, "Effusion")
    assert one.verdict == "not shown in M" and one.worst == "M"


def test_too_few_are_refused_with_a_reason():
    a, y, sex, _ = made()
    words = Covariate.of(pd.Series(np.where(sex == 1, "M", "F"), name="sex"))
    few = np.where(np.arange(N) < 12, y, 0)
    found = leaning(a, few, PATIENTS, words, "Hernia")
    assert found.verdict == "too few to say: fewer than 10 patients with the finding" and found.r_low is None
    assert all(s.auroc is None and s.no_interval for s in found.strata) and found.worst is None
    same = leaning(a, y, PATIENTS, Covariate.of(pd.Series(["M"] * N, name="sex")), "Effusion")
    assert same.verdict == "too few to say: sex does not vary"
    none = leaning(a, np.full(N, np.nan), PATIENTS, words, "Effusion")
    assert none.images == 0 and none.verdict.startswith("too few")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Latent 0 follows Effusion alone; latent 1, the best of Mass, which is commoner in men, follows sex."""
    folder = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(0)
    n, d = 600, 6
    sex = np.repeat(rng.integers(0, 2, n // 3), 3)
    effusion = rng.random(n) < 0.3
    mass = rng.random(n) < np.where(sex == 1, 0.5, 0.15)
    codes = np.stack([effusion, sex], 1) * rng.uniform(1, 2, (n, 2)) * (rng.random((n, 2)) < 0.9)
    weights = reading_weights(d, 2)
    rows = codes @ weights["decoder"].numpy() + 3 + 0.01 * rng.normal(size=(n, d))
    store = write_store(folder / "store", {"h": rows.astype(np.float32)})
    frame = pd.DataFrame({"Path": store.images["path"], "Sex": np.where(sex == 1, "Male", "Female"),
                          "Age": rng.integers(20, 90, n), "Effusion": effusion * 1, "Mass": mass * 1})  # fmt: skip
    frame.to_csv(folder / "t.csv", index=False)
    sae = save_sae(folder / "sae", relu_sae("h", **weights, encoder_sha256="0" * 64))
    return folder, store, sae


def test_a_planted_shortcut_is_named_and_a_finding_holds(planted, tmp_path, capsys):
    folder, store, sae = planted
    words = ["confounders", str(store.path), str(sae), "--table", str(folder / "t.csv"), "--labels", "Effusion,Mass",
             "--covariates", "sex", "--out", str(tmp_path), "--quiet", "--permutations", "50"]  # fmt: skip
    assert main(words) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    found = Confounders.open(tmp_path)
    assert str(found) in said and [u.kind for u in found.units] == ["sae", "neurons", "probe"]
    top = {one.label: one for one in found.units[0].leanings if one.top}
    assert (top["Effusion"].latent, top["Effusion"].verdict) == (0, "holds in every stratum")
    assert (top["Mass"].latent, top["Mass"].verdict) == (1, "follows sex more than Mass")
    frame = pd.read_parquet(tmp_path / "confounders.parquet")
    assert len(frame) == sum(len(u.leanings) for u in found.units)
    assert "NaN" not in (tmp_path / "confounders.json").read_text()


def test_a_covariate_that_the_table_lacks_is_refused(planted):
    folder, store, sae = planted
    table = read_table(folder / "t.csv", label_columns=["Effusion", "Mass"])
    with pytest.raises(MedSAEError, match="no covariate 'device'; it has: sex, age"):
        score_confounders(store, sae, table, ["device"], progress=False)
