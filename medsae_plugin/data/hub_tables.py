"""Hugging Face data sets as tables of images: local, cached, or streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from medsae_plugin.data.dialects import PLAIN, Shaped, key
from medsae_plugin.data.dialects.base import listed
from medsae_plugin.data.dialects.cells import says_yes_or_no
from medsae_plugin.data.splits import named_splits
from medsae_plugin.data.table_files import RawTable
from medsae_plugin.data.table_parts import Uncertain, Wanted
from medsae_plugin.data.tables import ImageTable, table_of
from medsae_plugin.errors import MedSAEError, reason_of
from medsae_plugin.fetch import unreachable
from medsae_plugin.files import make_folder, replacing

_MOST_CLASSES = 200  # that a column of words may have; more are ids or texts


@dataclass(frozen=True)
class DatasetFolder:
    """The images of a data set as files of a folder: `folder / path` is an image, whose bytes the data set has.

    parts: by split, rows whose `column` holds an image's bytes or its path.
    """

    name: str
    parts: Mapping[str, Any]
    column: str

    def __truediv__(self, path: str) -> DatasetImage:
        return DatasetImage(self, path)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class DatasetImage:
    """An image of a `DatasetFolder`."""

    folder: DatasetFolder
    path: str

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    def read_bytes(self) -> bytes:
        """Raises OSError where the image is a file that cannot be read, or the row has none."""
        split, _, number = self.path.rpartition("/")
        return _content(self.folder.parts[split][int(PurePosixPath(number).stem)][self.folder.column])

    def __str__(self) -> str:
        return f"{self.folder}/{self.path}"


def load_hub_dataset(name: str) -> Any:
    """A data set by its folder here, or its name on the Hub, from the cache where it is there: `org/name[:config]`.

    Raises:
        MedSAEError: there is none, no leave to read it, no connection, or one that runs code of its own.
    """
    import datasets

    repo, _, config = name.partition(":")
    folder = Path(name)
    reason = None if folder.is_dir() else unreachable()
    online = datasets.config.HF_HUB_OFFLINE
    try:
        datasets.config.HF_HUB_OFFLINE = online or reason is not None  # the cache at once, not after many tries
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            return datasets.load_from_disk(name)
        return datasets.load_dataset(name) if folder.is_dir() else datasets.load_dataset(repo, config or None)
    except MemoryError:
        raise
    except Exception as error:  # datasets raises of each library that it is made of
        why = f"the Hub cannot be reached ({reason}), and it is not in the cache" if reason else reason_of(error)
        raise MedSAEError(f"the data set {name!r} cannot be loaded: {why}") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = online


def read_dataset(
    dataset: Any,
    *,
    image_column: str | None = None,
    patient_column: str | None = None,
    patients_are_images: bool = False,
    split_column: str | None = None,
    label_columns: Sequence[str] | None = None,
    report_column: str | None = None,
    uncertain: Uncertain = "ignore",
    chexpert_names: bool = False,
    where: str | None = None,
    keep: str | Path | None = None,
    name: str = "data set",
) -> ImageTable:
    """A `datasets.Dataset` with an image column, or a `DatasetDict` of splits, as a table of images.

    Images are read from the data set, and nothing is copied. A streamed one (`IterableDataset`) can be read once alone:
    its images are kept in the folder `keep` as they come.

    Args:
        image_column: default the one column of images.
        patient_column: default `patient_id` or a like name.
        patients_are_images: every image is of another patient; where there is no patient column, this must be said.
        split_column: default the splits of a `DatasetDict`, else a column as of tables.
        label_columns: default all of class labels, or sequences of them, and those called by a known finding. A class
            label is as many labels as it has classes (one, where they are no and yes); a column of words that is named
            here likewise.
        report_column: the column of reports or captions; default none.
        uncertain, chexpert_names, where: as `read_table`.
        name: what messages call it.

    Raises:
        MedSAEError: not a data set, no image column or several, no patients, a named column that is not there, a
            streamed one without `keep`, and what `read_table` refuses.
    """
    parts = _parts(dataset, name)
    features = _features(next(iter(parts.values())), name)
    image = _image_column(features, image_column, name)
    if is_streamed := any(not hasattr(part, "__len__") for part in parts.values()):
        if keep is None:
            raise MedSAEError(
                f"{name} is streamed, and can be read once alone: give a folder that keeps its images (keep)"
            )
        columns, paths, splits = _streamed(parts, image, Path(keep))
    else:
        columns, paths, splits = _at_hand(parts, image)
    root = Path(keep) if is_streamed and keep is not None else _folder(name, parts, image)
    texts = {column: _texts(values) for column, values in columns.items() if not _is_nested(values)}
    nested = tuple(column for column in columns if column not in texts)
    raw = RawTable(Path(name), pd.DataFrame(texts, dtype=str), [f"row {row + 1}" for row in range(len(paths))], nested)
    labels, used = _labels(columns, features, label_columns, name)
    made: dict[str, tuple[Sequence[object], str]] = {"path": (paths, f"column {image}")}
    if len(parts) > 1 and split_column is None:
        made["split"] = splits, "the data set's own"
    own = None if label_columns is None else [c for c in label_columns if c not in used] + [*labels]
    shaped = Shaped(raw, made, labels, f"columns {', '.join(used)}", used)
    wanted = Wanted(
        patient_column=patient_column,
        patients_are_images=patients_are_images,
        split_column=split_column,
        label_columns=own,
        report_column=report_column,
        uncertain=uncertain,
        chexpert_names=chexpert_names,
    )
    if not patients_are_images and patient_column is None and not _has_patients(texts):
        raise MedSAEError(
            f"{name} names no patient in its columns ({', '.join(columns)}): name the one that does (patient_column, "
            "--patient-column), or say that no patient has two images (patients_are_images, --patients-are-images)"
        )
    table = table_of(shaped, PLAIN, "a data set of Hugging Face's", root, wanted)
    return table if where is None else table.where(where, raw.frame)


def _parts(dataset: Any, name: str) -> dict[str, Any]:
    """The splits of a data set by the names used here."""
    import datasets

    if isinstance(dataset, datasets.DatasetDict | datasets.IterableDatasetDict):
        return dict(zip(named_splits(list(map(str, dataset))), dataset.values(), strict=True))
    if isinstance(dataset, datasets.Dataset | datasets.IterableDataset):
        return {named_splits([str(dataset.split)])[0] if dataset.split is not None else "all": dataset}
    raise MedSAEError(f"{name} is a {type(dataset).__name__}, and no datasets.Dataset or DatasetDict")


def _features(part: Any, name: str) -> Any:
    if part.features is None:
        raise MedSAEError(f"{name} does not say what its columns are; load it with features")
    return part.features


def _image_column(features: Any, named: str | None, name: str) -> str:
    import datasets

    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    if named is not None:
        if named not in images:
            raise MedSAEError(f"{name} has no image column {named!r}; of images are {', '.join(images) or 'none'}")
        return named
    if len(images) != 1:
        found = (
            f"several image columns ({', '.join(images)}): name the one that is meant" if images else "no image column"
        )
        raise MedSAEError(f"{name} has {found}; its columns are {', '.join(features)}")
    return images[0]


def _undecoded(part: Any, image: str) -> Any:
    import datasets

    return part.cast_column(image, datasets.Image(decode=False))


def _folder(name: str, parts: Mapping[str, Any], image: str) -> DatasetFolder:
    return DatasetFolder(name, {s: _undecoded(part.select_columns([image]), image) for s, part in parts.items()}, image)


def _at_hand(parts: Mapping[str, Any], image: str) -> tuple[dict[str, list[Any]], list[str], list[str]]:
    """All columns but the image, and of each row its path and split."""
    columns: dict[str, list[Any]] = {}
    paths, splits = list[str](), list[str]()
    for split, part in parts.items():
        others = [column for column in part.column_names if column != image]
        values: Any = part.select_columns(others).with_format("arrow")[:] if others else None
        for column in others:
            columns.setdefault(column, []).extend(values[column].to_pylist())
        paths += [f"{split}/{row:08d}.png" for row in range(len(part))]
        splits += [split] * len(part)
    return columns, paths, splits


def _streamed(parts: Mapping[str, Any], image: str, keep: Path) -> tuple[dict[str, list[Any]], list[str], list[str]]:
    columns: dict[str, list[Any]] = {}
    paths, splits = list[str](), list[str]()
    for split, part in parts.items():
        make_folder(keep / split)
        for row, example in enumerate(_examples(part, image)):
            content = _content(example.pop(image))
            path = f"{split}/{row:08d}.png"
            if not (keep / path).is_file() or (keep / path).stat().st_size != len(content):
                with replacing(keep / path) as temporary:
                    temporary.write_bytes(content)
            for column, value in example.items():
                columns.setdefault(column, []).append(value)
            paths.append(path)
            splits.append(split)
    if not paths:
        raise MedSAEError("the streamed data set has no rows")
    return columns, paths, splits


def _examples(part: Any, image: str) -> Iterator[dict[str, Any]]:
    try:
        for example in _undecoded(part, image):
            yield dict(example)
    except (MedSAEError, MemoryError):
        raise
    except Exception as error:  # of the network, of each format that is streamed
        raise MedSAEError(f"the stream broke off: {reason_of(error)}; run it again") from error


def _content(image: Mapping[str, Any] | None) -> bytes:
    """An undecoded image's bytes.

    Raises:
        OSError: it is a file that cannot be read, or there is none.
    """
    if image is None or (image.get("bytes") is None and not image.get("path")):
        raise OSError(0, "the row has no image")
    content: bytes | None = image.get("bytes")
    if content is not None:
        return content
    if "://" not in image["path"]:
        return Path(image["path"]).read_bytes()
    import fsspec

    with fsspec.open(image["path"], "rb") as file:
        return bytes(file.read())


def _is_nested(values: list[Any]) -> bool:
    return any(isinstance(value, list | dict | bytes | np.ndarray) for value in values)


def _texts(values: list[Any]) -> list[str]:
    """Cells as a table would have them."""
    return ["" if value is None or value != value else str(value) for value in values]


def _has_patients(columns: Mapping[str, object]) -> bool:
    from medsae_plugin.data.columns import PATIENTS

    return any(key(column) in PATIENTS for column in columns)


def _labels(
    columns: Mapping[str, list[Any]], features: Any, named: Sequence[str] | None, name: str
) -> tuple[dict[str, Float[np.ndarray, " rows"]], tuple[str, ...]]:
    """The labels of class labels, of lists, and of words where named; and the columns that they are of."""
    if named is not None and (missing := [column for column in named if column not in columns]):
        raise MedSAEError(f"{name} has no label column {missing[0]!r}; it has {', '.join(columns)}")
    found: dict[str, dict[str, Float[np.ndarray, " rows"]]] = {}
    for column in columns if named is None else named:
        classes = _classes(features[column])
        if classes is not None:
            found[column] = _of_classes(column, columns[column], classes)
        elif named is not None and (words := _words(columns[column])) is not None:
            found[column] = listed(words)
    all_names = [label for labels in found.values() for label in labels]
    twice = {label for label in all_names if all_names.count(label) > 1}
    return {
        f"{column}: {label}" if label in twice else label: values
        for column, labels in found.items()
        for label, values in labels.items()
    }, tuple(found)


def _classes(feature: Any) -> list[str] | None:
    """The names of a class label's classes, or of a sequence's."""
    inner = getattr(feature, "feature", feature)
    inner = inner[0] if isinstance(inner, list) and len(inner) == 1 else inner
    return list(inner.names) if type(inner).__name__ == "ClassLabel" else None


def _of_classes(column: str, values: list[Any], classes: list[str]) -> dict[str, Float[np.ndarray, " rows"]]:
    """-1 and None, which say that a row has no label, are unknown."""
    if len(classes) == 2 and says_yes_or_no(classes) and not _is_nested(values):
        yes = says_yes_or_no(classes)
        return {column: np.array([np.nan if v is None or v < 0 else float(classes[v] == yes) for v in values])}
    rows: list[list[str] | None] = []
    for value in values:
        codes = value if isinstance(value, list) else [value]
        unknown = value is None or any(code is None or code < 0 for code in codes)
        rows.append(None if unknown else [classes[code] for code in codes])
    return listed(rows, classes)


def _words(values: list[Any]) -> list[list[str] | None] | None:
    """Lists of words, or a word a row; None where they are numbers, 0 and 1, yes and no, or too many to be classes."""
    if not _is_nested(values):
        filled = {value for value in values if value is not None and value != ""}
        if not all(isinstance(value, str) for value in filled) or says_yes_or_no(filled):
            return None
        values = [None if value is None or value == "" else [value] for value in values]
    rows = [None if value is None else list(map(str, value)) for value in values]
    classes = {word for row in rows for word in row or ()}
    if len(classes) > _MOST_CLASSES:
        raise MedSAEError(
            f"a label column of {len(classes):,} different words is none of classes, such as {min(classes)!r}"
        )
    return rows
