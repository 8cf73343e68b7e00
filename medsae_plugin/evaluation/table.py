"""An evaluation as text: the top latent of every observation, with what chance and the baselines give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medsae_plugin.evaluation.text_table import aligned

_FIDELITY = (("explained_variance", "explained variance", "{:.3f}"), ("l0", "L0", "{:.1f}"), ("dead", "dead", "{:.1%}"))


def format_table(metrics: Mapping[str, Any]) -> str:
    """One table an SAE: of every observation the top latent's figures, beside the raw neurons and an untrained SAE."""
    select, report = metrics["select"], metrics["report"]
    head = [
        f"Top latents chosen on {_counts(select)}, every figure on {_counts(report)}; "
        f"{metrics['aggregate']} over positions.",
        "r: Pearson's r, with its 95% interval over patients. null: what the largest r of all latents stays under in "
        "95% of",
        "shuffles of the patients' labels; p: how often a shuffle reaches r. H: entropy over observations, nats. "
        "AUROC, F1:",
        "detection by the latent. Beside it r (H) of the hook's raw neurons and of an untrained SAE, chosen likewise.",
    ]
    if "resampling" not in metrics:
        head[1:] = [
            "r: Pearson's r; p: two-sided, n the patients; fdr: Benjamini and Hochberg's, over all latents. H: entropy "
            "over",
            "observations, nats. F1: detection by firing. Beside it r (H) of the raw neurons and of an untrained SAE.",
        ]
    head[1:1] = without_rows(select, report)
    candidates = metrics["candidates"]
    tables = []
    for k, candidate in enumerate(candidates):
        if candidate["kind"] == "sae":
            neurons = next(c for c in candidates if c["kind"] == "neurons" and c["hook"] == candidate["hook"])
            tables.append(_sae_table(candidate, neurons, candidates[k + 1]))
    return "\n".join(head) + "\n\n" + "\n\n".join(tables)


def _sae_table(sae: Mapping[str, Any], neurons: Mapping[str, Any], untrained: Mapping[str, Any]) -> str:
    resampled = "r_null" in sae["observations"][0]
    chance = ["[95%]", "null", "p"] if resampled else ["p", "fdr"]
    detection = ["AUROC", "F1"] if resampled else ["F1"]
    rows = [["observation", "+", "latent", "r", *chance, "H", *detection, "neurons", "untrained"]]
    for o, n, u in zip(sae["observations"], neurons["observations"], untrained["observations"], strict=True):
        beside = [_r_and_h(n["r"], n["entropy"]), _r_and_h(u["r"], u["entropy"])]
        between = (
            [_between(o["r_low"], o["r_high"]), _form(o["r_null"]), _p(o["p_null"])]
            if resampled
            else [
                _p(o["p"]),
                _p(o["fdr"]),
            ]
        )
        figures = [_form(o[key]) for key in (["auroc", "f1"] if resampled else ["f1"])]
        latent = "-" if o["latent"] is None else str(o["latent"])
        rows.append(
            [o["label"], str(o["positives"]), latent, _form(o["r"]), *between, _form(o["entropy"]), *figures, *beside]
        )
    means = [_r_and_h(c["mean_top_r"], c["mean_top_entropy"]) for c in (neurons, untrained)]
    between = [_between(*(sae["mean_top_r_interval"] or (None, None)))] if resampled else [""]
    blank = [""] * (len(chance) - 1)
    rows.append(
        ["mean", "", "", _form(sae["mean_top_r"]), *between, *blank, _form(sae["mean_top_entropy"])]
        + ["" for _ in detection]
        + means
    )
    title = f"{sae['name']} at {sae['hook']}: {sae['architecture']}, {sae['d_sae']} latents of {sae['d_in']} dimensions"
    return "\n".join([title, *aligned(rows, rule_after=(1, len(rows) - 1)), *_below(sae)])


def _below(sae: Mapping[str, Any]) -> list[str]:
    """The lines under a table: fidelity, gain, rank."""
    fidelity = sae["fidelity"] or {}
    parts = [f"{title} {form.format(fidelity[key])}" for key, title, form in _FIDELITY if fidelity.get(key) is not None]
    if sae["mean_monosemanticity"] is not None:
        parts.append(f"monosemanticity {sae['mean_monosemanticity']:.3f}")
    parts.append(f"latents that correlate with an observation (fdr < 0.05) {sae['significant']}")
    chance = "p_null" if "p_null" in sae["observations"][0] else "fdr"
    sure = [o for o in sae["observations"] if o[chance] is not None and o[chance] < 0.05 and o["r"] > 0]
    right = sum(o["follows"] == o["label"] for o in sure)
    lines = [
        "  ".join(parts),
        f"top latents above chance ({chance.removesuffix('_null')} < 0.05): {len(sure)} of {len(sae['observations'])}; "
        f"that follow their own observation most: {right}",
    ]
    gain = sae.get("gain_over_neurons") or {}
    if gain.get("mean_top_r") is not None:
        bounds = f" {_between(gain['low'], gain['high'])}" if "low" in gain else ""
        rank = f"  mean rank {sae['mean_rank']:.2f}" if sae.get("mean_rank") is not None else ""
        lines.append(f"mean r over the raw neurons' {gain['mean_top_r']:+.3f}{bounds}{rank}")
    return lines


def without_rows(*splits: Mapping[str, Any]) -> list[str]:
    """A line on the images that the table has no row of, where there are some."""
    counts = [f"{split['without_row']} images of {split['split']}" for split in splits if split.get("without_row")]
    if not counts:
        return []
    return [
        f"Not scored, having no row in the table: {', '.join(counts)} (fidelity, L0 and dead are of all of the split)."
    ]


def _counts(split: Mapping[str, Any]) -> str:
    return f"{split['split']} ({split['images']} images, {split['patients']} patients)"


def _form(x: float | None) -> str:
    return "-" if x is None else f"{x:.2f}"


def _p(x: float | None) -> str:
    return "-" if x is None else f"{x:.3f}" if x >= 0.001 else "<.001"


def _between(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"


def _r_and_h(r: float | None, h: float | None) -> str:
    return "-" if r is None else f"{r:.2f} ({_form(h)})"
