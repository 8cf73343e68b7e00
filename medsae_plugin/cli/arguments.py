"""Arguments that several commands share, and what they stand for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsae_plugin.cli.table_arguments import add_regions as add_regions
from medsae_plugin.cli.table_arguments import add_table as add_table
from medsae_plugin.cli.table_arguments import comma_list as comma_list
from medsae_plugin.cli.table_arguments import read_regions as read_regions
from medsae_plugin.cli.table_arguments import read_table as read_table
from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from medsae_plugin.data.prompts import Prompts
    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.encoders import HookedVisionEncoder
    from medsae_plugin.scores import JudgeStore, Resampling


class _OldName(argparse.Action):
    """An option's old name, which does what the new one does and says what that is."""

    def __init__(self, option_strings: Sequence[str], dest: str, new: argparse.Action, **_: Any) -> None:
        kept = {"nargs": new.nargs, "type": new.type, "choices": new.choices, "metavar": new.metavar}
        super().__init__(option_strings, new.dest, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **kept)  # type: ignore[arg-type]
        self.new = new

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        say_old(str(option), self.new.option_strings[0])
        self.new.required = False  # it is given, by its old name
        self.new(parser, namespace, values, option)


def renamed(parser: argparse._ActionsContainer, old: str, new: argparse.Action) -> None:
    """Let an option's old name work for one release, with a warning."""
    parser.add_argument(old, action=_OldName, new=new)


def say_old(old: str, new: str) -> None:
    """Warn of an old spelling."""
    print(f"medsae: {old} is now {new}; the old spelling goes with 0.3", file=sys.stderr)


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """The encoder's card and `--weights`."""
    with_cards(parser.add_argument("encoder", metavar="ENCODER", help="a card's name (medsae encoders) or path"))
    parser.add_argument(
        "--weights",
        type=Path,
        help="the checkpoint, or the folder that holds it (default: the card's source, fetched once)",
    )


def add_tokenizer(parser: argparse._ActionsContainer) -> None:
    """`--tokenizer`, for commands that encode texts."""
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="PATH",
        help="vocab.txt or tokenizer.json of the text tower, or their folder (default: beside the weights, else the "
        "card's, fetched once)",
    )


def read_encoder(args: argparse.Namespace) -> HookedVisionEncoder:
    """The encoder that `add_encoder`'s and `add_device`'s arguments name."""
    from medsae_plugin.encoders import HookedVisionEncoder

    return HookedVisionEncoder.from_pretrained(
        args.encoder, args.weights, device=checked_device(args.device), tokenizer=getattr(args, "tokenizer", None)
    )


def add_batches(parser: argparse._ActionsContainer) -> None:
    """`--batch-size` and `--workers`."""
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--workers", type=int, default=None, help="decoding processes (default: by the machine's cores)"
    )


def add_prompts(parser: argparse._ActionsContainer) -> None:
    """`--prompts`."""
    parser.add_argument(
        "--prompts",
        metavar="NAME|YAML",
        help="findings prompts: chexpert, phantoms, or a file of your own (default: those in the encoder's words)",
    )


def read_prompts(args: argparse.Namespace) -> Prompts:
    """The prompts that `add_prompts`'s argument names, for the encoder of the arguments."""
    from medsae_plugin.data.prompts import load_prompts
    from medsae_plugin.encoders import load_card

    return load_prompts(args.prompts) if args.prompts else load_card(args.encoder).own_prompts()


def add_zero_shot(parser: argparse.ArgumentParser) -> None:
    """`--prompts` and the tokenizer for them, and `--store` and `--split` for the images to score."""
    add_tokenizer(parser)
    add_prompts(parser)
    parser.add_argument(
        "--store", type=Path, help="use only the images of one of this store's splits (default: all of the table's)"
    )
    parser.add_argument("--split", default="test", help="which, with --store (default: test)")


def read_zero_shot(args: argparse.Namespace) -> tuple[ImageTable, Prompts]:
    """The table with the images to score, and the prompts, that `add_table`'s and `add_zero_shot`'s arguments name."""
    from medsae_plugin.causal.passes import images_of_split
    from medsae_plugin.store import ActivationStore

    table = read_table(args)
    if args.store is not None:
        table = images_of_split(table, ActivationStore(args.store), args.split)
    return table, read_prompts(args)


def add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", type=Path, metavar="STORE", help="the activation store, of medsae extract")


def add_what_is_scored(parser: argparse.ArgumentParser) -> None:
    """A store, SAEs, and which images of it to choose latents on and to report on."""
    add_store(parser)
    parser.add_argument("saes", type=Path, nargs="+", metavar="SAE_DIR")
    add_splits(parser)


def add_baselines(parser: argparse.ArgumentParser) -> None:
    """`--baselines`."""
    parser.add_argument(
        "--baselines",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="what medsae baselines made for these SAEs, or a folder of such folders; may be repeated",
    )


def add_judge(parser: argparse.ArgumentParser) -> None:
    """`--judge-store` and `--judge-hook`."""
    parser.add_argument(
        "--judge-store",
        type=Path,
        metavar="STORE",
        help="another encoder's store of the same images, by whose embeddings to give monosemanticity as well",
    )
    parser.add_argument("--judge-hook", metavar="HOOK", help="of that store (default: hook_embedding)")


def read_judge(args: argparse.Namespace) -> JudgeStore | None:
    """The judge that `add_judge`'s arguments name, if they do.

    Raises:
        MedSAEError: a hook of no store; the store has no such hook.
    """
    from medsae_plugin.scores import JudgeStore
    from medsae_plugin.scores.images import EMBEDDINGS
    from medsae_plugin.store import ActivationStore

    if args.judge_store is None:
        if args.judge_hook is not None:
            raise MedSAEError("--judge-hook is of a --judge-store, and none is given")
        return None
    return JudgeStore(ActivationStore(args.judge_store), args.judge_hook or EMBEDDINGS[0])


def add_splits(parser: argparse.ArgumentParser) -> None:
    """Which images to choose latents on and to report on, and what an image's activation is."""
    parser.add_argument(
        "--aggregate", choices=("max", "mean"), default="max", help="over an image's positions (default: max)"
    )
    select = parser.add_argument(
        "--select-split",
        dest="select",
        default="train",
        metavar="SPLIT",
        help="where top latents are chosen (default: train)",
    )
    report = parser.add_argument(
        "--report-split", dest="report", default="test", metavar="SPLIT", help="where they are scored (default: test)"
    )
    renamed(parser, "--select", select)
    renamed(parser, "--report", report)


def add_chance(parser: argparse.ArgumentParser) -> None:
    """How chance is measured: `--permutations` and the seed."""
    parser.add_argument("--permutations", type=int, default=200, metavar="N", help="of the null (default: 200)")
    parser.add_argument("--bootstrap", type=int, help=argparse.SUPPRESS)
    add_seed(parser, "of the null, and of the untrained SAEs")


def read_chance(args: argparse.Namespace) -> Resampling:
    from medsae_plugin.scores import Resampling

    if args.bootstrap is not None:
        print("medsae: --bootstrap does nothing: intervals are the jackknife's; it goes with 0.3", file=sys.stderr)
    return Resampling(args.permutations, seed=args.seed)


def add_seed(parser: argparse.ArgumentParser, of: str) -> None:
    """`--seed`, where chance enters; `of` says what is drawn with it."""
    parser.add_argument("--seed", type=int, default=0, help=f"{of} (default: 0)")


def read_saes(paths: Sequence[Path]) -> list[Path]:
    """SAE folders as a shell makes them of `saes/*`, without what else training leaves there, which is said."""
    from medsae_plugin.sae_folders import without_training_files

    folders, aside = without_training_files(paths)
    if aside:
        print(f"left aside, for they are no SAEs: {', '.join(map(str, aside))}", file=sys.stderr)
    if aside and not folders:
        raise MedSAEError(
            "there is no SAE among these; of a training's checkpoints, name one, as saes/checkpoints/1024"
        )
    return folders


def add_run(parser: argparse.ArgumentParser) -> None:
    """The output of another command, and what belongs to it."""
    parser.add_argument(
        "run_folder", type=Path, metavar="RUN", help="what medsae evaluate, compare, sweep or demo wrote"
    )
    parser.add_argument("--comparison", type=Path, metavar="DIR", help="a comparison, beside an evaluation")
    parser.add_argument(
        "--saes", type=Path, nargs="+", default=[], metavar="SAE_DIR", help="the SAEs' folders, for training curves"
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")


def add_precision(parser: argparse.ArgumentParser, default: str | None, help: str) -> None:
    """`--precision`."""
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default=default,
        help=f"{help}. auto: bf16 where the chip computes in it and a check against fp32 passes, else fp32",
    )


def with_cards(action: argparse.Action) -> None:
    """Let a shell complete the names of the package's cards, without reading one."""
    action.completer = lambda **_: [  # type: ignore[attr-defined]
        entry.name.removesuffix(".yaml")
        for entry in resources.files("medsae_plugin.hooks").iterdir()
        if entry.name.endswith(".yaml")
    ]


def fractions(text: str) -> dict[str, float]:
    """`train=0.7,val=0.1,test=0.2` as a dict."""
    try:
        return {name.strip(): float(value) for name, value in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form train=0.7,val=0.1,test=0.2") from None


def checked_device(name: str) -> str:
    """The device, if this machine has it.

    Raises:
        MedSAEError: it has not.
    """
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise MedSAEError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return name
