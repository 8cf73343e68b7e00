"""Arguments that say which table or folder is read, and how; and what they stand for."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medsae_plugin.errors import MedSAEError

if TYPE_CHECKING:
    from medsae_plugin.data.regions import Regions
    from medsae_plugin.data.tables import ImageTable

_HUB = "hf:"  # begins the name of a Hugging Face data set


def add_table(parser: argparse.ArgumentParser, required: bool) -> None:
    """`--table` and how to read it."""
    group = parser.add_argument_group("the label table")
    group.add_argument(
        "--table",
        type=Path,
        metavar="CSV",
        required=required,
        help="a known data set's table, any CSV (packed or not) or Parquet with a path column, or a Hugging Face "
        "data set (hf:org/name, hf:org/name:config, hf:FOLDER)",
    )
    add_reading(group)


def add_reading(group: argparse._ActionsContainer) -> None:
    """How to read a table."""
    _add_columns(group)
    _add_meanings(group)


def _add_columns(group: argparse._ActionsContainer) -> None:
    """Which column is what, and which rows are wanted."""
    group.add_argument(
        "--root", type=Path, metavar="DIR", help="the folder that the table's paths start from (default: the table's)"
    )
    group.add_argument("--path-column", metavar="NAME", help="the column of image paths (default: found by name)")
    group.add_argument(
        "--patient-column", metavar="NAME", help="the column of patients (default: found by name, else the path)"
    )
    group.add_argument(
        "--patients-from", metavar="REGEX", help="find the patient in each path: the first group of this pattern"
    )
    group.add_argument("--patients-are-images", action="store_true", help="every image is of another patient")
    group.add_argument(
        "--split-column",
        metavar="NAME",
        help="the column of the split (default: one that says train, val, test and the like)",
    )
    group.add_argument(
        "--labels",
        type=comma_list,
        metavar="A,B",
        help="the label columns (default: CheXpert's, or those called by a known finding)",
    )
    group.add_argument(
        "--split-file",
        dest="split_files",
        metavar="SPLIT=FILE",
        type=_split_file,
        action="append",
        default=[],
        help="the images of a split, one a line, as official splits are published; may be repeated (default: NIH's "
        "lists, where they lie beside its table)",
    )
    group.add_argument("--where", metavar="CONDITION", help="the images to take: \"view == 'Frontal' and age > 18\"")
    group.add_argument("--report-column", metavar="NAME", help="the column of report texts (default: none is read)")


def _add_meanings(group: argparse._ActionsContainer) -> None:
    """What the table is, and what its cells mean."""
    group.add_argument(
        "--uncertain",
        choices=("ignore", "zeros", "ones"),
        default="ignore",
        help="what -1 counts as (default: ignore, unknown)",
    )
    group.add_argument(
        "--dialect",
        metavar="NAME",
        help="what the table is: chexpert (an empty label is 0), plain (unknown), mimic-cxr, nih, openi, padchest, "
        "rsna, siim, vindr, or one of your own (--import); default: by its columns",
    )
    group.add_argument(
        "--data-set",
        metavar="NAME",
        help="what the images are of, as in `trained_on` of encoders' cards (default: by the table's dialect)",
    )
    group.add_argument(
        "--readers",
        choices=("majority", "any", "all"),
        default="majority",
        help="how many readers it takes, where each has a row (default: majority)",
    )
    group.add_argument(
        "--image-format",
        choices=("jpg", "png", "dicom"),
        help="which files, where a data set has its images in several formats (default: those that are there)",
    )
    group.add_argument(
        "--chexpert-names",
        action="store_true",
        help="call labels as CheXpert does where they mean the same (Effusion: Pleural Effusion)",
    )


def add_folder(parser: argparse._ActionsContainer) -> None:
    """`--images`, and how to read a folder of DICOM files."""
    parser.add_argument("--images", type=Path, metavar="DIR", help="a folder of images, where there is no table")
    group = parser.add_argument_group("a folder of DICOM files, as an archive gives it")
    group.add_argument(
        "--dicom-tags",
        action="store_true",
        help="take the radiographs below --images; patients, sex, age, projection, device, site are from the headers",
    )
    group.add_argument("--series-description", metavar="REGEX", help="those series alone whose description has this")
    group.add_argument(
        "--keep-ids", action="store_true", help="patients by their Patient ID (default: by a salted hash of it)"
    )


def add_regions(parser: argparse._ActionsContainer, required: bool = False) -> None:
    """`--regions`, and how to read them."""
    parser.add_argument(
        "--regions",
        type=Path,
        metavar="PATH",
        required=required,
        help="masks or boxes of findings: the truth of medsae phantoms, CheXlocalize's JSON, the boxes of NIH, RSNA or "
        "VinDr, SIIM's run lengths, COCO's JSON, a folder of mask images",
    )
    parser.add_argument(
        "--region-format",
        metavar="NAME",
        help="phantoms, chexlocalize, chexlocalize-rle, nih, rsna, vindr, siim, coco, masks, or one of your own "
        "(--import); default: by what is in it",
    )


def read_regions(args: argparse.Namespace, table: ImageTable) -> Regions | None:
    """The regions that `add_regions`' arguments name, of the table's images; None where none are named.

    Raises:
        MedSAEError: `--region-format` without `--regions`, and what `read_regions` refuses.
    """
    from medsae_plugin.data import regions

    if args.regions is None:
        if args.region_format is not None:
            raise MedSAEError("--region-format says how --regions is written; give that too")
        return None
    return regions.read_regions(args.regions, table, format=args.region_format)


def read_table(args: argparse.Namespace) -> ImageTable:
    """The table that `add_table`'s arguments name, told on stderr; its paths like those of the store, if there is one.

    Raises:
        MedSAEError: `--patients-from` and `--patients-are-images` together, and what `read_table` refuses.
    """
    table = understood_table(args)
    print(table.describe(), file=sys.stderr)
    return table


def understood_table(args: argparse.Namespace) -> ImageTable:
    """As `read_table`, without a word."""
    from medsae_plugin.data import tables

    _check_patients(args)
    if args.table.as_posix().startswith(_HUB):
        return _hub_table(args)
    return tables.read_table(
        args.table,
        root=args.root,
        path_column=args.path_column,
        patient_column=args.patient_column,
        patients_from=args.patients_from,
        patients_are_images=args.patients_are_images,
        split_column=args.split_column,
        split_files=dict(args.split_files),
        label_columns=args.labels,
        report_column=args.report_column,
        uncertain=args.uncertain,
        dialect=args.dialect,
        readers=args.readers,
        image_format=args.image_format,
        chexpert_names=args.chexpert_names,
        where=args.where,
        known_paths=_store_paths(args),
        data_set=args.data_set,
    )


def _hub_table(args: argparse.Namespace) -> ImageTable:
    """The Hugging Face data set that `--table hf:...` names."""
    from medsae_plugin.data.hub_tables import load_hub_dataset, read_dataset

    given = [
        name for name in ("root", "patients_from", "split_files", "dialect", "image_format") if getattr(args, name)
    ]
    if given:
        raise MedSAEError(f"--{given[0].replace('_', '-')} is of tables in files; {args.table} is a data set")
    name = args.table.as_posix().removeprefix(_HUB)
    table = read_dataset(
        load_hub_dataset(name),
        image_column=args.path_column,
        patient_column=args.patient_column,
        patients_are_images=args.patients_are_images,
        split_column=args.split_column,
        label_columns=args.labels,
        report_column=args.report_column,
        uncertain=args.uncertain,
        chexpert_names=args.chexpert_names,
        where=args.where,
        name=_HUB + name,
    )
    return replace(table, data_set=args.data_set or "")


def understood(args: argparse.Namespace, table_word: str = "--table CSV") -> ImageTable:
    """The table (`table_word` in the command's words), or the images of the folder `--images`; nothing is printed.

    Raises:
        MedSAEError: both or neither; as `read_table`.
    """
    from medsae_plugin.data.dicom_folders import scan_dicom
    from medsae_plugin.data.tables import scan_folder

    if (args.table is None) == (args.images is None):
        raise MedSAEError(f"give either {table_word} or --images DIR")
    if not args.dicom_tags and (args.series_description is not None or args.keep_ids):
        raise MedSAEError("--series-description and --keep-ids are of a folder read by its headers (--dicom-tags)")
    if args.table is not None:
        if args.dicom_tags:
            raise MedSAEError("--dicom-tags is of a folder (--images DIR), not of a table")
        return understood_table(args)
    _check_patients(args)
    if args.dicom_tags:
        options = {"series_description": args.series_description, "keep_ids": args.keep_ids}
        table = scan_dicom(args.images, **options, workers=file_workers(args), progress=not args.quiet)
    else:
        table = scan_folder(args.images, patients_from=args.patients_from, patients_are_images=args.patients_are_images)
    return table if args.where is None else table.where(args.where)


def file_workers(args: argparse.Namespace) -> int:
    """`--workers`, or a process a core."""
    from medsae_plugin.machine import cores

    return cores() if args.workers is None else args.workers


def _check_patients(args: argparse.Namespace) -> None:
    if args.patients_are_images and (args.patients_from or args.patient_column):
        raise MedSAEError("--patients-are-images says that there is no other patient to find; leave one out")
    if args.patients_from and args.patient_column:
        raise MedSAEError("give either --patient-column or --patients-from")


def _store_paths(args: argparse.Namespace) -> list[str] | None:
    """The paths of a store's images, where the command has one; what is wrong with it is said by who opens it."""
    if getattr(args, "store", None) is None:
        return None
    from medsae_plugin.store import ActivationStore

    try:
        return list(ActivationStore(args.store).images["path"])
    except MedSAEError:
        return None


def _split_file(text: str) -> tuple[str, Path]:
    """`test=test_list.txt` as a split and a file."""
    split, equals, file = text.partition("=")
    if not (split.strip() and equals and file.strip()):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form SPLIT=FILE, such as test=test_list.txt")
    return split.strip(), Path(file.strip())


def comma_list(text: str) -> list[str]:
    """`a, b` as `["a", "b"]`."""
    return [part.strip() for part in text.split(",") if part.strip()]
