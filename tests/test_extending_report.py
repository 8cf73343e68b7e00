"""From outside the package: a figure is declared in one function, a view is one file, and a report shows both."""

import json
import re
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from helpers import chromium
from helpers.small_run import LABELS, SmallRun
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from medsae_plugin import MedSAEError, evaluate
from medsae_plugin.cli import main
from medsae_plugin.report import open_run, write_report
from medsae_plugin.scores import Resampling
from medsae_plugin.scores.registry import METRICS

FIGURES = """
import numpy as np
from medsae_plugin.scores import metric

@metric("peakedness", title="peak", words="peak over its share", per="latent", unit="times", digits=".1f",
        show=["report"])
def peakedness(s):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(s["density"] > 0, s.report.maximum / s["density"], np.nan)

@metric("r_squared", title="r squared", per="label", better="higher", digits=".1%", show=["report"])
def r_squared(s):
    return s["r"] ** 2

@metric("silent", title="silent latents", per="sae", digits=".0f", show=["report"])
def silent(s):
    return float((s["density"] == 0).sum())
"""
NAMES = ("peakedness", "r_squared", "silent")
VIEW = """
// The peaks of the SAE's latents; draws nothing of its own but text.
const theme = "a name that frame.js has too", list = [];
view("peaks", { title: "Peaks", draw: (place) => {
  const sae = data.saes[place || state.sae], m = data.metrics.find((x) => x.name === "peakedness");
  const peaks = latentsOf(data.saes.indexOf(sae)).items.map((x) => h("li", {}, figure(m, valueOf(sae, m, x))));
  return [h("h1", {}, "Peaks of ", theirs(sae.name)), h("ol", {}, peaks)];
} });
"""


@pytest.fixture(scope="module")
def declared(tmp_path_factory) -> Iterator[None]:
    """The figures, from a module outside of the package."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "outside_figures.py").write_text(FIGURES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        import_module("outside_figures")
    yield
    for name in NAMES:
        del METRICS[name]


@pytest.fixture(scope="module")
def scores(small_run, declared, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("scores")
    saes = sorted(p.parent for p in small_run.sweep.glob("passes/*/*/cfg.json"))[:2]
    evaluate(small_run.store, saes, small_run.table, out, resampling=Resampling(20, 50, 0), progress=False)
    return out


@pytest.fixture(scope="module")
def page(small_run, scores, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "peaks.js").write_text(VIEW)
    return write_report(scores, folder / "report.html", table=small_run.table, views=[folder])


@pytest.fixture
def driver(page, request) -> Iterator[Chrome]:
    if reason := chromium.missing():
        pytest.skip(reason)
    with chromium.browser(getattr(request, "param", 1280)) as driver:
        driver.get(page.as_uri())
        yield driver
        assert [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def visit(driver: Chrome, place: str) -> None:
    driver.execute_script("location.hash = arguments[0]", f"#/{place}")
    end = time.monotonic() + 10
    while driver.find_element(By.ID, "main").get_attribute("data-view") != place.split("/")[0]:
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(0.1)  # the list draws itself after its view


def texts(driver: Chrome, selector: str) -> list[str]:
    return driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
    )


def data_of(page: Path) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found
    return json.loads(found[1])


def peaks(scores: Path, name: str) -> np.ndarray:
    """Of each latent the largest activation over the share of test images that it fires on, from the matrix itself."""
    sae = next(s for s in open_run(scores).saes if s.name == name)
    acts = sae.matrix.columns(0, sae.matrix.n_latents).toarray()[sae.matrix.images["split"].to_numpy() == "test"]
    with np.errstate(invalid="ignore", divide="ignore"):
        return acts.max(0) / (acts > 0).mean(0)


def test_the_page_lists_the_figures_with_their_values(page, scores):
    data = data_of(page)
    declared = {m["name"]: m for m in data["metrics"]}
    assert declared["peakedness"]["title"] == "peak" and declared["peakedness"]["words"] == "peak over its share"
    assert declared["r_squared"]["words"] == "r squared" and set(NAMES) <= set(declared)
    for sae in data["saes"]:
        found = np.array(sae["latents"]["peakedness"], dtype=float)
        np.testing.assert_allclose(found, peaks(scores, sae["name"]), rtol=6e-3)
        assert sae["silent"] == np.isnan(found).sum() and [x["kind"] for x in sae["beside"]] == ["neurons", "untrained"]
        for other in sae["beside"]:
            for o in other["observations"]:
                assert o["r_squared"] == pytest.approx(o["r"] ** 2)


def test_a_figure_is_in_the_list_and_sorts_it(driver, page, scores):
    visit(driver, "latents")
    heads = texts(driver, ".head > span")
    assert heads[-2:] == ["peak", "r squared"] or heads[-2:] == ["r squared", "peak"]
    place = heads.index("peak")
    driver.execute_script(f"document.querySelectorAll('.head button')[{place}].click()")
    rows = driver.execute_script(
        "return [...document.querySelectorAll('.item')].map(e => [...e.children].map(c => c.textContent))"
    )
    name = texts(driver, "#sae option")[int(driver.execute_script("return document.getElementById('sae').value"))]
    known = peaks(scores, name)
    expected = np.sort(known[~np.isnan(known)])[::-1]
    np.testing.assert_allclose([float(row[place]) for row in rows], expected[: len(rows)], atol=0.051, rtol=6e-3)
    assert "peak over its share" in texts(driver, ".tools option")
    # As many cells in each row as in the head, each under its own.
    lefts = driver.execute_script(
        "return ['.head', '.item'].map(s => [...document.querySelector(s).children].map("
        "c => Math.round(c.getBoundingClientRect().right)))"
    )
    assert lefts[0] == lefts[1]


def test_a_figure_is_on_a_latents_page_and_in_the_overview(driver, page):
    data = data_of(page)
    k = int(driver.execute_script("return document.getElementById('sae').value"))
    sae = data["saes"][k]
    heads = texts(driver, ".tops thead th")
    assert {"peak", "r squared"} <= set(heads)
    column = heads.index("r squared")
    cells = texts(driver, f".tops tbody tr > :nth-child({column + 1})")
    assert cells == [f"{100 * o['r'] ** 2:.1f} %" for o in sae["observations"]]
    assert f"Silent latents{sae['silent']:.0f}" in "".join(texts(driver, ".card"))
    assert "silent latents" in texts(driver, "main table:not(.tops) th")
    top = sae["observations"][0]["latent"]
    visit(driver, f"latent/{k}/{top}")
    cards = dict(zip(texts(driver, ".card dt"), texts(driver, ".card dd"), strict=True))
    assert cards["Peak over its share"] == f"{sae['latents']['peakedness'][top]:.1f}times"
    assert cards["r squared"].endswith(LABELS[0])
    assert any(t.startswith("r squared") for t in texts(driver, "main svg text"))


def test_a_view_is_a_file(driver, scores):
    assert texts(driver, "#tabs a") == ["Overview", "Latents", "Peaks", "About"]
    visit(driver, "peaks/1")
    name = texts(driver, "#sae option")[1]
    assert texts(driver, "h1") == [f"Peaks of {name}"]
    shown = [float(t) if t != "–" else np.nan for t in texts(driver, "main li")]
    np.testing.assert_allclose(shown, peaks(scores, name), atol=0.051, rtol=6e-3)
    assert texts(driver, "#tabs a[aria-current]") == ["Peaks"]


@pytest.mark.parametrize("driver", [390], indirect=True)
def test_on_a_narrow_screen_nothing_is_cut(driver):
    for place in ("overview", "latents", "latent/0/0", "peaks", "about"):
        visit(driver, place)
        assert driver.execute_script("return document.documentElement.scrollWidth") == 390, place
        cut = driver.execute_script("""
            return [...document.querySelectorAll('.card, .card *, .tops td, .tops th, .item .r, .item .track, .head *')]
              .filter(e => e.getClientRects().length)
              .filter(e => e.getBoundingClientRect().right > 390 || e.scrollWidth > e.clientWidth + 1 && e.clientWidth)
              .map(e => e.outerHTML)""")
        assert cut == [], place


@pytest.mark.skipif(chromium.missing() is not None, reason=str(chromium.missing()))
def test_a_view_that_fails_says_so_and_leaves_the_others(small_run: SmallRun, scores, tmp_path):
    (tmp_path / "a.js").write_text('view("broken", { title: "Broken", draw: () => missing.thing });')
    (tmp_path / "b.js").write_text('view("about", { title: "About us", draw: () => h("h1", {}, "Another page") });')
    path = write_report(scores, tmp_path / "r.html", views=[tmp_path / "b.js", tmp_path / "a.js"])
    with chromium.browser() as driver:
        driver.get(path.as_uri())
        visit(driver, "broken")
        assert texts(driver, "main > *") == [
            "This view could not be drawn",
            "ReferenceError: missing is not defined",
        ]
        visit(driver, "overview")
        assert len(texts(driver, ".tops tbody tr")) == len(LABELS)


def test_views_that_cannot_stand_in_a_page_are_refused(scores, tmp_path, capsys):
    arguments = ["report", str(scores), "--out", str(tmp_path / "r.html"), "--view"]
    assert main([*arguments, str(tmp_path / "none.js")]) == 1
    assert "there is no view at" in capsys.readouterr().err
    ending = tmp_path / "ending.js"
    ending.write_text('const a = 1;\nconst b = "</SCRIPT>";\n')
    with pytest.raises(MedSAEError, match=r"ending\.js:2: </SCRIPT would end the page's script"):
        write_report(scores, tmp_path / "r.html", views=[ending])
    assert not (tmp_path / "r.html").exists()
    ending.write_bytes(b"\xff\xfe")
    with pytest.raises(MedSAEError, match="cannot be read"):
        write_report(scores, tmp_path / "r.html", views=[ending])
