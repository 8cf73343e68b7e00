"""What latents lean on: figures beside scipy's and statsmodels' and brute force, verdicts on planted latents."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from helpers.planted import made_up_images, reading_weights, relu_sae, save_sae, write_store
from scipy.stats import pearsonr
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

from medsae_plugin import MedSAEError, read_table
from medsae_plugin.cli import main
from medsae_plugin.confounding import Confounders, score_confounders
from medsae_plugin.confounding.covariates import Covariate, design_of
from medsae_plugin.confounding.leaning import LabelBeside
from medsae_plugin.confounding.partial import Regressions, fisher_pooled
from medsae_plugin.statistics.intervals import p_above_zero, ratio_interval, t_interval
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


def of_sex(sex):
    return Covariate.of(pd.Series(np.where(sex == 1, "M", "F"), name="sex"))


def leanings(a, y, *covariates, fold=None):
    return LabelBeside("Effusion", y, PATIENTS, covariates, fold).leanings(a, a != 0)


def test_partial_and_multiple_correlations_are_those_of_regressions_also_without_each_patient():
    a, y, sex, age = made(by_sex=0.5)
    site = np.random.default_rng(1).integers(0, 3, N)
    z = np.stack([sex, age, site == 1, site == 2, site > 0], 1).astype(float)  # the last adds nothing to the others
    jackknife = PatientJackknife(PATIENTS)
    found = Regressions(y, z[:, :4], jackknife).of(a)
    order = np.unique(PATIENTS)
    for k in (None, 0, 57):
        rows = np.ones(N, dtype=bool) if k is None else order[k] != PATIENTS
        x = sm.add_constant(z[rows][:, :4])
        fit, of_label = sm.OLS(a[rows], x).fit(), sm.OLS(y[rows], x).fit()
        for one, expected in (
            (found.r, pearsonr(a[rows], y[rows]).statistic),
            (found.partial, pearsonr(fit.resid, of_label.resid).statistic),
            (found.multiple, np.sqrt(fit.rsquared)),
            (found.strength, np.sqrt(max(0, fit.rsquared_adj))),
        ):
            assert (one.value if k is None else one.left_out[k]) == pytest.approx(expected, abs=1e-9)
    again = Regressions(y, z, jackknife).of(a)
    np.testing.assert_allclose(again.partial.left_out, found.partial.left_out, atol=1e-9)
    assert again.strength.value == pytest.approx(found.strength.value), "nor takes it a degree of freedom"
    assert np.isnan(Regressions(y, z[:, :1], jackknife).of(sex.astype(float)).partial.value), "nothing of it is left"
    assert np.isnan(Regressions(y, z[:, :1], jackknife).of(np.full(N, 0.1)).r.value)


def test_a_share_is_between_the_ratios_that_fit():
    """Fieller's interval, by trying ratios one by one."""
    a, y, sex, _ = made(by_sex=0.5)
    found = Regressions(y, design_of([of_sex(sex)]), PatientJackknife(PATIENTS)).of(a)
    low, high = ratio_interval((found.partial.value, found.partial.left_out), (found.r.value, found.r.left_out), 50.0)
    fits = []
    for q in np.linspace(-1, 3, 4001):
        below, above = t_interval(
            found.partial.value - q * found.r.value, found.partial.left_out - q * found.r.left_out, 50.0
        )
        fits += [q] if below <= 0 <= above else []
    assert (low, high) == pytest.approx((min(fits), max(fits)), abs=2e-3)
    none = made(by_finding=0.0)[0]
    of_none = Regressions(y, design_of([of_sex(sex)]), PatientJackknife(PATIENTS)).of(none)
    assert ratio_interval((0.1, of_none.partial.left_out), (of_none.r.value, of_none.r.left_out), 50.0) is None
    (one,) = leanings(none, y, of_sex(sex))
    assert one.explained is None and one.no_share["explained"] == "r may be 0, so it has no shares"
    assert one.kept is None and one.no_share["kept"] == "AUROC may be 0.5, so none of it can be kept"


def test_what_is_kept_of_auroc_counts_pairs_within_a_stratum_and_within_a_fold():
    a, y, sex, _ = made(by_sex=0.5)
    (found,) = leanings(a, y, of_sex(sex))

    def within(part):
        parts = [(y[part == k], a[part == k]) for k in np.unique(part)]
        pairs = [t.sum() * (1 - t).sum() for t, _ in parts]
        return np.average([roc_auc_score(*one) for one in parts], weights=pairs)

    assert found.auroc == pytest.approx(roc_auc_score(y, a)) and found.auroc_within == pytest.approx(within(sex))
    assert found.kept == pytest.approx((within(sex) - 0.5) / (found.auroc - 0.5))
    assert found.kept_low < found.kept < found.kept_high and found.kept < 1
    fold = np.arange(N) // 2 % 2
    (folded,) = leanings(np.where(fold == 1, 10 + 5 * a, a), y, of_sex(sex), fold=fold)
    assert folded.auroc == pytest.approx(within(fold)) and folded.auroc_within == pytest.approx(within(2 * fold + sex))
    standard = np.where(fold == 1, *((a - a[fold == k].mean()) / a[fold == k].std() for k in (1, 0)))
    assert folded.r == pytest.approx(pearsonr(standard, y).statistic)


def test_all_covariates_at_once_stand_beside_each_alone():
    a, y, sex, age = made(by_sex=1.0)
    age[:30] = np.nan
    of_age = Covariate.of(pd.Series(age, name="age"))
    alone, by_age, both = leanings(a, y, of_sex(sex), of_age)
    assert [one.covariate for one in (alone, by_age, both)] == ["sex", "age", "all"]
    assert (alone.images, by_age.images, both.images) == (N, N - 30, N - 30) and both.strata == []
    x = sm.add_constant(np.stack([sex, age], 1)[30:])
    fit, of_label = sm.OLS(a[30:], x).fit(), sm.OLS(y[30:], x).fit()
    assert both.partial == pytest.approx(pearsonr(fit.resid, of_label.resid).statistic)
    assert both.with_covariate == pytest.approx(np.sqrt(fit.rsquared))
    assert len(leanings(a, y, of_sex(sex))) == 1, "one alone is all"


def test_a_category_has_eta_and_strata_are_pooled_by_fishers_z():
    a, y, _, _ = made()
    site = pd.Series(np.random.default_rng(1).choice(["A", "B", "C"], N), name="site")
    own = Covariate.of(site)
    groups = [a[site == s] for s in "ABC"]
    between = sum(len(g) * (g.mean() - a.mean()) ** 2 for g in groups)
    eta = Regressions(y, own.design, PatientJackknife(PATIENTS)).of(a).multiple
    assert eta.value == pytest.approx(np.sqrt(between / ((a - a.mean()) ** 2).sum()))
    (found,) = leanings(a, y, own)
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
    (found,) = leanings(a, y, Covariate.of(pd.Series(age, name="age")))
    assert found.images == N - 30 == sum(s.images for s in found.strata)
    assert found.with_covariate == pytest.approx(pearsonr(a[30:], age[30:]).statistic)


@pytest.mark.parametrize(
    "weights,words",
    [
        ((1.5, 0.0), "holds in every stratum"),
        ((0.3, 4.0), "follows sex more than Effusion"),
        ((0.0, 0.0), "not shown to follow Effusion"),
    ],
)
def test_the_verdict_names_what_was_planted(weights, words):
    a, y, sex, _ = made(3, *weights)
    (found,) = leanings(a, y, of_sex(sex))
    assert found.verdict == words
    if weights == (1.5, 0.0):
        assert found.explained == pytest.approx(1 - found.partial / found.r)


def test_what_goes_with_a_finding_through_sex_alone_is_explained_by_it_and_a_finding_of_one_sex_is_not_shown():
    _, y, sex, _ = made(3)
    y = np.where(np.random.default_rng(0).random(N) < 0.1, 1 - sex, sex).astype(float)
    rng = np.random.default_rng(5)
    (through,) = leanings(sex + 0.9 * rng.normal(size=N), y, of_sex(sex))
    assert through.verdict == "mostly explained by sex" and through.explained_low > 0.5
    _, y, sex, _ = made(3)
    (one,) = leanings(3 * y * (sex == 0) + rng.normal(size=N), y, of_sex(sex))
    assert one.verdict == "not shown in M" and one.worst == "M"


def test_p_of_verdicts_is_corrected_over_the_covariates_of_a_unit():
    a, y, sex, age = made(3, 0.5, 1.0)
    (alone,) = leanings(a, y, of_sex(sex))
    rest = [Covariate.of(pd.Series(age + k, name=f"age{k}")) for k in range(3)]
    among = leanings(a, y, of_sex(sex), *rest)
    found = Regressions(y, design_of([of_sex(sex), *rest]), PatientJackknife(PATIENTS)).of(a)
    gap = found.strength.value - found.r.value, found.strength.left_out - found.r.left_out
    patients = min(len(set(PATIENTS[y == k])) for k in (0, 1))
    raw = [leanings(a, y, one)[0].gap_p for one in (of_sex(sex), *rest)] + [p_above_zero(*gap, patients - 1.0)]
    assert raw[0] == alone.gap_p < 0.025
    assert [one.gap_p for one in among] == pytest.approx(multipletests(raw, method="holm")[1])


def test_too_few_are_refused_with_a_reason():
    a, y, sex, _ = made()
    few = np.where(np.arange(N) < 12, y, 0)
    (found,) = leanings(a, few, of_sex(sex))
    assert found.verdict == "too few to say: fewer than 10 patients with the finding" and found.r_low is None
    assert all(s.auroc is None and s.no_interval for s in found.strata) and found.worst is None
    (same,) = leanings(a, y, of_sex(sex * 0))
    assert same.verdict == "too few to say: sex does not vary"
    (none,) = leanings(a, np.full(N, np.nan), of_sex(sex))
    assert none.images == 0 and none.verdict.startswith("too few")
    age = np.repeat(np.random.default_rng(1).integers(20, 80, N // 2), 2)
    old = (age >= 40).astype(float)  # each band of age has one label alone
    (apart,) = leanings(a + 3 * old, old, Covariate.of(pd.Series(age, name="age")))
    assert (
        apart.r_low is not None
        and apart.kept is None
        and apart.no_share["kept"].startswith("no stratum has images with the label and without")
    )
    (itself,) = leanings(a, sex.astype(float), of_sex(sex))
    assert itself.verdict == "too few to say: nothing of it or of Effusion is left beside sex"


def partial_of(by_finding, noise, shares):
    """The partial r of by_finding * y + anything of sex + noise with y given sex, where these shares of each have y."""
    within = np.mean([p * (1 - p) for p in shares])
    return by_finding * np.sqrt(within) / np.sqrt(by_finding**2 * within + noise**2)


def test_a_planted_partial_r_and_the_share_that_sex_explains_are_within_their_intervals():
    """Of 60 intervals of 95 % more than 8 miss in 3 of 1,000 draws. Two images a patient."""
    shares, missed = (0.25, 0.6), {"partial": 0, "explained": 0}
    truth = partial_of(0.8, 1.0, shares)
    mean = np.mean(shares)
    variance = 0.64 * mean * (1 - mean) + 0.25 * 0.25 + 0.8 * (0.6 - 0.25) * 0.25 + 1
    r = (0.8 * mean * (1 - mean) + 0.5 * (0.6 - 0.25) * 0.25) / np.sqrt(variance * mean * (1 - mean))
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sex = np.repeat(rng.integers(0, 2, N // 2), 2)
        y = (rng.random(N) < np.where(sex == 1, 0.6, 0.25)).astype(float)
        (found,) = leanings(5 + 0.8 * y + 0.5 * sex + rng.normal(size=N), y, of_sex(sex))
        missed["partial"] += not found.partial_low < truth < found.partial_high
        missed["explained"] += not found.explained_low < 1 - truth / r < found.explained_high
    assert max(missed.values()) <= 8


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Latent 0 follows Effusion alone, latent 1, the best of Mass, which is commoner in men, mostly sex: hospital A; at
    B, of a test split alone, ages are not known."""
    folder = tmp_path_factory.mktemp("planted")
    made = []
    for name, n, seed in (("a", 600, 0), ("b", 300, 1)):
        rng = np.random.default_rng(seed)
        sex = np.repeat(rng.integers(0, 2, n // 3), 3)
        effusion = rng.random(n) < 0.3
        mass = rng.random(n) < np.where(sex == 1, 0.5, 0.15)
        codes = 3 + np.stack([effusion, 0.4 * mass + sex], 1) + 0.5 * rng.normal(size=(n, 2))
        weights = reading_weights(6, 2)
        rows = codes @ weights["decoder"].numpy() + 3 + 0.01 * rng.normal(size=(n, 6))
        images = made_up_images(n, seed)
        images = images if name == "a" else images.assign(split="test", patient="b" + images["patient"])
        made.append(write_store(folder / name, {"h": rows.astype(np.float32)}, images=images))
        frame = pd.DataFrame({"Path": images["path"], "Sex": np.where(sex == 1, "Male", "Female"),
                              "Age": rng.integers(20, 90, n), "Effusion": effusion * 1, "Mass": mass * 1})  # fmt: skip
        frame = frame if name == "a" else frame.drop(columns="Age")
        frame.to_csv(folder / f"{name}.csv", index=False)
    sae = save_sae(folder / "sae", relu_sae("h", **weights, encoder_sha256="0" * 64))
    return folder, made, sae


def run(planted, out, *words):
    folder, _, sae = planted
    labels = ["--labels", "Effusion,Mass", "--table", folder / f"{words[0]}.csv"]
    more = ["--out", out, "--quiet", "--permutations", "50", *words[1:]]
    return main(["confounders", *map(str, [folder / words[0], sae, *labels, *more])])


def tops(found, kind="sae"):
    (units,) = (u for u in found.units if u.kind == kind)
    return {(one.label, one.covariate): one for one in units.leanings if one.top}


def test_a_planted_shortcut_is_named_and_a_finding_holds(planted, tmp_path, capsys):
    assert run(planted, tmp_path, "a", "--covariates", "sex") == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    found = Confounders.open(tmp_path)
    assert str(found) in said and [u.kind for u in found.units] == ["sae", "neurons", "probe"]
    top = tops(found)
    effusion, mass = top["Effusion", "sex"], top["Mass", "sex"]
    assert (effusion.latent, effusion.verdict) == (0, "holds in every stratum")
    assert (mass.latent, mass.verdict) == (1, "follows sex more than Mass")
    frame = pd.read_parquet(tmp_path / "confounders.parquet")
    assert len(frame) == sum(len(u.leanings) for u in found.units)
    assert "NaN" not in (tmp_path / "confounders.json").read_text()


def test_by_folds_each_patient_is_scored_once_and_known_strengths_are_found(planted, tmp_path, capsys):
    assert run(planted, tmp_path, "a", "--folds", "4", "--folds-of", "all") == 0, capsys.readouterr().err
    found = Confounders.open(tmp_path)
    assert "Cross-fitted over 4 folds of the patients of all (600 images, 200 patients)" in str(found)
    top = tops(found)
    assert {one.chosen_in for one in top.values()} == {4} and "#0 (4/4)" in str(found)
    of_mass = (0.4, (0.15, 0.5))
    for (label, covariate), (strength, shares) in {
        ("Effusion", "sex"): (1.0, (0.3, 0.3)), ("Mass", "sex"): of_mass, ("Mass", "all"): of_mass,
    }.items():  # fmt: skip
        one = top[label, covariate]
        assert one.images == 600 and one.partial_low < partial_of(strength, 0.5, shares) < one.partial_high
    assert top["Mass", "sex"].verdict == top["Mass", "all"].verdict.replace("the covariates", "sex")
    probe = tops(found, "probe")["Effusion", "sex"]
    assert 0.9 < probe.kept < 1.1 and probe.verdict == "holds in every stratum"


def test_chosen_at_one_hospital_and_what_the_other_does_not_know_is_said(planted, tmp_path, capsys):
    folder, _, _ = planted
    at_a = ["--select-from", folder / "a", "--select-table", folder / "a.csv"]
    assert run(planted, tmp_path, "b", *at_a) == 0, capsys.readouterr().err
    found = Confounders.open(tmp_path)
    assert found.covariates == ["sex"] and found.lacking == {"age": "left out, since no image of test of b has it"}
    assert "age: left out, since no image of test of b has it." in capsys.readouterr().out
    assert found.report.images == 300 and tops(found)["Mass", "sex"].verdict == "follows sex more than Mass"
    assert run(planted, tmp_path, "b", *at_a, "--covariates", "age") == 1
    assert "no image of test of b has age; there are: sex, age" in capsys.readouterr().err


def test_a_covariate_that_the_table_lacks_is_refused(planted):
    folder, (store, _), sae = planted
    table = read_table(folder / "a.csv", label_columns=["Effusion", "Mass"])
    with pytest.raises(MedSAEError, match="no covariate 'device'; it has: sex, age"):
        score_confounders(store, sae, table, ["device"], progress=False)
