"""The report: one HTML file that opens from disk and asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsae_plugin._version import __version__
from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, write_text
from medsae_plugin.report.data import Images, pictures, report_data
from medsae_plugin.report.sources import Run, open_run

if TYPE_CHECKING:
    from medsae_plugin.data.regions import Regions
    from medsae_plugin.data.tables import ImageTable
    from medsae_plugin.store import ActivationStore

LIMIT = 15_000_000
"""Bytes that a report takes at most."""

_MARGIN = 10_000

# In the order in which they build on each other; they share one scope. Views from outside come before the last two.
_SCRIPTS = ("base.js", "charts.js", "overview.js", "list.js", "latent.js", "leaning.js", "comparison.js")
_LAST = ("about.js", "frame.js")

# What would end the script element or, in old parsers, a line; inside JSON strings they mean the same escaped.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def write_report(
    run: str | Path,
    out: str | Path,
    *,
    comparison: str | Path | None = None,
    saes: Sequence[str | Path] = (),
    names: Sequence[str | Path] = (),
    table: ImageTable | None = None,
    store: ActivationStore | None = None,
    images: str | Path | None = None,
    regions: Regions | None = None,
    views: Sequence[str | Path] = (),
) -> Path:
    """Write the report of an evaluation, a comparison, a sweep or a demo as one HTML file of at most 15 MB.

    It holds no path and, unless `images` is given, no image and nothing about a single image or patient. It says itself
    what was left out.

    Args:
        run, comparison, saes, names: see `open_run`.
        table: the label table, for how often an observation is present along a latent's firing range.
        store: where the activations came from; needed with `images`.
        images: the folder that the store's image paths start from, for a report that shows the strongest images, with
            the latent's heatmap where every position of its hook is stored and its SAE's folder is known.
        regions: outlined on the images that have any.
        views: views of your own beside the package's: JavaScript files, or folders of them, read in the order of their
            names. `templates/base.js` says what a view is.

    Raises:
        MedSAEError: what `open_run` refuses; images without their store, or that are not there; a view that is not
            there, or that cannot stand in a page.
    """
    own = [_script(file) for path in views for file in _view_files(Path(path))]
    opened = open_run(run, comparison=comparison, saes=saes, names=names)
    shown = None
    if images is not None:
        if store is None:
            raise MedSAEError("a report with images needs the store that the activations came from")
        shown = replace(_checked_images(opened, store, Path(images)), regions=regions)
    elif regions is not None:
        raise MedSAEError("regions are outlined on images; give these too")
    data, wanted = report_data(opened, shown, table)
    if shown:
        room = LIMIT - len(_render(opened, data, own).encode()) - _MARGIN
        data["images"]["pictures"], data["images"]["outlines"] = pictures(opened, shown, wanted, room)
    out = Path(out)
    make_folder(out.parent)
    write_text(out, _render(opened, data, own))
    return out


def _checked_images(run: Run, store: ActivationStore, root: Path) -> Images:
    expected = {s.matrix.manifest.images_sha256 for s in run.saes}
    if store.manifest.images.sha256 not in expected:
        raise MedSAEError(f"{store.path} is not the store that this run was scored on")
    first = root / run.saes[0].matrix.images["path"].iloc[0]
    if not first.is_file():
        raise MedSAEError(f"there is no image at {first}; give the folder that the store's image paths start from")
    return Images(store, root)


def _render(run: Run, data: dict[str, Any], views: Sequence[str] = ()) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    folder = resources.files("medsae_plugin.report") / "templates"
    style = (folder / "report.css").read_text("utf-8")
    before, after = ([(folder / name).read_text("utf-8") for name in names] for names in (_SCRIPTS, _LAST))
    # In a block each, so that what a view defines stays its own.
    parts = "\n".join([*before, *(f"{{\n{view}\n}}" for view in views), *after])
    script = f'"use strict";\n(() => {{\n{parts}}})();\n'
    environment = Environment(
        loader=PackageLoader("medsae_plugin.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        title=", ".join(dict.fromkeys(s.encoder for s in run.saes)),
        version=__version__,
        # These three are the package's own files, the user's own views, and escaped JSON.
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(embedded(data)),
    )


def _view_files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.js")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise MedSAEError(f"there is no view at {path}; give a JavaScript file, or a folder of them")
    return files


def _script(path: Path) -> str:
    try:
        script = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MedSAEError(f"the view {path} cannot be read ({error})") from None
    if found := re.search(r"</script|<!--", script, re.IGNORECASE):
        line = script.count("\n", 0, found.start()) + 1
        raise MedSAEError(
            f"{path}:{line}: {found[0]} would end the page's script; write it in two parts, as '<' + '{found[0][1:]}'"
        )
    return script


def embedded(data: Any) -> str:
    """JSON that is safe inside a script element: no `<`, `>`, `&` and no line separators but escaped."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).translate(_ESCAPES)
