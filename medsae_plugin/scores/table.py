"""An evaluation as text: the top latent of every observation, with what chance and the baselines give."""

from __future__ import annotations

from collections.abc import Sequence

from medsae_plugin.scores.models import Gain, Observation, Split, UnitScores
from medsae_plugin.scores.registry import METRICS, Metric, shown
from medsae_plugin.text import aligned

SHOWN_FIDELITY = (
    ("explained_variance", "explained variance", "{:.3f}"),
    ("l0", "L0", "{:.1f}"),
    ("dead", "dead", "{:.1%}"),
)
_RESAMPLED = """\
r: Pearson's r, with its 95% interval over patients. null: what this latent's r stays under in 95% of shuffles of the
patients' labels; p: how often a shuffle reaches r, adjusted for the observations (Holm). H: entropy over observations,
nats. AUROC, F1: detection by the latent. Beside it r (H) of the hook's raw neurons, of an untrained SAE (which its TopK
holds down) and of baselines, chosen likewise: all, or the best of as many candidates."""
_SUMMED = """\
r: Pearson's r. H: entropy over observations, nats. F1: detection by firing. Beside it r (H) of the raw neurons and of
an untrained SAE (which its TopK holds down). No p, interval or claim: they need to know which images are of one
patient, which sums do not tell."""
_MANY_THIN = 0.05  # of the patients: from here on it is said
_MOST_COLUMNS, _LONGEST_HEAD = 4, 24  # of what stands beside an SAE, label by label; in characters


def format_table(
    saes: Sequence[UnitScores], select: Split, report: Split, aggregate: str, resampled: bool = True
) -> str:
    """One table an SAE: of every observation the top latent's figures, beside the raw neurons and an untrained SAE.

    Args:
        resampled: whether the images were at hand; of sums alone there are no intervals, and nothing of chance.
    """
    head = "\n".join(
        [
            f"Top latents chosen on {_counts(select)}, every figure on {_counts(report)}; {aggregate} over positions.",
            *without_rows(select, report),
            _RESAMPLED if resampled else _SUMMED,
            *(_thin_bands(report) if resampled else []),
        ]
    )
    return "\n\n".join([head, *(_sae_table(sae, _columns(resampled)) for sae in saes)])


def _columns(resampled: bool) -> list[Metric]:
    return [m for m in shown("table") if m.per != "sae" and (resampled or m.needs == "sums")]


def _sae_table(sae: UnitScores, columns: Sequence[Metric]) -> str:
    beside = _in_columns(sae)
    resampled = any(m.needs == "images" for m in columns)
    heads = [head for m in columns for head in ([m.title, "[95%]"] if resampled and m.name == "r" else [m.title])]
    rows = [["observation", "+", "latent", *heads, *(c.kind for c in beside)]]
    for o in sae.observations:
        others = [_r_and_h(c.of_label(o.label)) for c in beside]
        latent = "-" if o.latent is None else str(o.latent)
        rows.append([o.label, str(o.positives), latent, *_cells(o, columns, resampled), *others])
    means = {"r": sae.value("mean_top_r"), "entropy": sae.value("mean_top_entropy")}
    cells = []
    for m in columns:
        cells.append(m.form(means[m.name]) if m.name in means else "")
        if resampled and m.name == "r":
            cells.append(_between(sae.value("mean_top_r_low"), sae.value("mean_top_r_high")))
    means_beside = [_pair(c.value("mean_top_r"), c.value("mean_top_entropy")) for c in beside]
    rows.append(["mean", "", "", *cells, *means_beside])
    title = f"{sae.name} at {sae.hook}: {sae.architecture}, {sae.d_sae} latents of {sae.d_in} dimensions"
    return "\n".join([title, *aligned(rows, rule_after=(1, len(rows) - 1)), *_without_interval(sae), *_below(sae)])


def _without_interval(sae: UnitScores) -> list[str]:
    """A line for each reason why figures have no interval."""
    reasons: dict[str, list[str]] = {}
    for what, why in [*((o.label, o.no_interval) for o in sae.observations), ("the mean", sae.no_interval)]:
        if why:
            reasons.setdefault(why, []).append(what)
    return [f"no interval: {', '.join(labels)} ({why})" for why, labels in reasons.items()]


def _cells(o: Observation, columns: Sequence[Metric], resampled: bool) -> list[str]:
    cells = []
    for m in columns:
        cells.append(m.form(o.value(m.name)))
        if resampled and m.name == "r":
            cells.append(_between(o.value(m.low), o.value(m.high)))
    return cells


def _below(sae: UnitScores) -> list[str]:
    """The lines under a table: fidelity, gain, rank."""
    parts = [
        f"{title} {form.format(value)}" for key, title, form in SHOWN_FIDELITY if (value := sae.value(key)) is not None
    ]
    in_columns = ("mean_top_r", "mean_top_entropy")
    parts += [
        f"{m.title} {m.form(value)}"
        for m in shown("table", "sae")
        if m.name not in in_columns and (value := sae.value(m.name)) is not None
    ]
    lines = ["  ".join(parts)]
    tested = [o for o in sae.observations if o.value("p_holm") is not None]
    if tested:
        sure = [o for o in tested if (o.value("p_holm") or 0) < 0.05 and (o.value("r") or 0) > 0]
        right = sum(o.follows == o.label for o in sure)
        lines.append(
            f"top latents above chance (p < 0.05): {len(sure)} of {len(sae.observations)}; that follow their own "
            f"observation most: {right}"
        )
    lines += _claims([sae, *_in_columns(sae)])
    rank = f"  mean rank {sae.mean_rank:.2f}" if sae.mean_rank is not None else ""
    lines.append(headline_words(sae) + rank)
    return [*lines, *_beside_table(sae)]


def headline_words(sae: UnitScores) -> str:
    """What an SAE gains over the best baseline of as many candidates; over the raw neurons it is said beside that."""
    neurons, best = sae.gain_over_neurons, sae.headline
    if best is None:
        said = f"no gain is claimed: no baseline chose from as many candidates ({sae.candidates}); medsae baselines "
        said += "makes some. "
    else:
        said = f"mean r over the best baseline of as many candidates ({best.kind}, {best.candidates}): "
        said += f"{_gained(best)}. "
    if neurons is None or neurons is best:
        return said.rstrip()
    few = f" ({neurons.candidates} candidates)" if neurons.candidates else ""
    return f"{said}mean r over the raw neurons'{few} {_gained(neurons)}"


def _gained(gain: Gain) -> str:
    if gain.mean_top_r is None:
        return "-"
    bounds = f" {_between(gain.low, gain.high)}" if gain.low is not None or gain.no_interval else ""
    return f"{gain.mean_top_r:+.3f}{bounds}"


def _in_columns(sae: UnitScores) -> list[UnitScores]:
    """What stands beside an SAE label by label: all, or of many the neurons, the untrained and the best."""
    if len(sae.beside) <= _MOST_COLUMNS:
        return sae.beside
    best = sae.headline.over if sae.headline else ""
    return [c for c in sae.beside if c.kind in ("neurons", "untrained") or c.name == best]


def _beside_table(sae: UnitScores) -> list[str]:
    """The SAE's own figures, and those of all that stands beside it, a row each."""
    live, columns = sae.value("live"), shown("table", "sae")
    if live is None or not sae.beside:
        return []
    long = [m.title for m in columns if len(m.title) > _LONGEST_HEAD]  # said below, or the table would be of heads
    heads = [f"({long.index(m.title) + 1})" if m.title in long else m.title for m in columns]
    rows = [["", "candidates", "L0", *heads, "mean r of as many", "gain"]]
    gains = {gain.over: gain for gain in (sae.gain_over_neurons, *sae.gains) if gain is not None}
    for c in (sae, *sae.beside):
        gain, l0 = gains.get(c.name), c.image_level.get("l0")
        figures = [m.form(c.value(m.name)) for m in columns]
        as_many = c.value("mean_top_r") if c is sae or gain is None else gain.at_live
        name = "this SAE" if c is sae else c.kind
        last = [METRICS["mean_top_r"].form(as_many), _gained(gain) if gain else ""]
        rows.append([name, str(c.candidates), "-" if l0 is None else f"{l0:.1f}", *figures, *last])
    note = (
        f"live: units that could be chosen. mean r of as many: with {live:.0f} units, as many as the SAE has live,\n"
        "drawn from the others' live ones at random (mean over all draws). gain: the SAE's mean r less theirs [95%]."
    )
    said = [f"({k}) {title}" for k, title in enumerate(long, 1)]
    return ["", "Beside it, over all observations", *aligned(rows, rule_after=(1,)), *said, note]


def _claims(of: Sequence[UnitScores]) -> list[str]:
    """How many latents correlate with an observation, of an SAE and of what stands beside it."""
    counts = [
        f"{'' if one.kind == 'sae' else f'{one.kind} '}{found:.0f} ({pairs:,.0f} pairs)"
        for one in of
        if (found := one.value("significant")) is not None and (pairs := one.value("pairs_counted")) is not None
    ]
    return [f"{METRICS['significant'].title}: {'; '.join(counts)}"] if counts else []


def _thin_bands(report: Split) -> list[str]:
    thin = report.in_thin_bands or 0
    if thin <= _MANY_THIN * report.patients:
        return []
    return [
        f"Thin bands, so p is less sure: {thin} of {report.patients} patients exchange labels with patients of unlike "
        "numbers of images, or with fewer than ten."
    ]


def without_rows(*splits: Split) -> list[str]:
    """A line on the images that the table has no row of, where there are some."""
    counts = [f"{split.without_row} images of {split.split}" for split in splits if split.without_row]
    if not counts:
        return []
    return [
        f"Not scored, having no row in the table: {', '.join(counts)} (fidelity, L0 and dead are of all of the split)."
    ]


def _counts(split: Split) -> str:
    return f"{split.split} ({split.images} images, {split.patients} patients)"


def _between(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"


def _r_and_h(o: Observation | None) -> str:
    return "-" if o is None else _pair(o.value("r"), o.value("entropy"))


def _pair(r: float | None, h: float | None) -> str:
    return "-" if r is None else f"{r:.2f} ({METRICS['entropy'].form(h)})"
