"""An evaluation as text: the top latent of every observation, with what chance and the baselines give."""

from __future__ import annotations

from collections.abc import Sequence

from medsae_plugin.scores.models import Observation, Split, UnitScores
from medsae_plugin.scores.registry import METRICS, Metric, shown
from medsae_plugin.text import aligned

SHOWN_FIDELITY = (
    ("explained_variance", "explained variance", "{:.3f}"),
    ("l0", "L0", "{:.1f}"),
    ("dead", "dead", "{:.1%}"),
)
_RESAMPLED = """\
r: Pearson's r, with its 95% interval over patients. null: what the largest r of all latents stays under in 95% of
shuffles of the patients' labels; p: how often a shuffle reaches r. H: entropy over observations, nats. AUROC, F1:
detection by the latent. Beside it r (H) of the hook's raw neurons and of an untrained SAE, chosen likewise."""
_CROSS_FITTED = """\
r: Pearson's r, pooled over folds, with its 95% interval over patients where p < 0.05. null: what it stays under in
95% of shuffles of the patients' labels, choosing included; p: how often a shuffle reaches r. H: entropy over
observations, nats. AUROC, F1: detection by the latent. Beside it r (H) of the hook's raw neurons and of an untrained
SAE, likewise."""
_SUMMED = """\
r: Pearson's r; p: two-sided, n the patients; fdr: Benjamini and Hochberg's, over all latents. H: entropy over
observations, nats. F1: detection by firing. Beside it r (H) of the raw neurons and of an untrained SAE."""


def format_table(
    saes: Sequence[UnitScores], select: Split, report: Split, aggregate: str, resampled: bool = True
) -> str:
    """One table an SAE: of every observation the top latent's figures, beside the raw neurons and an untrained SAE.

    Args:
        resampled: whether the images were at hand; of sums alone there are p and fdr instead of intervals and a null.
    """
    head = "\n".join(
        [
            _roles(select, report, aggregate),
            *without_rows(*(select, report)[bool(select.folds) :]),
            _CROSS_FITTED if report.folds else _RESAMPLED if resampled else _SUMMED,
        ]
    )
    return "\n\n".join([head, *(_sae_table(sae, _columns(resampled), report.folds) for sae in saes)])


def _columns(resampled: bool) -> list[Metric]:
    of_label = [m for m in shown("table") if m.per != "sae"]
    if resampled:
        return of_label
    kept = [m for m in of_label if m.needs == "sums"]
    at = next((k for k, m in enumerate(kept, 1) if m.name == "r"), 0)
    return [*kept[:at], METRICS["p"], METRICS["fdr"], *kept[at:]]


def _sae_table(sae: UnitScores, columns: Sequence[Metric], folds: int | None = None) -> str:
    beside = sae.beside
    resampled = any(m.needs == "images" for m in columns)
    heads = [head for m in columns for head in ([m.title, "[95%]"] if resampled and m.name == "r" else [m.title])]
    rows = [["observation", "+", "latent", *heads, *(c.kind for c in beside)]]
    for o in sae.observations:
        others = [_r_and_h(c.of_label(o.label)) for c in beside]
        latent = "-" if o.latent is None else str(o.latent)
        latent += "" if o.chosen_in is None or o.latent is None else f" ({o.chosen_in}/{folds})"
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
    return "\n".join([title, *aligned(rows, rule_after=(1, len(rows) - 1)), *_below(sae)])


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
    chance = "p_null" if sae.observations[0].value("p_null") is not None else "fdr"
    sure = [o for o in sae.observations if (o.value(chance) or 1) < 0.05 and (o.value("r") or 0) > 0]
    right = sum(o.follows == o.label for o in sure)
    lines = [
        "  ".join(parts),
        f"top latents above chance ({chance.removesuffix('_null')} < 0.05): {len(sure)} of {len(sae.observations)}; "
        f"that follow their own observation most: {right}",
    ]
    gain = sae.gain_over_neurons
    if gain is not None and gain.mean_top_r is not None:
        bounds = "" if gain.low is None else f" {_between(gain.low, gain.high)}"
        rank = f"  mean rank {sae.mean_rank:.2f}" if sae.mean_rank is not None else ""
        lines.append(f"mean r over the raw neurons' {gain.mean_top_r:+.3f}{bounds}{rank}")
    return lines + ([sae.held_out_from] if sae.held_out_from else [])


def _roles(select: Split, report: Split, aggregate: str) -> str:
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
