"""`medsae localize`: where latents fire, against masks and boxes of findings."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from medsae_plugin.cli.arguments import (
    add_device,
    add_regions,
    add_seed,
    add_table,
    add_what_is_scored,
    checked_device,
    comma_list,
    read_encoder,
    read_regions,
    read_saes,
    with_cards,
)
from medsae_plugin.cli.commands import GOES_ON, Commands
from medsae_plugin.cli.held_out import add_held_out, read_other, read_scene
from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from medsae_plugin.data.regions import Regions
    from medsae_plugin.scores.elsewhere import Scene


def add(commands: Commands) -> None:
    commands.add(
        "localize",
        run,
        _arguments,
        help="where latents fire, against masks and boxes of findings",
        description="The maps of each finding's top latents against its regions, on held-out patients; beside other "
        "patients' regions, an untrained SAE and raw neurons. Of a hook with positions the store must keep all; at any "
        "other hook, maps are made over pixels (--maps gradient or occlusion).",
        interrupted=GOES_ON,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_what_is_scored(parser)
    add_held_out(parser, folds=False)
    add_table(parser, required=True)
    add_regions(parser, required=True)
    parser.add_argument(
        "--select-regions",
        type=Path,
        metavar="PATH",
        help="masks or boxes of the images of --select-from, for thresholds and sizes (default: none there)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="for the results; may be that of medsae evaluate"
    )
    parser.add_argument(
        "--latents", type=comma_list, default=[], metavar="A,B", help="more latents of every SAE, by number"
    )
    parser.add_argument(
        "--inside",
        metavar="FINDING",
        help="a region that every image may have, such as lungs: which latents fire outside of it",
    )
    parser.add_argument(
        "--maps",
        choices=("grid", "pixels", "gradient", "occlusion"),
        default="grid",
        help="score the cells of the hook's grid; the input's pixels, bilinear; or, of any hook, maps over pixels by "
        "gradient times activation or by occlusion, through --encoder (default: grid)",
    )
    with_cards(
        parser.add_argument("--encoder", metavar="ENCODER", help="the store's, by its card, for gradient and occlusion")
    )
    parser.add_argument("--weights", type=Path, help="its checkpoint (default: the card's source, fetched once)")
    parser.add_argument(
        "--stride",
        type=int,
        metavar="PIXELS",
        help="the side of a cell of gradient and occlusion (default: the least from 16 that divides the input)",
    )
    add_seed(parser, "of the untrained SAEs, and of other patients' regions")
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from medsae_plugin.localisation.score import score_regions

    if args.weights is not None and args.encoder is None:
        raise MedSAEError("--weights are those of --encoder; give that too")
    scene = read_scene(args)
    regions = _regions(args, scene)
    print(regions.describe(), file=sys.stderr)
    found = score_regions(
        scene.store,
        read_saes(args.saes),
        scene.table,
        regions,
        args.out,
        latents=args.latents,
        inside=args.inside,
        maps=args.maps,
        encoder=None if args.encoder is None else read_encoder(args),
        stride=args.stride,
        aggregate=args.aggregate,
        select=scene.select,
        report=scene.report,
        leave_out_trained=args.leave_out_trained,
        seed=args.seed,
        device=checked_device(args.device),
        progress=not args.quiet,
    )
    print(found)
    print(f"\nwritten: {found.file_at(args.out)}")


def _regions(args: argparse.Namespace, scene: Scene) -> Regions:
    """Those of the images to report on, and those of `--select-from`'s that `--select-regions` names.

    Raises:
        MedSAEError: `--select-regions` without `--select-from`; maps through the encoder with that, whose images are
            in two places; what `read_regions` refuses.
    """
    import numpy as np

    from medsae_plugin.data import regions as read
    from medsae_plugin.sae_folders import distinct_names

    if args.select_from is None:
        if args.select_regions is not None:
            raise MedSAEError("--select-regions are of the images of --select-from; give that too")
        regions = read_regions(args, scene.table)
        assert regions is not None
        return regions
    if args.maps in ("gradient", "occlusion"):
        raise MedSAEError(f"--maps {args.maps} opens the images again, which --select-from has in two places; leave it")
    mark = f"{distinct_names([args.select_from, args.store])[0]}: "
    own = np.flatnonzero(~scene.table.frame["path"].str.startswith(mark))
    regions = read_regions(args, scene.table.take(own))
    assert regions is not None
    if args.select_regions is None:
        return regions
    root = args.root if args.select_table is None else None
    table = read_other(args, args.select_table or args.table, args.select_from, root)
    return regions.beside(read.read_regions(args.select_regions, table), mark)
