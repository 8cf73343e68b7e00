"""A comparison as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medsae_plugin.scores.images import ROLES
from medsae_plugin.scores.models import Split
from medsae_plugin.scores.registry import shown
from medsae_plugin.scores.table import without_rows
from medsae_plugin.text import aligned

_HEADED = ("mean_top_r", "mean_top_entropy", "mean_monosemanticity")


def format_comparison(comparison: Mapping[str, Any]) -> str:
    """The SAEs and neurons, the real differences, visibility by layer, matching, stability and flow, as tables."""
    report = comparison["report"]
    crossed = f"each of {report['folds']} folds, in turn, of " if report.get("folds") else ""
    head = (
        f"Every figure on {crossed}{report['split']} ({report['images']} images, {report['patients']} patients), with "
        "95% intervals over patients."
    )
    if report.get("left_out"):
        head += f" Left out: {report['left_out']} patients that an SAE was trained on."
    roles = [role for role in ROLES if role == "report" or not crossed]
    head = "\n".join([head, *without_rows(*(Split.model_validate(comparison[role]) for role in roles))])
    parts = [head, _saes(comparison), _differences(comparison), _visibility(comparison)]
    parts += [_stability(comparison), _flows(comparison)]
    return "\n\n".join(part for part in parts if part)


def _saes(comparison: Mapping[str, Any]) -> str:
    more = [m for m in shown("comparison", "sae") if m.name not in _HEADED]
    heads = ["explained", "L0", "dead", "mean top r", "mean top H", "monosem.", *(m.title for m in more)]
    rows = [["", *heads, "rank", "front"]]
    for e in comparison["saes"]:
        rows.append(
            [
                e["name"],
                _form(e["explained_variance"], 3),
                _form(e["l0"], 1),
                "-" if e["dead"] is None else f"{e['dead']:.0%}",
                _with_interval(e, "mean_top_r"),
                _with_interval(e, "mean_top_entropy"),
                _form(e["mean_monosemanticity"], 3),
                *(m.form(e.get(m.name)) for m in more),
                _form(e.get("mean_rank"), 2),
                "*" if e.get("pareto") else "",
            ]
        )
    note = "front: on the Pareto front of explained variance and L0 among the SAEs of its layer."
    return "\n".join([*aligned(rows, rule_after=(1,)), note])


def _differences(comparison: Mapping[str, Any]) -> str:
    kept = [d for d in comparison["differences"] if d["figure"] == "mean_top_r"]
    real = [d for d in kept if d["fdr"] is not None and d["fdr"] < 0.05]
    if not kept:
        return ""
    rows = [["mean top r of", "less that of", "difference", "[95%]", "fdr"]]
    rows += [
        [d["a"], d["b"], f"{d['difference']:+.3f}", f"[{d['low']:+.3f}, {d['high']:+.3f}]", f"{d['fdr']:.3f}"]
        for d in real
    ]
    title = f"Differences of mean top r that are real (paired bootstrap, fdr < 0.05): {len(real)} of {len(kept)} pairs"
    return "\n".join([title, *(aligned(rows, rule_after=(1,)) if real else [])])


def _visibility(comparison: Mapping[str, Any]) -> str:
    layers = comparison["layers"]
    several = len(comparison["encoders"]) > 1
    names = [f"{x['encoder']}/{x['hook']}" if several else x["hook"] for x in layers]
    rows = [["observation", *(f"({k + 1})" for k in range(len(layers)))]]
    for entry in comparison["visibility"]:
        cells = []
        for at, x in enumerate(entry["layers"]):
            latent = "" if x["latent"] is None else f" {_form(x['latent_r'], 2)} #{x['latent']}"
            cells.append(("*" if at in entry["visible_from"] else "") + _form(x["auroc"], 2) + latent)
        rows.append([entry["label"], *cells])
    share = comparison["thresholds"]["visible"]
    title = (
        "AUROC of a linear probe at each layer; r and number of the layer's best latent. *: the first layer with "
        f"{share:.0%} of the best layer's AUROC above 0.5"
    )
    return "\n".join([title, *aligned(rows, rule_after=(1,)), *(f"({k + 1}) {name}" for k, name in enumerate(names))])


def _stability(comparison: Mapping[str, Any]) -> str:
    if not comparison["stability"]:
        return ""
    rows = [["seeds", "mean max r", "mean r one to one", f"share with r >= {comparison['thresholds']['stable']}"]]
    for s in comparison["stability"]:
        figures = [_form(s[key], 2) for key in ("mean_max_correlation", "mean_assigned_correlation")]
        rows.append(
            [" ".join(s["saes"]), *figures, f"{s['share_stable']:.0%}" if s["share_stable"] is not None else "-"]
        )
    title = "Stability across seeds (latents matched by correlation over images)"
    return "\n".join([title, *aligned(rows, rule_after=(1,))])


def _flows(comparison: Mapping[str, Any]) -> str:
    if not comparison["flows"]:
        return ""
    fates, origins = ("continues", "splits", "merges", "dies"), ("continued", "split off", "merged", "born")
    rows = [["from", "to", *fates, *origins]]
    for f in comparison["flows"]:
        counts = [str(f["fates"][x]) for x in fates] + [str(f["origins"][x]) for x in origins]
        rows.append([f["a"], f["b"], *counts])
    title = f"What becomes of latents from layer to layer (linked where r >= {comparison['thresholds']['link']})"
    return "\n".join([title, *aligned(rows, rule_after=(1,))])


def _with_interval(entry: Mapping[str, Any], figure: str) -> str:
    low, high = entry[f"{figure}_low"], entry[f"{figure}_high"]
    between = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return _form(entry[figure], 2) + between


def _form(x: float | None, digits: int) -> str:
    return "-" if x is None else f"{x:.{digits}f}"
