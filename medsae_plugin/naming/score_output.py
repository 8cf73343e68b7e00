"""What a test of names writes and prints: `scores.json`, `scores.csv`, and a table."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from medsae_plugin.files import write_text

JSON, CSV = "scores.json", "scores.csv"


def write(scores: dict[str, Any], lines: list[dict[str, Any]], folder: Path) -> None:
    """Write `scores.json` and `scores.csv`, a line for each judge and name."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(folder / CSV, text.getvalue())
    write_text(folder / JSON, json.dumps({**scores, "by_name": lines}, indent=2, allow_nan=False) + "\n")


def format_scores(scores: dict[str, Any]) -> str:
    """A table of the judges' figures: latents, shuffled names and neurons."""
    head = ("judge", "names of", "n", "balanced accuracy", "precision", "recall", "F1", "p", "unanswered")
    rows = [head]
    for judge in scores["judges"]:
        for condition in ("latents", "shuffled", "neurons"):
            figures = judge[condition]
            if figures is None:
                continue
            low, high = figures["interval"]
            interval = "" if low is None else f" [{low:.2f}, {high:.2f}]"
            p = figures["p_value"]
            rows.append(
                (
                    judge["judge"],
                    condition,
                    str(figures["names"]),
                    f"{_figure(figures['balanced_accuracy'])}{interval}",
                    *(_figure(figures[key]) for key in ("precision", "recall", "f1")),
                    "-" if p is None else f"{p:.2g}",
                    str(figures["unanswered"]),
                )
            )
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    lines = ["  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    if untested := {kind: n for kind, n in scores["untested"].items() if n}:
        told = " and ".join(f"{n} named {kind}" for kind, n in untested.items())
        lines += ["", f"not tested: {told}, which fire or are silent on too few patients of split {scores['split']!r}"]
    if scores["trial"] != "held-out":
        lines += ["", *_reservations(scores)]
    if scores["agreement"]:
        pairs = [f"{' and '.join(p['judges'])} {_figure(p['kappa'])}" for p in scores["agreement"]["cohen_kappa"]]
        lines += [
            "",
            f"Cohen's kappa: {', '.join(pairs)}",
            f"Fleiss' kappa: {_figure(scores['agreement']['fleiss_kappa'])}",
        ]
    return "\n".join(lines)


def _reservations(scores: dict[str, Any]) -> list[str]:
    """What the figures of a trial that holds nothing out are worth."""
    lines = [
        f"trial {scores['trial']}: the strongest images of split {scores['split']!r}; an unread answer counts as no"
    ]
    if scores["split"] in [run.get("split") for run in (scores["names"], *scores["names"].get("runs", ()))]:
        leak = scores["leak"]
        of = (
            f"{leak['in_evidence']} of the {leak['firing_images']} firing"
            if leak
            else "an unknown number of the firing"
        )
        lines.append(
            f"this leaks: names were made from these images, and {of} images were in their own name's evidence"
        )
    return lines


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
