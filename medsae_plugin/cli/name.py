"""`medsae name`: latents named from evidence; `medsae name score`: the names put to the test."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsae_plugin.cli.arguments import (
    add_device,
    add_seed,
    add_store,
    add_table,
    add_tokenizer,
    checked_device,
    comma_list,
    read_table,
    renamed,
    with_cards,
)
from medsae_plugin.cli.commands import GOES_ON, Commands
from medsae_plugin.cli.protocol import PAPER
from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from medsae_plugin.naming.evidence import Evidence
    from medsae_plugin.naming.namers import ChatNamer
    from medsae_plugin.naming.names import Names
    from medsae_plugin.naming.trials import Judge, TrialRule
    from medsae_plugin.store import ActivationStore

_MODELS = "medgemma (google/medgemma-4b-it), medgemma:ID-OR-FOLDER, or server:MODEL@URL"


def add(commands: Commands) -> None:
    commands.add(
        "name",
        run,
        _arguments,
        help="name latents from evidence",
        description="Name the latents of an SAE. Run again, it asks nothing twice.",
        interrupted=GOES_ON,
    )
    commands.add(
        "name score",
        run_score,
        _score_arguments,
        help="put names to the test",
        description="Judges who know a name alone say on which held-out images its latent fires.",
        interrupted=GOES_ON,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("sae", type=Path, metavar="SAE_DIR")
    add_table(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for names.json, names.csv and answers")
    parser.add_argument(
        "--backend",
        required=True,
        metavar="BACKEND",
        help=f"vocabulary, label, {_MODELS}, or an entry of NAMERS of your own (--import)",
    )
    parser.add_argument("--latents", type=comma_list, metavar="3,17", help="which latents (default: all)")
    parser.add_argument("--neurons", type=int, default=0, metavar="N", help="name N raw neurons as well (default: 0)")
    parser.add_argument("--split", default="train", help="the images that names are made from (default: train)")
    add_seed(parser, "of the images that are shown and the neurons that are drawn")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="let these names take the place of others of the same latents in SAE_DIR/names.json, which else stay",
    )
    _add_evidence(parser.add_argument_group("the evidence of a latent"))
    _add_vocabulary(parser.add_argument_group("the vocabulary"))
    refinement = parser.add_argument_group("refinement")
    refinement.add_argument("--rounds", type=int, default=0, metavar="N", help="rounds of refinement (default: 0)")
    refinement.add_argument("--judge", metavar="MODEL", help="who judges between rounds (default: the backend)")
    refinement.add_argument("--check-split", default="val", help="where a better name has to win (default: val)")
    _add_judging(refinement)
    _add_model(parser)


def _add_evidence(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--evidence",
        choices=(PAPER,),
        help="as MedSAE's reference chooses: 15 strongest and 15 weaker images, none silent, no labels told",
    )
    group.add_argument("--strongest", type=int, metavar="N", help="strongest images (default: 5)")
    group.add_argument("--spread", type=int, metavar="N", help="over the firing range (default: 5)")
    group.add_argument("--silent", type=int, metavar="N", help="silent images (default: 5)")
    group.add_argument(
        "--heatmaps",
        choices=("overlay", "crop", "none"),
        default="overlay",
        help="at hooks with positions, for models that see images (default: overlay)",
    )


def _add_vocabulary(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--vocabulary",
        type=Path,
        metavar="FILE",
        help="a term a line, after a tab its category (default: the package's)",
    )
    group.add_argument(
        "--by",
        choices=("decoder", "images"),
        help="terms near decoder directions, or near activation-weighted image embeddings "
        "(default: decoder at hook_embedding or its unit, images elsewhere)",
    )
    with_cards(
        group.add_argument("--encoder", metavar="ENCODER", help="of the text tower (default: the store's encoder)")
    )
    group.add_argument("--weights", type=Path, help="the encoder's official weights (default: download)")
    add_tokenizer(group)


def _score_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("sae", type=Path, metavar="SAE_DIR")
    parser.add_argument("names", type=Path, metavar="NAMES_DIR", help="what medsae name wrote; scores.json goes there")
    add_table(parser, required=True)
    parser.add_argument("--judge", action="append", required=True, metavar="MODEL", help=f"{_MODELS}; once or more")
    parser.add_argument("--split", help="images of other patients (default: test)")
    parser.add_argument(
        "--trial",
        choices=(PAPER,),
        help="as MedSAE's reference judges: 30 strongest and 30 silent images of the split that names were made from, "
        "five a question, an unread answer a no; it flatters, see docs/naming.md",
    )
    add_seed(parser, "of the images that are shown and the names that are shuffled")
    _add_judging(parser)
    _add_model(parser)


def _add_judging(parser: argparse._ActionsContainer) -> None:
    each = parser.add_argument(
        "--each", type=int, metavar="N", help="images on which it fires, and as many silent (default: 10)"
    )
    renamed(parser, "--images", each)
    parser.add_argument("--group", type=int, metavar="N", help="images in one question (default: 1)")


def _add_model(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("the model")
    add_device(model)
    model.add_argument("--batch-size", type=int, default=1, help="conversations at once, of medgemma (default: 1)")
    model.add_argument("--4bit", dest="load_in_4bit", action="store_true", help="of medgemma, on an NVIDIA GPU")
    model.add_argument("--revision", help="of medgemma on the Hub, a commit or tag (default: its newest)")
    model.add_argument("--concurrency", type=int, default=8, metavar="N", help="requests at once (default: 8)")
    model.add_argument("--timeout", type=float, default=120, metavar="SECONDS", help="of a request (default: 120)")


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.naming import Vocabulary, name_latents, open_namer, refine_names
    from medsae_plugin.naming.asking import told
    from medsae_plugin.naming.namers import ChatNamer
    from medsae_plugin.naming.names import kept_beside
    from medsae_plugin.naming.top_latents import told_top_names
    from medsae_plugin.store import ActivationStore

    store, table = ActivationStore(args.store), read_table(args)
    vocabulary = Vocabulary.read(args.vocabulary) if args.vocabulary else Vocabulary.seed()
    of_vocabulary = {name: getattr(args, name) for name in ("by", "encoder", "weights", "tokenizer")}
    shown = {"vocabulary": vocabulary, "heatmaps": args.heatmaps}
    namer = open_namer(args.backend, args.out, store, **shown, **of_vocabulary, **_model(args))
    model = namer if isinstance(namer, ChatNamer) else None
    if args.rounds and model is None:
        raise MedSAEError(f"--rounds is for models that can be told of a mistake, not for --backend {args.backend}")
    how = {"vocabulary": vocabulary, "replace_others": args.replace, "device": args.device, "progress": not args.quiet}
    names = name_latents(
        store,
        args.sae,
        table,
        args.out,
        namer,
        latents=_indices(args.latents),
        neurons=args.neurons,
        split=args.split,
        counts=_evidence(args),
        seed=args.seed,
        **how,
    )
    askers = [] if model is None else [model.asker]
    if model is not None and args.rounds:
        judge = _judge(args, model)
        askers = list(dict.fromkeys([*askers, judge.asker]))
        trial = {"rounds": args.rounds, "check_split": args.check_split, "each": _or(args.each, 10)}
        names = refine_names(store, args.sae, table, args.out, model, judge, names=names, **trial, **how)
    print(names.counts())
    if model is not None and args.heatmaps != "none":
        _say_without_heatmaps(store, names.made["hook"])
    for line in told(askers):
        print(line)
    print(told_top_names(store, args.sae, table, args.out, args.split, vocabulary), end="")
    print(f"written: {args.out / 'names.json'}, {args.out / 'names.csv'}, {args.sae / 'names.json'}")
    for line in (
        *kept_beside(names, args.out, "refined further"),
        *kept_beside(names, args.sae, "of another run; --replace lets these take their place"),
    ):
        print(line)
    if model is not None:
        _check_any_named(names)


def _check_any_named(names: Names) -> None:
    """Raises MedSAEError where a model was asked for names, and gave none that can be used."""
    failed = [unit for unit in names.units if unit.status == "unanswered"]
    if failed and not any(unit.status == "named" for unit in names.units):
        raise MedSAEError(f"nothing got a name; {failed[-1].kind} {failed[-1].latent}: {failed[-1].problem}")


def _judge(args: argparse.Namespace, namer: ChatNamer) -> Judge:
    """Who judges between rounds: `--judge`, else the namer's own model."""
    from medsae_plugin.naming import open_judge
    from medsae_plugin.naming.trials import Judge

    if args.judge:
        return open_judge(args.judge, args.out, group=_or(args.group, 1), **_model(args))
    return Judge(namer.asker, _or(args.group, 1))


def run_score(args: argparse.Namespace) -> None:
    from medsae_plugin.naming import open_judges, score_names
    from medsae_plugin.naming.asking import told
    from medsae_plugin.store import ActivationStore

    before = (args.names / "scores.json").is_file()
    rule, group = _trials(args)
    judges = open_judges(args.judge, args.names, group=group, **_model(args))
    scores = score_names(
        ActivationStore(args.store),
        args.sae,
        read_table(args),
        args.names,
        judges,
        split=args.split,
        rule=rule,
        seed=args.seed,
        device=args.device,
        progress=not args.quiet,
    )
    print(scores)
    for line in told([judge.asker for judge in judges.values()]):
        print(line)
    again = ", in place of those of an earlier call (give all judges in one: nothing is asked twice)" if before else ""
    print(f"written: {args.names / 'scores.json'}, {args.names / 'scores.csv'}{again}")


def _evidence(args: argparse.Namespace) -> Evidence:
    """Which images a name is made from.

    Raises:
        MedSAEError: a preset together with counts of one's own.
    """
    from medsae_plugin.naming.evidence import Counts
    from medsae_plugin.naming.paper import PaperEvidence

    given = {name: getattr(args, name) for name in ("strongest", "spread", "silent")}
    given = {name: value for name, value in given.items() if value is not None}
    if args.evidence is None:
        return Counts(**given)
    if given:
        raise MedSAEError(f"--evidence {args.evidence} has its own counts; leave out {_options(given)}")
    return PaperEvidence()


def _trials(args: argparse.Namespace) -> tuple[TrialRule, int]:
    """Which images a name is tried on, and how many are in one question.

    Raises:
        MedSAEError: a preset together with counts of one's own.
    """
    from medsae_plugin.naming.paper import PaperTrials
    from medsae_plugin.naming.trials import Trials

    given = {name: getattr(args, name) for name in ("each", "group") if getattr(args, name) is not None}
    if args.trial is None:
        return Trials(_or(args.each, 10)), _or(args.group, 1)
    if given:
        raise MedSAEError(f"--trial {args.trial} has its own counts; leave out {_options(given)}")
    return PaperTrials(), PaperTrials.group


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _options(names: Iterable[str]) -> str:
    return ", ".join(f"--{name}" for name in names)


def _model(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `open_chat`, and progress."""
    names = ("batch_size", "load_in_4bit", "revision", "concurrency", "timeout")
    of_model = {name: getattr(args, name) for name in names}
    return {**of_model, "device": checked_device(args.device), "progress": not args.quiet}


def _indices(texts: list[str] | None) -> list[int] | None:
    try:
        return None if texts is None else [int(text) for text in texts]
    except ValueError:
        raise MedSAEError(f"--latents {','.join(texts or ())}: latents are numbers from 0, such as 3,17") from None


def _say_without_heatmaps(store: ActivationStore, hook: str) -> None:
    from medsae_plugin.scores.heatmaps import has_heatmaps

    if store.hooks[hook].grid is not None and not has_heatmaps(store, hook):
        print(f"the store does not keep all positions of {hook}, so images were shown without heatmaps")
