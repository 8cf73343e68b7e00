"""The whole path on phantoms: what `medsae demo` runs."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, read_json, refuse_other_content, write_text

if TYPE_CHECKING:
    from medsae_plugin.comparison import Comparison
    from medsae_plugin.scores import Evaluation

ENCODER = "phantom-swin"
RECIPE = "demo"
N_PHANTOMS = 2000
BASELINES = ("random", "k-means")
DATA_SET = "medsae phantoms"  # what the card of its encoder calls what that was trained on
PHANTOM_SIZE = 128  # pixels on a side: a little more than the encoder takes, and drawn in half the time of 224


@dataclass(frozen=True)
class Demo:
    """What a demo finds, and where its files are."""

    evaluation: Evaluation
    comparison: Comparison
    files: dict[str, Path]


def run_demo(
    out: str | Path, *, n: int = N_PHANTOMS, seed: int = 0, device: str = "cpu", progress: bool = True
) -> Demo:
    """Draw `n` phantoms, extract two layers of the bundled encoder, train an SAE on each, compare them, beside
    random directions and k-means, write a report.

    Run again with the same arguments, it goes on where it was stopped.

    Raises:
        MedSAEError: `out` holds something else than a demo with these arguments.
    """
    from medsae_plugin import Evaluation, HookedVisionEncoder, compare, extract, load_recipe, read_table, train_saes
    from medsae_plugin.phantoms import generate
    from medsae_plugin.report import write_report
    from medsae_plugin.training.baselines import Like, make_baselines

    out = Path(out)
    _claim(out, {"n": n, "seed": seed})
    recipe = load_recipe(RECIPE)
    labels = out / "phantoms" / "labels.csv"
    if not labels.is_file():
        generate(n, labels.parent, seed=seed, size=PHANTOM_SIZE, progress=progress)
    table = read_table(labels, data_set=DATA_SET).split_by_patient(seed=seed)
    encoder = HookedVisionEncoder.from_pretrained(ENCODER, device=device)
    hooks = list(dict.fromkeys(spec.hook for spec in recipe.specs))
    store = extract(encoder, table, hooks, out / "store", seed=seed, progress=progress)
    saes = train_saes(store, recipe.specs, replace(recipe.config, device=device), out / "saes", progress=progress)
    compared, baselines = out / "comparison", out / "baselines"
    for name, path in saes.items():
        make_baselines(Like.of(path, store, seed), baselines / name, BASELINES)
    comparison = compare(
        store, list(saes.values()), table, compared, baselines=[baselines], device=device, progress=progress
    )
    report = write_report(out, out / "report.html", table=table, store=store, images=labels.parent)
    files = {
        "phantoms": labels,
        "activations": store.path,
        **{f"SAE {name}": path for name, path in saes.items()},
        "baselines": baselines,
        "scores": compared / "scores" / "metrics.json",
        "latents": compared / "scores" / "latents.parquet",
        "comparison": compared / "comparison.json",
        "report": report,
    }
    return Demo(Evaluation.open(files["scores"]), comparison, files)


def _claim(out: Path, arguments: dict[str, int]) -> None:
    """Note a demo's arguments in its folder, so that a second run continues it and no other."""
    note = out / "demo.json"
    if note.is_file():
        if read_json(note) == arguments:
            return
        raise MedSAEError(f"{out} holds a demo with other arguments; delete it or choose another folder")
    refuse_other_content(out, "demo")
    make_folder(out)
    write_text(note, json.dumps(arguments) + "\n")
