"""An evaluation as text: the top latent of every observation, with what chance and the baselines give."""

from __future__ import annotations

from collections.abc import Sequence

from medsae_plugin.scores.models import Gain, Observation, Split, UnitScores
from medsae_plugin.scores.registry import METRICS, Metric, shown
from medsae_plugin.text import aligned, fixed

MEANS = {
    "r": "mean_top_r",
    "r_partial": "mean_top_r_partial",
    "entropy": "mean_top_entropy",
    "entropy_floor": "mean_top_entropy_floor",
}
"""The mean that stands below each of these columns of top latents."""
SHOWN_FIDELITY = (
    ("explained_variance", "explained variance", "{:.3f}"),
    ("l0", "L0", "{:.1f}"),
    ("dead", "dead", "{:.1%}"),
)
_RESAMPLED = """\
r: Pearson's r, with its 95% interval over patients. null: what this latent's r stays under in 95% of shuffles of the
patients' labels; p: how often a shuffle reaches r, adjusted for the observations (Holm). partial: r given all the other
observations, "-" where those determine it. H: entropy over observations, nats; floor: what H would be, by shuffles, if
the latent followed its strongest observation alone. AUROC, F1: detection by the latent. Beside it r (H) of the hook's
raw neurons, of an untrained SAE (which its TopK holds down) and of baselines, chosen likewise: all, or the best of as
many candidates."""
_CROSS_FITTED = """\
r: Pearson's r, pooled over folds, with its 95% interval over patients where it is above chance. null: what it stays
under in 95% of shuffles of the patients' labels, choosing included; p: how often a shuffle reaches r, adjusted for the
observations (Holm). partial: r given all the other observations. H: entropy over observations, nats; floor: what H
would be if the latent followed its strongest observation alone. AUROC, F1: detection by the latent. Beside it r (H) of
the hook's raw neurons, of an untrained SAE and of baselines, likewise."""
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
            roles(select, report, aggregate),
            *without_rows(*(select, report)[bool(select.folds) :]),
            _CROSS_FITTED if report.folds else _RESAMPLED if resampled else _SUMMED,
            *(_thin_bands(report) if resampled else []),
        ]
    )
    return "\n\n".join([head, *(_sae_table(sae, _columns(resampled), report.folds) for sae in saes)])


def at_home(saes: Sequence[UnitScores], home: Split, report: Split) -> str:
    """What top latents lose from the hospital that they were chosen at to the one that is reported on."""
    if not home.images:
        return f"At home, on {home.split}, no patient is left that no SAE was trained on: what is lost is not known."
    lines = [
        f"At home, on {_counts(home)}, and here, on {_counts(report)}: the same latents.\n"
        "lost: r at home less r here, with its 95% interval over patients; both: r of the images of both, activations\n"
        "standardised within each, AUROC of pairs within one."
    ]
    lines += [f"Left out at home: {home.left_out} patients that an SAE was trained on."] if home.left_out else []
    columns = [METRICS[name] for name in ("r_home", "r", "r_drop", "r_pooled", "auroc_home", "auroc", "auroc_pooled")]
    heads = [head for m in columns for head in ([m.title, "[95%]"] if m.low == "r_drop_low" else [m.title])]
    for sae in saes:
        rows = [["observation", "latent", *heads]]
        for o in sae.observations:
            cells = [x for m in columns for x in _with_between(o, m, m.name == "r_drop")]
            rows.append([o.label, "-" if o.latent is None else str(o.latent), *cells])
        means = [["mean r over observations", "at home", "here", "lost", "[95%]"]]
        for one in [sae, *sae.beside]:
            there, lost = one.value("mean_top_r_home"), one.value("mean_top_r_drop")
            here = None if there is None or lost is None else there - lost
            bounds = _between(one.value("mean_top_r_drop_low"), one.value("mean_top_r_drop_high"))
            forms = [METRICS["mean_top_r"].form(x) for x in (there, here, lost)]
            means.append(["this SAE" if one is sae else one.kind, *forms, bounds])
        lines += ["", sae.name, *aligned(rows, rule_after=(1,)), "", *aligned(means, rule_after=(1,))]
    return "\n".join(lines)


def _with_between(o: Observation, m: Metric, interval: bool) -> list[str]:
    return [m.form(o.value(m.name)), *([_between(o.value(m.low), o.value(m.high))] if interval else [])]


def _columns(resampled: bool) -> list[Metric]:
    return [m for m in shown("table") if m.per != "sae" and (resampled or m.needs == "sums")]


def _sae_table(sae: UnitScores, columns: Sequence[Metric], folds: int | None = None) -> str:
    beside = _in_columns(sae)
    resampled = any(m.needs == "images" for m in columns)
    heads = [head for m in columns for head in ([m.title, "[95%]"] if resampled and m.name == "r" else [m.title])]
    rows = [["observation", "+", "latent", *heads, *(c.kind for c in beside)]]
    for o in sae.observations:
        others = [_r_and_h(c.of_label(o.label)) for c in beside]
        latent = "-" if o.latent is None else str(o.latent)
        latent += "" if o.chosen_in is None or o.latent is None else f" ({o.chosen_in}/{folds})"
        rows.append([o.label, str(o.positives), latent, *_cells(o, columns, resampled), *others])
    cells = []
    for m in columns:
        cells.append(m.form(sae.value(MEANS[m.name])) if m.name in MEANS else "")
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
    """The lines under a table: fidelity, what is above chance, gain, rank; then the figures of all that is beside."""
    parts = [
        f"{title} {form.format(value)}" for key, title, form in SHOWN_FIDELITY if (value := sae.value(key)) is not None
    ]
    parts += [f"NOT SPARSE: L0 is {sae.value('l0') or 0:.0f} of {sae.d_sae} latents"] if sae.not_sparse else []
    rank = f"  mean rank {sae.mean_rank:.2f}" if sae.mean_rank is not None else ""
    seen = [sae.held_out_from] if sae.held_out_from else []
    return ["  ".join(parts), *_above_chance(sae), headline_words(sae) + rank, *seen, *_beside_table(sae)]


def _above_chance(sae: UnitScores) -> list[str]:
    """Of the observations that can be scored, how many have a top latent that is no accident, and follows it most."""
    scorable = [o for o in sae.observations if o.scorable]
    if not scorable:
        return ["no observation can be scored: none is there on some of these images and absent on others"]
    tested = [o for o in scorable if o.value("p_holm") is not None]
    if not tested:
        return []
    sure = [o for o in tested if (o.value("p_holm") or 0) < 0.05 and (o.value("r") or 0) > 0]
    of = f"{len(scorable)}" + ("" if len(scorable) == len(sae.observations) else " that can be scored")
    line = f"top latents above chance (p < 0.05): {len(sure)} of {of}"
    if sure and len(scorable) > 1:
        line += f"; that follow their own observation most: {sum(o.follows == o.label for o in sure)} of {len(sure)}"
    return [line]


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
    bounds = "" if gain.low is None else f" {_between(gain.low, gain.high)}"
    return f"{gain.mean_top_r:+.3f}{' (no interval)' if gain.no_interval else bounds}"


def _in_columns(sae: UnitScores) -> list[UnitScores]:
    """What stands beside an SAE label by label: all, or of many the neurons, the untrained and the best."""
    if len(sae.beside) <= _MOST_COLUMNS:
        return sae.beside
    best = sae.headline.over if sae.headline else ""
    return [c for c in sae.beside if c.kind in ("neurons", "untrained") or c.name == best]


def _beside_table(sae: UnitScores) -> list[str]:
    """The SAE's own figures, and those of all that stands beside it, a row each."""
    units = [sae, *sae.beside]
    columns = [m for m in shown("table", "sae") if any(one.value(m.name) is not None for one in units)]
    long = [m.title for m in columns if len(m.title) > _LONGEST_HEAD]  # said below, or the table would be of heads
    heads = [f"({long.index(m.title) + 1})" if m.title in long else m.title for m in columns]
    rows = [["", "candidates", "L0 an image", *heads, "at its densities", "mean r of as many", "gain"]]
    gains = {gain.over: gain for gain in (sae.gain_over_neurons, *sae.gains) if gain is not None}
    for one in units:
        gain, l0 = gains.get(one.name), one.image_level.get("l0")
        as_many = one.value("mean_top_r") if one is sae else gain.at_live if gain else None
        matched = None if one is sae else sae.monosemanticity_beside(one)
        last = [
            "" if one is sae else "-" if matched is None else f"{matched[1]:.3f} ({matched[0]:.3f})",
            METRICS["mean_top_r"].form(as_many),
            _gained(gain) if gain else "",
        ]
        name = "this SAE" if one is sae else one.kind
        l0_words = fixed(l0, 1)
        rows.append([name, str(one.candidates), l0_words, *(_figure(m, one) for m in columns), *last])
    said = [f"({k}) {title}" for k, title in enumerate(long, 1)]
    return ["", "Beside it, over all observations", *aligned(rows, rule_after=(1,)), *said, *_beside_notes(sae)]


def _beside_notes(sae: UnitScores) -> list[str]:
    if not sae.beside:
        return []
    notes = [
        "at its densities: monosemanticity within the bands of density where the SAE has latents (the SAE's own there)."
    ]
    if (live := sae.value("live")) is not None:
        notes += [
            f"live: units that could be chosen. mean r of as many: with {live:.0f} units, as many as the SAE has live,",
            "drawn from the others' live ones at random (mean over all draws). gain: the SAE's mean r less theirs.",
        ]
    return notes


def _figure(m: Metric, one: UnitScores) -> str:
    said = m.form(one.value(m.name))
    pairs = one.value("pairs_counted") if m.name == "significant" else None
    return said if pairs is None else f"{said} ({pairs:,.0f} pairs)"


def _thin_bands(report: Split) -> list[str]:
    thin = report.in_thin_bands or 0
    if thin <= _MANY_THIN * report.patients:
        return []
    return [
        f"Thin bands, so p is less sure: {thin} of {report.patients} patients exchange labels with patients of unlike "
        "numbers of images, or with fewer than ten."
    ]


def roles(select: Split, report: Split, aggregate: str) -> str:
    """Where latents were chosen and scored."""
    if report.folds:
        words = (
            f"Cross-fitted over {report.folds} folds of the patients of {_counts(report)}: top latents chosen on all "
            f"folds but one,\nscored on that one, in turn, and pooled; {aggregate} over positions. latent (k/"
            f"{report.folds}): the one that most folds chose, and how many did."
        )
    else:
        words = (
            f"Top latents chosen on {_counts(select)}, every figure on {_counts(report)}; {aggregate} over positions."
        )
    if report.left_out:
        words += f"\nLeft out: {report.left_out} patients that an SAE was trained on."
    return words


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
