"""`medsae name`: latents named from evidence; `medsae name score`: the names put to the test."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from medsae_plugin.cli.arguments import (
    GOES_ON,
    Commands,
    add_device,
    add_quiet,
    add_table,
    add_tokenizer,
    checked_device,
    comma_list,
    read_table,
)
from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.naming.asking import Asker
    from medsae_plugin.naming.namers import ChatNamer, Namer
    from medsae_plugin.naming.names import Names
    from medsae_plugin.naming.vocabulary import Vocabulary
    from medsae_plugin.store import ActivationStore

_MODELS = "medgemma (google/medgemma-4b-it), medgemma:ID-OR-FOLDER, or server:MODEL@URL"


def add(commands: Commands) -> None:
    _add_name(
        commands.add_parser(
            "name",
            help="name latents from evidence",
            description="Name the latents of an SAE. Run again, it asks nothing twice. "
            "`medsae name score` puts the names to the test.",
        )
    )
    _add_score(
        commands.add_parser(
            "name score",
            help="put names to the test",
            description="Judges who know a name alone say on which held-out images its latent fires.",
        )
    )


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", type=Path)
    parser.add_argument("sae", type=Path, metavar="SAE_DIR")
    add_table(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for names.json, names.csv and answers")
    parser.add_argument("--backend", required=True, metavar="BACKEND", help=f"vocabulary, label, {_MODELS}")
    parser.add_argument("--latents", type=comma_list, metavar="3,17", help="which latents (default: all)")
    parser.add_argument("--neurons", type=int, default=0, metavar="N", help="name N raw neurons as well (default: 0)")
    parser.add_argument("--split", default="train", help="the images that names are made from (default: train)")
    parser.add_argument("--seed", type=int, default=0)
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
    parser.set_defaults(run=run, interrupted=GOES_ON)


def _add_evidence(group: argparse._ActionsContainer) -> None:
    group.add_argument("--strongest", type=int, default=5, metavar="N", help="strongest images (default: 5)")
    group.add_argument("--spread", type=int, default=5, metavar="N", help="over the firing range (default: 5)")
    group.add_argument("--silent", type=int, default=5, metavar="N", help="silent images (default: 5)")
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
        "(default: decoder at hook_embedding, images elsewhere)",
    )
    group.add_argument("--encoder", metavar="CARD", help="of the text tower (default: the store's encoder)")
    group.add_argument("--weights", type=Path, help="the encoder's official weights (default: download)")
    add_tokenizer(group)


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", type=Path)
    parser.add_argument("sae", type=Path, metavar="SAE_DIR")
    parser.add_argument("names", type=Path, metavar="NAMES_DIR", help="what medsae name wrote; scores.json goes there")
    add_table(parser, required=True)
    parser.add_argument("--judge", action="append", required=True, metavar="MODEL", help=f"{_MODELS}; once or more")
    parser.add_argument("--split", default="test", help="images of other patients (default: test)")
    parser.add_argument("--seed", type=int, default=0)
    _add_judging(parser)
    _add_model(parser)
    parser.set_defaults(run=run_score, interrupted=GOES_ON)


def _add_judging(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--images", type=int, default=10, metavar="N", help="firing and as many silent (default: 10)")
    parser.add_argument("--group", type=int, default=1, metavar="N", help="images in one question (default: 1)")


def _add_model(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("the model")
    add_device(model)
    model.add_argument("--batch-size", type=int, default=1, help="conversations at once, of medgemma (default: 1)")
    model.add_argument("--4bit", dest="load_in_4bit", action="store_true", help="of medgemma, on an NVIDIA GPU")
    model.add_argument("--revision", help="of medgemma on the Hub, a commit or tag (default: its newest)")
    model.add_argument("--concurrency", type=int, default=8, metavar="N", help="requests at once (default: 8)")
    model.add_argument("--timeout", type=float, default=120, metavar="SECONDS", help="of a request (default: 120)")
    add_quiet(parser)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.naming.evidence import Counts
    from medsae_plugin.naming.namers import ChatNamer
    from medsae_plugin.naming.run import name_latents
    from medsae_plugin.naming.vocabulary import Vocabulary
    from medsae_plugin.store import ActivationStore

    store, table = ActivationStore(args.store), read_table(args)
    vocabulary = Vocabulary.read(args.vocabulary) if args.vocabulary else Vocabulary.seed()
    askers: list[Asker] = []
    namer = _namer(args, store, vocabulary, askers)
    if args.rounds and not askers:
        raise MedSAEError(f"--rounds is for models that can be told of a mistake, not for --backend {args.backend}")
    names = name_latents(
        store,
        args.sae,
        table,
        args.out,
        namer,
        latents=_indices(args.latents),
        neurons=args.neurons,
        split=args.split,
        counts=Counts(args.strongest, args.spread, args.silent),
        vocabulary=vocabulary,
        seed=args.seed,
        replace_others=args.replace,
        progress=not args.quiet,
    )
    if isinstance(namer, ChatNamer) and args.rounds:
        names = _refined(args, store, table, namer, askers, vocabulary, names)
    print(names.counts())
    if isinstance(namer, ChatNamer) and args.heatmaps != "none":
        _say_without_heatmaps(store, names.made["hook"])
    _print_requests(askers)
    _print_top_names(args, store, table, vocabulary)
    print(f"written: {args.out / 'names.json'}, {args.out / 'names.csv'}, {args.sae / 'names.json'}")
    for line in _beside(names, args.out, args.sae):
        print(line)
    failed = [unit for unit in names.units if unit.status == "unanswered"]
    if isinstance(namer, ChatNamer) and failed and not any(unit.status == "named" for unit in names.units):
        raise MedSAEError(f"nothing got a name; {failed[-1].kind} {failed[-1].latent}: {failed[-1].problem}")


def _refined(
    args: argparse.Namespace,
    store: ActivationStore,
    table: ImageTable,
    namer: ChatNamer,
    askers: list[Asker],
    vocabulary: Vocabulary,
    names: Names,
) -> Names:
    """The names after `--rounds` rounds; the judge's asker is put into `askers`."""
    from medsae_plugin.naming.refinement import refine_names
    from medsae_plugin.naming.trials import Judge

    if args.judge:
        askers.append(_asker(args, args.judge, args.out))
    return refine_names(
        store,
        args.sae,
        table,
        args.out,
        namer,
        Judge(askers[-1], args.group),
        rounds=args.rounds,
        check_split=args.check_split,
        each=args.images,
        vocabulary=vocabulary,
        names=names,
        replace_others=args.replace,
        progress=not args.quiet,
    )


def _beside(names: Names, out: Path, sae: Path) -> Iterator[str]:
    """What the files hold besides the names of this call, and where another name was left in place."""
    from medsae_plugin.naming.names import Names

    mine = {unit.key: unit for unit in names.units if unit.status == "named"}
    for folder, how in ((out, "refined further"), (sae, "of another run; --replace lets these take their place")):
        there = {unit.key: unit for unit in Names.read(folder).units if unit.status == "named"}
        if others := len(there.keys() - mine.keys()):
            yield f"{folder / 'names.json'} keeps {others} names of other latents or neurons"
        if stayed := sum(key in there and there[key].name != unit.name for key, unit in mine.items()):
            yield f"{folder / 'names.json'} keeps {stayed} other names of the same ones, {how}"


def run_score(args: argparse.Namespace) -> None:
    from medsae_plugin.naming.score_output import format_scores
    from medsae_plugin.naming.scoring import score_names
    from medsae_plugin.naming.trials import Judge
    from medsae_plugin.store import ActivationStore

    if len(set(args.judge)) < len(args.judge):
        raise MedSAEError("the same judge is given twice")
    before = (args.names / "scores.json").is_file()
    judges = {spec: Judge(_asker(args, spec, args.names), args.group) for spec in args.judge}
    scores = score_names(
        ActivationStore(args.store),
        args.sae,
        read_table(args),
        args.names,
        {_short(spec, args.judge): judge for spec, judge in judges.items()},
        split=args.split,
        each=args.images,
        seed=args.seed,
        progress=not args.quiet,
    )
    print(format_scores(scores))
    _print_requests([judge.asker for judge in judges.values()])
    again = ", in place of those of an earlier call (give all judges in one: nothing is asked twice)" if before else ""
    print(f"written: {args.names / 'scores.json'}, {args.names / 'scores.csv'}{again}")


def _namer(args: argparse.Namespace, store: ActivationStore, vocabulary: Vocabulary, askers: list[Asker]) -> Namer:
    """The namer that --backend names; the asker of one that asks a model is put into `askers`."""
    from medsae_plugin.naming.namers import ChatNamer, LabelNamer, VocabularyNamer

    if args.backend == "label":
        return LabelNamer()
    if args.backend == "vocabulary":
        from medsae_plugin.encoders import HookedVisionEncoder

        encoder = HookedVisionEncoder.from_pretrained(
            args.encoder or store.manifest["encoder"]["name"],
            args.weights,
            device=checked_device(args.device),
            tokenizer=args.tokenizer,
        )
        return VocabularyNamer(encoder, vocabulary, args.by)
    askers.append(_asker(args, args.backend, args.out))
    return ChatNamer(askers[0], args.heatmaps)


def _asker(args: argparse.Namespace, spec: str, folder: Path) -> Asker:
    from medsae_plugin.naming.answers import Answers
    from medsae_plugin.naming.asking import Asker
    from medsae_plugin.naming.backends import open_chat

    chat = open_chat(
        spec,
        device=args.device,
        batch_size=args.batch_size,
        load_in_4bit=args.load_in_4bit,
        revision=args.revision,
        concurrency=args.concurrency,
        timeout=args.timeout,
    )
    return Asker(chat, Answers(folder / "answers"), progress=not args.quiet)


def _short(spec: str, specs: list[str]) -> str:
    """A judge's name for the report: without its address, unless two judges would then be called the same."""
    short = [s.partition("@")[0] for s in specs]
    name = spec.partition("@")[0]
    return name if short.count(name) == 1 else f"{name} ({specs.index(spec) + 1})"


def _indices(texts: list[str] | None) -> list[int] | None:
    try:
        return None if texts is None else [int(text) for text in texts]
    except ValueError:
        raise MedSAEError(f"--latents {','.join(texts or ())}: latents are numbers from 0, such as 3,17") from None


def _print_requests(askers: list[Asker]) -> None:
    if askers:
        sent, reused = sum(a.sent for a in askers), sum(a.reused for a in askers)
        print(f"{sent} requests sent, {reused} answers were there")
        aside = sum((a.aside for a in askers), Counter[str]())
        if aside:
            fields = ", ".join(f"{field[:40]!r} in {n}" for field, n in aside.most_common(5))
            print(f"fields of answers that were not asked for, and are not used: {fields}")


def _say_without_heatmaps(store: ActivationStore, hook: str) -> None:
    from medsae_plugin.scores.heatmaps import has_heatmaps

    if store.hooks[hook].grid is not None and not has_heatmaps(store, hook):
        print(f"the store does not keep all positions of {hook}, so images were shown without heatmaps")


def _print_top_names(
    args: argparse.Namespace, store: ActivationStore, table: ImageTable, vocabulary: Vocabulary
) -> None:
    """Whether labels' top latents are named rightly, where labels are categories of the vocabulary."""
    from medsae_plugin.naming.firing import open_firing
    from medsae_plugin.naming.names import Names
    from medsae_plugin.naming.run import MATRICES
    from medsae_plugin.naming.top_latents import format_top_names, top_names

    if {label.casefold() for label in table.label_names} & {c.casefold() for c in vocabulary.categories}:
        latents, _ = open_firing(store, args.sae, table, args.out / MATRICES, progress=False)
        print(f"\n{format_top_names(top_names(latents, Names.read(args.out), args.split))}\n")
