"""`medsae schema`: the JSON schema of what commands save."""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path

from medsae_plugin.cli.commands import Commands
from medsae_plugin.errors import MedSAEError

# What is saved, in which file by which command, and the model that says its form.
_SAVED = {
    "store": ("manifest.json of medsae extract", "medsae_plugin.store.layout", "Manifest"),
    "run": ("run.json of medsae train", "medsae_plugin.training.records", "TrainingRun"),
    "training": ("training.json of medsae train", "medsae_plugin.training.records", "TrainingRecord"),
    "baseline": ("baseline.json of medsae baselines", "medsae_plugin.training.baseline_folders", "Note"),
    "latents": ("manifest.json in latents/ of medsae evaluate", "medsae_plugin.scores.matrix", "MatrixManifest"),
    "evaluation": ("metrics.json of medsae evaluate and merge", "medsae_plugin.scores.results", "Evaluation"),
    "paper": ("metrics.json of --protocol medsae-paper", "medsae_plugin.scores.paper", "PaperEvaluation"),
    "fidelity": ("fidelity.json of medsae fidelity", "medsae_plugin.causal.results", "Fidelity"),
    "attribution": (
        "attribution.json of medsae attribute",
        "medsae_plugin.causal.attribution_report",
        "AttributionReport",
    ),
    "linearity": ("linearity.json of medsae linearity", "medsae_plugin.causal.composites", "Linearity"),
    "probes": ("probes.json of medsae probe", "medsae_plugin.scores.probe_results", "Probes"),
    "head": ("head.json of medsae head", "medsae_plugin.patients.head_results", "HeadReport"),
    "localisation": (
        "localisation.json of medsae localize",
        "medsae_plugin.localisation.results",
        "Localisation",
    ),
    "confounders": (
        "confounders.json of medsae confounders",
        "medsae_plugin.confounding.results",
        "Confounders",
    ),
    "selectivity": ("selectivity.json of medsae selectivity", "medsae_plugin.selectivity.results", "Selectivity"),
    "hierarchy": ("hierarchy.json of medsae hierarchy", "medsae_plugin.hierarchy.results", "Hierarchy"),
    "robustness": ("robustness.json of medsae robustness", "medsae_plugin.robustness.results", "Robustness"),
    "comparison": (
        "comparison.json of medsae compare and sweep",
        "medsae_plugin.comparison.results",
        "Comparison",
    ),
    "site": ("site.json of medsae stats", "medsae_plugin.scores.sites", "Site"),
    "sweep": ("sweep.json of medsae sweep", "medsae_plugin.comparison.halving", "Sweep"),
    "names": ("names.json of medsae name", "medsae_plugin.naming.names", "Names"),
    "scores": ("scores.json of medsae name score", "medsae_plugin.naming.results", "NameScores"),
}


def add(commands: Commands) -> None:
    commands.add(
        "schema",
        run,
        _arguments,
        help="the JSON schema of what commands save",
        description="Print the JSON schema of a file that commands save, with every metric that is declared, your own "
        "(--import) too. Without a name, which there are.",
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", choices=list(_SAVED), help="of which file")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write it to this file")


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.files import make_folder, write_text
    from medsae_plugin.text import to_the_left

    if args.what is None:
        if args.out is not None:
            raise MedSAEError(f"say which schema to write: {', '.join(_SAVED)}")
        print("\n".join(to_the_left([[name, file] for name, (file, _, _) in _SAVED.items()])))
        return
    _, module, model = _SAVED[args.what]
    schema = getattr(import_module(module), model).model_json_schema(mode="serialization")
    text = json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2)
    if args.out is None:
        print(text)
        return
    make_folder(args.out.parent)
    write_text(args.out, text + "\n")
    print(f"written: {args.out}")
