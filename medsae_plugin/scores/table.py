"""An evaluation as text: the top latent of every observation, with what chance and the baselines give."""

from __future__ import annotations

from collections.abc import Sequence

from medsae_plugin.scores.models import Observation, Split, UnitScores
from medsae_plugin.scores.registry import METRICS, Metric, shown
from medsae_plugin.text import aligned

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
r: Pearson's r, with its 95% interval over patients. null: what the largest r of all latents stays under in 95% of
shuffles of the patients' labels; p: how often a shuffle reaches r. partial: r given all the other observations, "-"
where those determine it. H: entropy over observations, nats; floor: what H would be, by shuffles, if the latent
followed its strongest observation alone. AUROC, F1: detection by the latent. Beside it r (H) of the hook's raw neurons
and of an untrained SAE, chosen likewise."""
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
            f"Top latents chosen on {_counts(select)}, every figure on {_counts(report)}; {aggregate} over positions.",
            *without_rows(select, report),
            _RESAMPLED if resampled else _SUMMED,
        ]
    )
    return "\n\n".join([head, *(_sae_table(sae, _columns(resampled)) for sae in saes)])


def _columns(resampled: bool) -> list[Metric]:
    of_label = [m for m in shown("table") if m.per != "sae"]
    if resampled:
        return of_label
    kept = [m for m in of_label if m.needs == "sums"]
    at = next((k for k, m in enumerate(kept, 1) if m.name == "r"), 0)
    return [*kept[:at], METRICS["p"], METRICS["fdr"], *kept[at:]]


def _sae_table(sae: UnitScores, columns: Sequence[Metric]) -> str:
    beside = sae.beside
    resampled = any(m.needs == "images" for m in columns)
    heads = [head for m in columns for head in ([m.title, "[95%]"] if resampled and m.name == "r" else [m.title])]
    rows = [["observation", "+", "latent", *heads, *(c.kind for c in beside)]]
    for o in sae.observations:
        others = [_r_and_h(c.of_label(o.label)) for c in beside]
        latent = "-" if o.latent is None else str(o.latent)
        rows.append([o.label, str(o.positives), latent, *_cells(o, columns, resampled), *others])
    cells = []
    for m in columns:
        cells.append(m.form(sae.value(MEANS[m.name])) if m.name in MEANS else "")
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
    """The lines under a table: fidelity, what is above chance, gain, rank; then the figures of all that is beside."""
    parts = [
        f"{title} {form.format(value)}" for key, title, form in SHOWN_FIDELITY if (value := sae.value(key)) is not None
    ]
    parts += [f"NOT SPARSE: L0 is {sae.value('l0') or 0:.0f} of {sae.d_sae} latents"] if sae.not_sparse else []
    lines = ["  ".join(parts), *_above_chance(sae)]
    gain = sae.gain_over_neurons
    if gain is not None and gain.mean_top_r is not None:
        bounds = "" if gain.low is None else f" {_between(gain.low, gain.high)}"
        rank = f"  mean rank {sae.mean_rank:.2f}" if sae.mean_rank is not None else ""
        lines.append(f"mean r over the raw neurons' {gain.mean_top_r:+.3f}{bounds}{rank}")
    return [*lines, *_figures_beside(sae)]


def _above_chance(sae: UnitScores) -> list[str]:
    """Of the observations that can be scored, how many have a top latent that is no accident, and follows it most."""
    scorable = [o for o in sae.observations if o.scorable]
    if not scorable:
        return ["no observation can be scored: none is there on some of these images and absent on others"]
    chance = "p_null" if any(o.value("p_null") is not None for o in scorable) else "fdr"
    sure = [o for o in scorable if (p := o.value(chance)) is not None and p < 0.05 and (o.value("r") or 0) > 0]
    of = f"{len(scorable)}" + ("" if len(scorable) == len(sae.observations) else " that can be scored")
    line = f"top latents above chance ({chance.removesuffix('_null')} < 0.05): {len(sure)} of {of}"
    if sure and len(scorable) > 1:
        line += f"; that follow their own observation most: {sum(o.follows == o.label for o in sure)} of {len(sure)}"
    return [line]


def _figures_beside(sae: UnitScores) -> list[str]:
    """The figures of an SAE as a whole, beside those of the neurons and of each baseline."""
    units = [sae, *sae.beside]
    rows = [["", *(one.kind for one in units)]]
    for m in shown("table", "sae"):
        values = [one.value(m.name) for one in units]
        if m.name not in MEANS.values() and any(value is not None for value in values):
            rows.append([m.title, *map(m.form, values)])
    matched = [None if one is sae else sae.monosemanticity_beside(one) for one in units]
    if any(matched):
        cells = ["-" if pair is None else f"{pair[1]:.3f} ({pair[0]:.3f})" for pair in matched]
        rows.append(["monosemanticity at this SAE's densities (its own there)", "", *cells[1:]])
    return aligned(rows, rule_after=(1,)) if len(rows) > 1 else []


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
