"""The figures that the package declares, in the order in which tables show them; `metrics` has the formulas.

All are of `report` unless they say `select`.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from medsae_plugin.scores import metrics, sketch
from medsae_plugin.scores.registry import Show, mean_known, metric
from medsae_plugin.scores.scoring import Scored
from medsae_plugin.scores.specificity import partial_r
from medsae_plugin.statistics.intervals import auroc_interval, correlation_interval, t_interval
from medsae_plugin.statistics.multiple import benjamini_hochberg, holm
from medsae_plugin.statistics.tails import permutation_p

PerLatent = Float[np.ndarray, " latents"]
PerLabel = Float[np.ndarray, " labels"]
Both = Float[np.ndarray, "latents labels"]
EVERYWHERE: tuple[Show, ...] = ("table", "report", "comparison", "card")


@metric("r", title="r", per="label", better="higher", low="r_low", high="r_high", show=EVERYWHERE)
def r(s: Scored) -> Both:
    """See `metrics.pearson`."""
    return metrics.pearson(s.report)


@metric("r_select", title="r on select", per="label", better="higher")
def r_select(s: Scored) -> Both:
    """r where top latents are chosen."""
    return metrics.pearson(s.select)


@metric("r_low", title="95% from", per="top", needs="images")
def r_low(s: Scored) -> PerLabel:
    """The lower end of r's 95% interval over patients (`correlation_interval`); nan where `no_interval` says why."""
    return _r_interval(s)[0]


@metric("r_high", title="95% to", per="top", needs="images")
def r_high(s: Scored) -> PerLabel:
    """The upper end."""
    return _r_interval(s)[1]


@metric(
    "r_chance", title="null", words="chance stays under", per="top", needs="images", show=["table", "report", "card"]
)
def r_chance(s: Scored) -> PerLabel:
    """What the top latent's own r stays under in 95% of shuffles of the patients' labels."""
    return np.quantile(s.own_null, 0.95, axis=0)


@metric("p_top", title="p, one label", per="top", better="lower", digits="p", needs="images")
def p_top(s: Scored) -> PerLabel:
    """How often a shuffle of the patients' labels gives the top latent, chosen on other patients, as large an r."""
    return permutation_p(s.of_top("r"), s.own_null)


@metric("p_holm", title="p", words="p (Holm)", per="top", better="lower", digits="p", needs="images",
        show=["table", "report"])  # fmt: skip
def p_holm(s: Scored) -> PerLabel:
    """`p_top`, adjusted for the number of labels."""
    return holm(s["p_top"])


@metric("r_partial", title="partial", words="r given the other labels", per="top", better="higher", needs="images",
        show=["table", "report", "card"])  # fmt: skip
def r_partial(s: Scored) -> PerLabel:
    """See `specificity.partial_r`."""
    return np.where(s.top < 0, np.nan, partial_r(s.top_activations, s.labels))


@metric("p", title="p of r", per="label", better="lower", digits="p", needs="images")
def p(s: Scored) -> Both:
    """Two-sided, of the score test between patients (`statistics.score_test`); nan where a pair does not count."""
    return s.score_test


@metric("fdr", title="fdr", per="label", better="lower", digits="p", needs="images", show=["report"])
def fdr(s: Scored) -> Both:
    """Benjamini and Hochberg's, over all latents and labels that count."""
    return benjamini_hochberg(s["p"])


@metric("r_same_split", title="r, same split", per="top", better="higher")
def r_same_split(s: Scored) -> PerLabel:
    """The largest r of any latent on `report` itself: optimistic, since it is chosen where it is reported."""
    largest = np.where(np.isnan(s["r"]), -np.inf, s["r"]).max(0)
    return np.where(np.isfinite(largest), largest, np.nan)


@metric("r_same_split_chance", title="null, same split", per="top", needs="images")
def r_same_split_chance(s: Scored) -> PerLabel:
    """What the largest r of all latents stays under in 95% of shuffles of the patients' labels."""
    return np.quantile(s.largest_null, 0.95, axis=0)


@metric("p_same_split", title="p, same split", per="top", better="lower", digits="p", needs="images")
def p_same_split(s: Scored) -> PerLabel:
    """How often the largest r of all latents in a shuffle reaches `r_same_split`."""
    return permutation_p(s["r_same_split"], s.largest_null)


@metric("entropy", title="H", words="entropy", per="latent", unit="nats", better="lower", show=EVERYWHERE)
def entropy(s: Scored) -> PerLatent:
    """See `metrics.entropy`."""
    return metrics.entropy(s["r"])


@metric("entropy_floor", title="floor", words="floor of the entropy", per="top", unit="nats", needs="images",
        show=["table", "report", "card"])  # fmt: skip
def entropy_floor(s: Scored) -> PerLabel:
    """See `specificity.entropy_floor`."""
    return s.entropy_floor


@metric("entropy_normalised", title="H / ln C", per="top", better="lower")
def entropy_normalised(s: Scored) -> PerLabel:
    """Entropy as a share of its largest, ln C of the C labels that vary; undefined where that is one."""
    n = int(s.varying.sum())
    return s.of_top("entropy") / math.log(n) if n > 1 else np.full(len(s.label_names), np.nan)


@metric("auroc", title="AUROC", per="label", better="higher", low="auroc_low", high="auroc_high", needs="images",
        show=EVERYWHERE)  # fmt: skip
def auroc(s: Scored) -> Both:
    """See `ranking.auroc_and_average_precision`."""
    return s.rankings["auroc"]


@metric("auroc_low", title="AUROC 95% from", per="top", needs="images")
def auroc_low(s: Scored) -> PerLabel:
    """The lower end of AUROC's 95% interval over patients (`auroc_interval`); nan where r has none."""
    return _auroc_interval(s)[0]


@metric("auroc_high", title="AUROC 95% to", per="top", needs="images")
def auroc_high(s: Scored) -> PerLabel:
    """The upper end."""
    return _auroc_interval(s)[1]


@metric("average_precision", title="average precision", per="label", better="higher", needs="images")
def average_precision(s: Scored) -> Both:
    """See `ranking.auroc_and_average_precision`."""
    return s.rankings["average_precision"]


@metric("threshold", title="threshold", per="latent", needs="images")
def threshold(s: Scored) -> PerLatent:
    """Above which a latent detects: a quantile of its positive activations on `select`."""
    return s.rankings["threshold"]


@metric("precision", title="precision", per="label", better="higher")
def precision(s: Scored) -> Both:
    """Of detection above the threshold; of firing where only sums are known."""
    return _detection(s)["precision"]


@metric("recall", title="recall", per="label", better="higher")
def recall(s: Scored) -> Both:
    """As precision."""
    return _detection(s)["recall"]


@metric("f1", title="F1", per="label", better="higher", show=["table", "report", "comparison"])
def f1(s: Scored) -> Both:
    """As precision."""
    return _detection(s)["f1"]


@metric("selectivity", title="selectivity", per="label", better="higher")
def selectivity(s: Scored) -> Both:
    """See `metrics.selectivity`."""
    return metrics.selectivity(s.report)


@metric("monosemanticity", title="monosem.", words="monosemanticity", per="latent", better="higher", digits=".3f",
        show=["report"])  # fmt: skip
def monosemanticity(s: Scored) -> PerLatent:
    """See `metrics.monosemanticity`."""
    return metrics.monosemanticity(s.report)


@metric("monosemanticity_judge", title="monosem. (judge)", words="monosemanticity by the judge's embeddings",
        per="latent", better="higher", digits=".3f", needs="judge", show=["report"])  # fmt: skip
def monosemanticity_judge(s: Scored) -> PerLatent:
    """`metrics.monosemanticity`, by the embeddings of another encoder."""
    assert s.judged is not None
    return metrics.monosemanticity(s.judged)


@metric("density", title="fires on", per="latent", unit="of images", digits=".0%", show=["report"])
def density(s: Scored) -> PerLatent:
    """The share of images on which a latent fires."""
    return metrics.density(s.report)


@metric("row_density", title="fires on", unit="of rows", per="latent", digits=".2%", hide=["observations"])
def row_density(s: Scored) -> PerLatent:
    """The share of rows (of all positions) on which a latent is not 0; SAE-Lens's feature sparsity. nan for neurons."""
    return np.full(s.units.n, np.nan) if s.fidelity is None else s.fidelity.fired.numpy() / s.fidelity.n


@metric("maximum", title="maximum", words="largest activation", per="latent", show=["report"], hide=["observations"])
def maximum(s: Scored) -> PerLatent:
    """The largest activation."""
    return s.report.maximum


@metric("median_positive", title="median where it fires", per="latent", show=["report"], hide=["observations"])
def median_positive(s: Scored) -> PerLatent:
    """The median of the positive activations, to a bin of `sketch`."""
    return sketch.quantile(s.report.histogram, 0.5)


# --- of an SAE as a whole ---


@metric("live", title="live", words="units that could be chosen", per="sae", digits=".0f",
        show=["table", "report", "comparison", "card"])  # fmt: skip
def live(s: Scored) -> int:
    """How many units fire on enough images of `select` to be some label's top unit: what is chosen from."""
    return int(s.eligible.sum())


@metric("mean_top_r", title="mean r of top latents", words="mean top r", per="sae", better="higher",
        low="mean_top_r_low", high="mean_top_r_high",
        show=["table", "report", "comparison", "card", "rank"])  # fmt: skip
def mean_top_r(s: Scored) -> float:
    """Over the labels that vary on `report`.

    A top latent that is silent there, or a label that has none, counts as r = 0: it says nothing of the label.
    """
    found = s.of_top("r")[s.varying]
    return float(np.nan_to_num(found).mean()) if len(found) else math.nan


@metric("mean_top_r_low", title="95% from", per="sae", needs="images")
def mean_top_r_low(s: Scored) -> float:
    """The lower end of its 95% interval over patients; nan where fewer than half of the labels have one."""
    return _mean_interval(s)[0]


@metric("mean_top_r_high", title="95% to", per="sae", needs="images")
def mean_top_r_high(s: Scored) -> float:
    """The upper end."""
    return _mean_interval(s)[1]


@metric("mean_top_r_same_split", title="mean r, same split", words="mean r, same split (optimistic)", per="sae",
        better="higher", show=["report"])  # fmt: skip
def mean_top_r_same_split(s: Scored) -> float:
    """The mean of `r_same_split`: optimistic."""
    return mean_known(s["r_same_split"])


@metric("mean_top_entropy", title="mean H of top latents", words="entropy of top latents", per="sae", unit="nats",
        better="lower",
        show=["table", "report", "comparison", "card", "rank"])  # fmt: skip
def mean_top_entropy(s: Scored) -> float:
    """Over the labels that vary on `report` and have a top latent."""
    return mean_known(s.of_top("entropy")[s.varying])


@metric("mean_top_entropy_floor", title="mean floor of H", words="floor of that entropy", per="sae", unit="nats",
        needs="images", show=["report", "comparison", "card"])  # fmt: skip
def mean_top_entropy_floor(s: Scored) -> float:
    """The mean of `entropy_floor` over the same labels."""
    return mean_known(s["entropy_floor"][s.varying])


@metric("mean_top_r_partial", title="mean partial r", words="mean r given the other labels", per="sae", better="higher",
        needs="images", show=["report", "comparison", "card"])  # fmt: skip
def mean_top_r_partial(s: Scored) -> float:
    """The mean of `r_partial` over the labels that have one."""
    return mean_known(s["r_partial"])


@metric("mean_entropy", title="mean H of live latents", words="entropy of live latents", per="sae", unit="nats",
        better="lower", show=["report"])  # fmt: skip
def mean_entropy(s: Scored) -> float:
    """Over the latents that fire."""
    return mean_known(s["entropy"][s["density"] > 0])


@metric("mean_monosemanticity", title="monosemanticity", per="sae", better="higher", digits=".3f",
        show=["table", "report", "comparison", "card", "rank"])  # fmt: skip
def mean_monosemanticity(s: Scored) -> float:
    """Over the latents that fire."""
    return mean_known(s["monosemanticity"][s["density"] > 0])


@metric("mean_monosemanticity_judge", title="monosemanticity by the judge's embeddings", per="sae", better="higher",
        digits=".3f", needs="judge", show=["table", "report", "comparison", "card"])  # fmt: skip
def mean_monosemanticity_judge(s: Scored) -> float:
    """Over the latents that fire."""
    return mean_known(s["monosemanticity_judge"][s["density"] > 0])


@metric("significant", title="latents that correlate with an observation (fdr < 0.05)", per="sae", better="higher",
        words="latents that correlate (fdr < 0.05)", digits=".0f", needs="images",
        show=["table", "report"])  # fmt: skip
def significant(s: Scored) -> int:
    """How many latents have a false discovery rate below 0.05 with any label."""
    return int((s["fdr"] < 0.05).any(1).sum())


@metric("pairs_counted", title="pairs counted", words="pairs of latent and label tested", per="sae", digits=".0f",
        needs="images", show=["report"])  # fmt: skip
def pairs_counted(s: Scored) -> int:
    """How many pairs of a latent and a label were tested: see `Scored.counted`."""
    return int((~np.isnan(s["p"])).sum())


def _detection(s: Scored) -> dict[str, np.ndarray]:
    return metrics.firing_detection(s.report) if s.matrix is None else s.rankings


NONE = (math.nan, math.nan)


def _r_interval(s: Scored) -> Float[np.ndarray, "2 labels"]:
    r, left_out, df = s.of_top("r"), s.r_left_out, s.degrees
    found = [NONE if why else correlation_interval(r[c], left_out[:, c], df[c]) for c, why in enumerate(s.no_interval)]
    return np.array(found).T


def _auroc_interval(s: Scored) -> Float[np.ndarray, "2 labels"]:
    auroc, left_out, with_it, known = s.of_top("auroc"), s.auroc_left_out, s.report.positives, s.report.known
    images, patients = np.stack([with_it, known - with_it], axis=1), s.patients_showing[::-1].T
    found = [
        NONE if why else auroc_interval(auroc[c], left_out[:, c], tuple(images[c]), tuple(patients[c]))
        for c, why in enumerate(s.no_interval)
    ]
    return np.array(found).T


def gain_interval(s: Scored, other: Scored) -> tuple[float, float] | None:
    """Of how much larger `mean_top_r` is than another's, over the same patients; None where fewer than half of the
    labels have an interval on both sides, and so the gain has none."""
    df = s.mean_degrees(other)
    if df is None:
        return None
    return t_interval(mean_top_r(s) - mean_top_r(other), s.mean_r_left_out - other.mean_r_left_out, df)


def _mean_interval(s: Scored) -> tuple[float, float]:
    df = s.mean_degrees()
    return NONE if df is None else correlation_interval(s["mean_top_r"], s.mean_r_left_out, df)
