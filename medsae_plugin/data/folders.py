"""Image files under a folder: which there are, whose they are, and where the paths of a table start from."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

from medsae_plugin.data.formats import IMAGE_SUFFIXES, without_suffix
from medsae_plugin.data.images import ImageFolder
from medsae_plugin.data.splits import SPLIT_WORDS
from medsae_plugin.errors import MedSAEError

_NAME_PATIENTS = (
    "name them with --patients-from REGEX, whose first group is the patient in a path (such as '^([^/]+)/' where each "
    "has a folder), with a table's patient column, or say --patients-are-images where no patient has two images"
)
_MOST_TRIED, _MOST_FOLDERS = 100, 200


@dataclass(frozen=True)
class Layout:
    """How a data set's folders name patients: the first group of `pattern`, searched in each path."""

    name: str
    pattern: re.Pattern[str]


LAYOUTS = (
    Layout(
        "CheXpert's patient00001/", re.compile(r"(?:^|/)(patient(?!s[_-]?\d)[_-]?[a-z]*\d+[a-z]?)(?=[/_. -]|$)", re.I)
    ),
    Layout("MIMIC-CXR's p10/p10000001/", re.compile(r"(?:^|/)(p\d{8})(?=[/_])")),
    Layout("NIH ChestX-ray14's 00000001_000.png", re.compile(r"(?:^|/)(\d{8})_\d{3}\.[A-Za-z]+$")),
)
# A folder that is called by a patient's number: sub-01, P0001, 000123. A bare number may be a class, a year or a day.
_ID_FOLDER = re.compile(r"(?:(?:pat|pt|subject|subj|sub|case|person|pid|mrn|id)[_ -]?\d+|p?[_ -]?\d{3,})", re.I)
_DAY = re.compile(r"(?:19|20)\d\d(?:[01]\d[0-3]\d)?")


def find_images(root: Path) -> tuple[list[str], list[str]]:
    """The image files under a folder, sorted, relative to it, and what was left out of them, in words.

    Links are followed; what several lead to is read once, by its own name where it has one under the folder.

    Raises:
        MedSAEError: no folder, one that cannot be read, no image in it, a name that is not UTF-8.
    """
    if not root.is_dir():
        raise MedSAEError(f"{root} is not a folder")
    found: dict[str, str] = {}  # a link's own place, or the path: its real place
    left: dict[str, list[str]] = {}
    for path, real in _walk(root, left):
        found[path] = real
    own = {real for path, real in found.items() if not (root / path).is_symlink()}
    paths, seen = [], set(own)
    for path, real in sorted(found.items()):
        if (root / path).is_symlink():
            if real in seen:
                left.setdefault("links to images that were read already", []).append(path)
                continue
            seen.add(real)
        paths.append(path)
    if odd := [path for path in paths if not _is_utf8(path)]:
        raise MedSAEError(
            f"{root}: {len(odd)} file names are not UTF-8, such as {printable(odd[0])}; rename them (convmv does)"
        )
    if not paths:
        raise MedSAEError(f"{root} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return sorted(paths), [f"{len(names)} {what}, such as {printable(names[0])}" for what, names in left.items()]


def _walk(root: Path, left: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Image files, relative to the root, with their real places; folders by their own names before links to them."""
    pending, links, visited = [root], list[Path](), set[str]()
    while pending or links:
        folder = pending.pop() if pending else links.pop(0)
        real = os.path.realpath(folder)
        if real in visited:
            left.setdefault("links to folders that were read already", []).append(folder.relative_to(root).as_posix())
            continue
        visited.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise MedSAEError(f"{printable(str(folder))} cannot be read: {error.strerror}") from None
        for entry in entries:
            place, is_image = Path(entry.path), Path(entry.name).suffix.lower() in IMAGE_SUFFIXES
            relative = place.relative_to(root).as_posix()
            if entry.name.startswith("."):
                if is_image or entry.is_dir(follow_symlinks=False):
                    left.setdefault("hidden files or folders", []).append(relative)
            elif entry.is_dir():
                (links if entry.is_symlink() else pending).append(place)
            elif is_image and entry.is_file():
                yield relative, os.path.realpath(place) if entry.is_symlink() else posixpath.join(real, entry.name)
            elif is_image and entry.is_symlink():
                left.setdefault("links that lead nowhere", []).append(relative)


def patients_of(paths: Sequence[str], pattern: str | None, where: str) -> tuple[list[str], str]:
    """The patient of each path, and how that is known, in words.

    Args:
        pattern: a regular expression whose first group, or match, is the patient; default the layouts known here.

    Raises:
        MedSAEError: the pattern is none or does not match a path; no layout, or not every path follows it.
    """
    if pattern is not None:
        return _by_pattern(paths, pattern, where), f"by {pattern}"
    best: tuple[int, Layout | None, str] = (0, None, "")
    for layout in LAYOUTS:
        found = [layout.pattern.search(path) for path in paths]
        n = sum(match is not None for match in found)
        if n == len(paths):
            return [match[1] for match in found if match], f"from paths as {layout.name}"
        if n > best[0]:
            best = (n, layout, paths[found.index(None)])
    if (folders := _folder_each(paths)) is not None:
        return folders, f"from the paths, a folder a patient, such as {folders[0]}"
    n, nearest, stray = best
    if nearest is not None:
        raise MedSAEError(
            f"{where}: {len(paths) - n} of {len(paths)} paths name no patient as the others do ({nearest.name}), such "
            f"as {printable(stray)}; take them away, or {_NAME_PATIENTS}"
        )
    raise MedSAEError(
        f"{where}: no patient column, and none in the path {printable(paths[0])} (such as patient01234); "
        f"{_NAME_PATIENTS}"
    )


def _by_pattern(paths: Sequence[str], pattern: str, where: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise MedSAEError(f"--patients-from {pattern!r} is no regular expression: {error}") from None
    patients = []
    for path in paths:
        match = compiled.search(path)
        patient = match[1 if compiled.groups else 0] if match else None
        if not patient:
            raise MedSAEError(f"{where}: --patients-from {pattern!r} finds no patient in {printable(path)}")
        patients.append(patient)
    return patients


def _folder_each(paths: Sequence[str]) -> list[str] | None:
    """The patients, where at some level every path has a folder called by a patient's number."""
    parts = [path.split("/")[:-1] for path in paths]
    for level in range(min(map(len, parts))):
        names = {folders[level] for folders in parts}
        prefixes = {re.split(r"\d", name, maxsplit=1)[0].casefold() for name in names}
        days = all(map(_DAY.fullmatch, names))
        if len(names) > 1 and len(prefixes) == 1 and not days and all(map(_ID_FOLDER.fullmatch, names)):
            return [folders[level] for folders in parts]
    return None


def checked_paths(cells: Sequence[str], places: Sequence[str], root: Path, where: str) -> list[str]:
    """A table's paths, posix and relative to the root.

    Raises:
        MedSAEError: an empty cell, a path that is absolute or leads out of the root.
    """
    paths = []
    for cell, place in zip(cells, places, strict=True):
        text = cell.strip().replace("\\", "/")
        if not text:
            raise MedSAEError(f"{where}, {place}: a row without a path")
        if text.startswith("/") or ".." in text.split("/") or re.match(r"[A-Za-z]:|[A-Za-z][\w+.-]*://", text):
            raise MedSAEError(f"{where}, {place}: {cell!r} is outside the image root {root}; paths are relative to it")
        paths.append(posixpath.normpath(text))
    return paths


def check_no_path_twice(paths: Sequence[str], places: Sequence[str], where: str) -> None:
    """Raises MedSAEError where an image has two rows."""
    first: dict[str, int] = {}
    again = [(first[path], row) for row, path in enumerate(paths) if first.setdefault(path, row) != row]
    if again:
        one, other = again[0]
        raise MedSAEError(
            f"{where} names {paths[one]!r} twice ({places[one]} and {places[other]}); an image has one row, and "
            f"{len(again)} of {len(paths)} rows are of an image that came before (as where each reader has a row)"
        )


def fit_to_root(
    paths: list[str], root: Path, known: Collection[str] | None, where: str
) -> tuple[list[str], str | None]:
    """The paths as they start from the root, and what was changed, in words.

    As they are, if one of them is known (a store's, say) or a file. Otherwise what they all begin with is taken off, or
    a folder of the root put before, or both, where that leads to known images or to files, and in one way alone; a
    component that the root itself is called by is taken off in any case.

    Raises:
        MedSAEError: there is more than one way.
    """
    common = _common_folders(paths)
    ways = _ways(common, root)
    if known is not None:
        known = set(known)
        heads = {path.partition("/")[0] for path in known} | {""}
        fitting = [way for way in ways if way[1] in heads and any(_moved(path, *way) in known for path in paths)]
        if fitting:
            return _by_way(paths, common, _only(fitting, common, root, where))
    some = _some(paths)
    if _first_file(root, some) is not None:
        return paths, None
    by_file: dict[str, tuple[int, str]] = {}
    for way in ways:
        if (file := _first_file(root, (_moved(path, *way) for path in some))) is not None:
            by_file.setdefault(file, way)
    if by_file:
        return _by_way(paths, common, _only(list(by_file.values()), common, root, where))
    if _first_file(root, paths) is not None:
        return paths, None
    return _by_way(paths, common, (_named_as_root(common, root), ""))


def fit_by_name(
    paths: list[str], root: Path, known: Collection[str] | None, suffixes: Sequence[str], where: str
) -> tuple[list[str], str | None]:
    """The paths of the images of these names, wherever below the root they are, and what was done, in words.

    Those that are not there keep their path; if none is, nothing was done.

    Args:
        known: paths to look among, such as a store's; default the files below the root.
        suffixes: those that the images may have.

    Raises:
        MedSAEError: an image that is there several times.
    """
    by_name: dict[str, list[str]] = {}
    for path in known if known is not None else _files(root):
        if path.lower().endswith(tuple(suffixes)):
            by_name.setdefault(without_suffix(posixpath.basename(path)), []).append(path)
    names = [without_suffix(posixpath.basename(path)) for path in paths]
    if several := next((name for name in names if len(by_name.get(name, ())) > 1), None):
        places = by_name[several]
        hint = "which format with --image-format" if len({Path(p).suffix for p in places}) > 1 else "which with --root"
        raise MedSAEError(f"{where}: the image {several!r} is in {' and in '.join(sorted(places)[:3])}; say {hint}")
    moved = [by_name.get(name, [path])[0] for name, path in zip(names, paths, strict=True)]
    return moved, None if moved == paths else "found by the files' names"


def _files(root: Path) -> Iterator[str]:
    for folder, _, files in os.walk(root, followlinks=True):
        inside = Path(folder).relative_to(root).as_posix()
        yield from (file if inside == "." else f"{inside}/{file}" for file in files)


def any_file(root: Path | ImageFolder, paths: Sequence[str]) -> bool:
    """Whether one of these paths is a file, or an image of what stands for a folder."""
    if not isinstance(root, Path):
        return True
    return _first_file(root, _some(paths)) is not None or _first_file(root, paths) is not None


def _common_folders(paths: Sequence[str]) -> list[str]:
    """The folders that all paths begin with."""
    low, high = (path.split("/")[:-1] for path in (min(paths), max(paths)))
    return [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False))]


def _some(paths: Sequence[str]) -> list[str]:
    """Paths from all over the table, one of each of its folders among them."""
    spread = paths[:: max(1, len(paths) // _MOST_TRIED)]
    each = {tuple(path.split("/", 2)[:2]): path for path in paths}
    return list(dict.fromkeys([*spread, *islice(each.values(), _MOST_TRIED)]))


def _ways(common: Sequence[str], root: Path) -> list[tuple[int, str]]:
    """How many folders to take off the paths, and which of the root's to put before them."""
    names = {name for names in _names(root) for name in names[-len(common) - 1 :]}
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    ways = []
    for folder in ("", *(folders if len(folders) <= _MOST_FOLDERS else ())):
        for k in range(len(common) + 1):
            if k and folder == common[k - 1]:
                continue  # put back what was taken off
            # The images of one split are not those of another, though they may have the same names.
            if not {c for c in common[:k] if c.casefold() in SPLIT_WORDS} - names - {folder}:
                ways.append((k, folder))
    return ways


def _moved(path: str, k: int, folder: str) -> str:
    rest = "/".join(path.split("/")[k:]) if k else path
    return f"{folder}/{rest}" if folder else rest


def _by_way(paths: list[str], common: Sequence[str], way: tuple[int, str]) -> tuple[list[str], str | None]:
    k, folder = way
    if way == (0, ""):
        return paths, None
    off = [f"without {'/'.join(common[:k]) + '/'!r}"] if k else []
    put = [f"with {folder + '/'!r} before"] if folder else []
    return [_moved(path, k, folder) for path in paths], " and ".join(off + put)


def _only(ways: Sequence[tuple[int, str]], common: Sequence[str], root: Path, where: str) -> tuple[int, str]:
    if (0, "") in ways:
        return 0, ""
    if len(ways) > 1:
        places = " or ".join(str(root / folder / "/".join(common[k:])) for k, folder in ways)
        raise MedSAEError(f"{where}: its images could be those in {places}; say which with --root")
    return ways[0]


def _named_as_root(common: Sequence[str], root: Path) -> int:
    for k in range(len(common), 0, -1):
        if any(names[-k:] == list(common[:k]) for names in _names(root)) and not (root / common[0]).exists():
            return k
    return 0


def _names(root: Path) -> list[list[str]]:
    """The folders that lead to the root, as it is called and as it is, where it is a link."""
    return [list(Path(os.path.abspath(root)).parts), list(root.resolve().parts)]  # noqa: PTH100 (resolve follows links)


def _first_file(root: Path, paths: Iterable[str]) -> str | None:
    """The real place of the first of the paths that is a file."""
    for path in paths:
        file = f"{root}/{path}"
        if os.path.isfile(file):  # noqa: PTH113 (and False where a name is too long or odd)
            return os.path.realpath(file)
    return None


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """In quotes, and safe to print whatever it holds."""
    return repr(text.encode(errors="surrogateescape").decode(errors="backslashreplace"))
