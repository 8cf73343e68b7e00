"""The report in a real browser: headless Chromium opens the file from disk and uses it as a reader would."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import chromium
from helpers.small_run import HOSTILE, LABELS, NAMED, POSITIONS, N, SmallRun
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By

from medsae_plugin.report import open_run, write_report

pytestmark = pytest.mark.skipif(chromium.missing() is not None, reason=str(chromium.missing()))


@pytest.fixture(scope="module")
def run(small_run) -> SmallRun:
    return small_run


@pytest.fixture(scope="module")
def page(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(run.sweep, out, names=[run.names], table=run.table, store=run.store, images=run.images)


@pytest.fixture(scope="module")
def driver(page) -> Iterator[Chrome]:
    with chromium.browser() as driver:
        driver.get(page.as_uri())
        yield driver


@pytest.fixture(autouse=True)
def quiet(driver) -> Iterator[None]:
    """Each test starts at the overview of the named SAE, and none may leave an error or a request behind."""
    driver.get_log("browser"), driver.get_log("performance")
    names = [option.text for option in driver.find_elements(By.CSS_SELECTOR, "#sae option")]
    driver.execute_script(
        "const s = document.getElementById('sae'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))",
        str(names.index(NAMED)),
    )
    visit(driver, "overview")
    yield
    assert [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    sent = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith(("file:", "data:"))] == []


def visit(driver: Chrome, place: str) -> None:
    driver.execute_script("location.hash = arguments[0]", f"#/{place}")
    view = place.split("/")[0]
    wait(lambda: driver.find_element(By.ID, "main").get_attribute("data-view") == view)


def wait(condition, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def text(driver: Chrome, selector: str = "main") -> str:
    return driver.find_element(By.CSS_SELECTOR, selector).text


def rows(driver: Chrome) -> list[list[str]]:
    """The drawn rows of the list, from the top, each as the texts of its cells."""
    return driver.execute_script(
        "return [...document.querySelectorAll('.item')].map(e => [...e.children].map(c => c.textContent))"
    )


def count(driver: Chrome) -> int:
    return int(driver.find_element(By.CSS_SELECTOR, "[role=grid]").get_attribute("aria-rowcount"))


def chosen(driver: Chrome) -> int:
    return int(driver.find_element(By.CSS_SELECTOR, "[aria-selected=true]").get_attribute("aria-rowindex"))


def press(driver: Chrome, *keys: str) -> None:
    for key in keys:
        driver.switch_to.active_element.send_keys(key)


def figures_of(run: SmallRun):
    return next(s for s in open_run(run.sweep).saes if s.name == NAMED)


def test_it_opens_from_disk_ready_and_shows_the_figures(driver, run):
    assert driver.execute_script("return document.documentElement.dataset.ready") == "yes"
    sae = figures_of(run)
    shown = text(driver)
    assert NAMED in shown and f"{sae.scores.value('explained_variance'):.3f}" in shown
    for o in sae.scores.observations:
        r = "–" if o.value("r") is None else f"{o.value('r'):.2f}".replace("-", "−")
        assert o.label in shown and r in shown
    assert "untrained embedding-seed1" in shown and "neurons of hook_embedding" in shown
    assert len(driver.find_elements(By.CSS_SELECTOR, "main figure svg")) == 5  # density and four training curves


def test_search_sort_and_filter(driver, run):
    latents = figures_of(run).latents
    visit(driver, "latents")
    fires = latents[latents["density"] > 0]
    assert count(driver) == len(fires)
    best = latents[[f"r: {label}" for label in LABELS]].max(axis=1)
    expected = best[fires.index].sort_values(ascending=False, kind="stable").index
    shown = [int(row[0][1:]) for row in rows(driver)]
    assert [round(best[j], 2) for j in shown] == [round(best[j], 2) for j in expected[: len(shown)]]

    driver.find_element(By.ID, "dead").click()
    assert count(driver) == len(latents)
    driver.find_element(By.ID, "dense").click()
    assert count(driver) == (latents["density"] <= 0.1).sum()
    driver.find_element(By.ID, "dense").click()

    for column, key in ((4, "entropy"), (7, "monosemanticity"), (8, "density")):
        driver.execute_script(f"document.querySelectorAll('.head button')[{column}].click()")
        ascending = key == "entropy"
        known = latents[key].dropna().sort_values(ascending=ascending, kind="stable")
        top = [int(row[0][1:]) for row in rows(driver)][:5]
        assert [round(latents[key][j], 3) for j in top] == [round(v, 3) for v in known.iloc[:5]]

    search = driver.find_element(By.ID, "search")
    search.send_keys("#5")
    assert {row[0] for row in rows(driver)} >= {"#5"} and all("5" in row[0] for row in rows(driver))
    search.send_keys(Keys.BACKSPACE * 3, "devices quotes")
    assert [row[0] for row in rows(driver)] == ["#1"]
    search.send_keys(" nothing like it")
    assert count(driver) == 0 and "No latent fits" in text(driver)
    search.send_keys(Keys.BACKSPACE * 40)
    driver.find_element(By.ID, "dead").click()
    driver.execute_script("document.querySelectorAll('.head button')[2].click()")


def test_a_label_can_be_chosen_to_sort_by(driver, run):
    latents = figures_of(run).latents
    visit(driver, "latents")
    driver.execute_script(
        "const s = document.getElementById('label'); s.value = '1'; s.dispatchEvent(new Event('change'))"
    )
    top = int(rows(driver)[0][0][1:])
    assert latents["r: Fracture"][top] == latents["r: Fracture"].max()
    driver.execute_script(
        "const s = document.getElementById('label'); s.value = ''; s.dispatchEvent(new Event('change'))"
    )


def test_a_latent_opens_and_leads_back(driver, run):
    sae = figures_of(run)
    top = sae.scores.observations[0].latent
    driver.find_element(By.LINK_TEXT, next(a.text for a in driver.find_elements(By.CSS_SELECTOR, "main td a"))).click()
    wait(lambda: driver.find_element(By.ID, "main").get_attribute("data-view") == "latent")
    assert driver.execute_script("return location.hash").endswith(f"/{top}")
    shown = text(driver)
    assert "Correlation with each observation" in shown and "Firing range" in shown and "Nearest latents" in shown
    assert "top latent of Edema" in shown and "In other SAEs" in shown
    pictures = driver.find_elements(By.CSS_SELECTOR, ".pictures img")
    assert 1 <= len(pictures) <= 8
    assert all(driver.execute_script("return arguments[0].naturalWidth", p) == 128 for p in pictures)
    assert all("activation" in p.get_attribute("alt") for p in pictures)
    described = [s.get_attribute("aria-label") for s in driver.find_elements(By.CSS_SELECTOR, "main svg[role=img]")]
    assert len(described) == 2 and all(described)
    driver.find_element(By.ID, "back").click()
    wait(lambda: driver.find_element(By.ID, "main").get_attribute("data-view") == "latents")
    driver.back()
    wait(lambda: driver.find_element(By.ID, "main").get_attribute("data-view") == "latent")


def test_heatmaps_at_a_spatial_hook_show_where_it_fires(driver, run):
    """The planted features fire at one of four positions; the overlay's strongest cell is that position."""
    names = [option.text for option in driver.find_elements(By.CSS_SELECTOR, "#sae option")]
    place = names.index("stages.0.resid_post-seed0")
    sae = next(s for s in open_run(run.sweep).saes if s.name == "stages.0.resid_post-seed0")
    latent = sae.scores.observations[0].latent
    visit(driver, f"latent/{place}/{latent}")
    cells = driver.execute_script(
        "return [...document.querySelectorAll('.frame svg')].map(s => [...s.children].map(c =>"
        " [+c.getAttribute('x'), +c.getAttribute('y'), +c.getAttribute('opacity')]))"
    )
    test = sae.matrix.images["split"].to_numpy() == "test"
    strongest = (sae.matrix.column(latent) * test).argsort(kind="stable")[::-1]
    placed = np.random.default_rng(1).integers(0, POSITIONS, N)
    x, y, _ = max(cells[0], key=lambda cell: cell[2])
    assert 2 * y + x == placed[strongest[0]]
    assert driver.find_element(By.CSS_SELECTOR, ".frame svg").is_displayed()
    driver.find_element(By.ID, "overlay").click()
    assert not driver.find_element(By.CSS_SELECTOR, ".frame svg").is_displayed()
    driver.find_element(By.ID, "overlay").click()


def test_keyboard(driver):
    press(driver, "/")
    wait(lambda: driver.switch_to.active_element.get_attribute("id") == "search")
    press(driver, Keys.ESCAPE, "j", "j", "k")
    assert chosen(driver) == 2
    second = rows(driver)[1][0]
    press(driver, Keys.ENTER)
    wait(lambda: driver.find_element(By.ID, "main").get_attribute("data-view") == "latent")
    assert driver.execute_script("return location.hash").split("/")[-1] == second[1:]
    press(driver, "j")
    wait(lambda: driver.execute_script("return location.hash").split("/")[-1] != second[1:])
    press(driver, Keys.ESCAPE)
    wait(lambda: driver.find_element(By.ID, "main").get_attribute("data-view") == "latents")
    assert chosen(driver) == 3
    press(driver, "/", *"fracture", Keys.ENTER)
    wait(lambda: driver.find_element(By.ID, "main").get_attribute("data-view") == "latent")
    press(driver, Keys.ESCAPE)
    wait(lambda: driver.find_element(By.ID, "main").get_attribute("data-view") == "latents")
    assert driver.find_element(By.ID, "search").get_attribute("value") == "fracture"
    press(driver, Keys.ESCAPE)
    wait(lambda: driver.find_element(By.ID, "search").get_attribute("value") == "")
    for _ in range(40):
        press(driver, "j")
    assert chosen(driver) > 20  # far below the fold, and drawn


def test_hostile_names_are_text(driver):
    names = [option.text for option in driver.find_elements(By.CSS_SELECTOR, "#sae option")]
    place = names.index(NAMED)
    for latent, (concept, description) in HOSTILE.items():
        visit(driver, f"latent/{place}/{latent}")
        wait(lambda latent=latent: f"Latent {latent}." in text(driver))
        safe = concept.replace("\u202e", "[U+202E]")
        assert driver.execute_script("return document.querySelector('h1').textContent") == safe
        assert description in driver.execute_script("return document.querySelector('.sub').textContent")
    visit(driver, "latents")
    driver.find_element(By.ID, "search").send_keys("alert")
    assert rows(driver)[0][1].startswith("<script>alert(1)</script>")
    driver.find_element(By.ID, "search").send_keys(Keys.BACKSPACE * 5)
    assert driver.execute_script("return document.scripts.length") == 2
    assert (
        driver.execute_script("return document.querySelectorAll('main img[onerror], main b b, main i i').length") == 0
    )
    visit(driver, "overview")
    assert "No <b>Finding</b>" in text(driver)


def test_the_comparison_and_what_is_left_out(driver, run):
    visit(driver, "compare")
    shown = text(driver)
    for heading in ("Where an observation becomes visible", "What becomes of latents", "Stability across seeds"):
        assert heading in shown
    labels = [s.get_attribute("aria-label") for s in driver.find_elements(By.CSS_SELECTOR, "main svg[role=img]")]
    assert any(label.startswith("Flow of latents") for label in labels) and len(labels) == 3
    visit(driver, "about")
    assert "This file holds images and labels of patients" in text(driver)


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_screen_has_no_sideways_scrolling_and_follows_the_scheme(page, dark):
    with chromium.browser(390, 844, dark) as narrow:
        narrow.get(page.as_uri())
        for view in ("overview", "latents", "latent/0/0", "compare", "about"):
            visit(narrow, view)
            assert narrow.execute_script("return document.documentElement.scrollWidth") == 390, view
        light = "rgb(255, 255, 255)"
        colour = "return getComputedStyle(document.body).backgroundColor"
        assert (narrow.execute_script(colour) != light) == dark
        narrow.find_element(By.ID, "theme").click()
        assert (narrow.execute_script(colour) == light) == dark
        assert [e for e in narrow.get_log("browser") if e["level"] == "SEVERE"] == []


@pytest.mark.parametrize("width", [390, 1280])
def test_the_whole_scale_of_r_is_in_sight(page, run, width):
    """Of every observation: the scale and its dots lie within the screen and whatever clips them, left to right."""
    with chromium.browser(width, 844) as driver:
        driver.get(page.as_uri())
        found = driver.execute_script("""
            return [...document.querySelectorAll('.scale svg')].map(svg => {
              let left = 0, right = document.documentElement.clientWidth;
              for (let e = svg.parentElement; e; e = e.parentElement) {
                if (getComputedStyle(e).overflowX === 'visible') continue;
                const box = e.getBoundingClientRect();
                left = Math.max(left, box.left); right = Math.min(right, box.right);
              }
              const box = svg.getBoundingClientRect(), dots = [...svg.querySelectorAll('circle')];
              return [left, box.left, box.right, right, Math.max(...dots.map(d => d.getBoundingClientRect().right))];
            })""")
        assert len(found) == len(LABELS)
        for left, start, end, right, last in found:
            assert left <= start < start + 180 < end <= right and last <= right
        cells = driver.find_elements(By.CSS_SELECTOR, ".tops tbody tr:first-child > *")
        assert all(cell.is_displayed() for cell in cells) and len(cells) == 14


def test_what_a_latent_follows_is_said_only_above_chance(run, tmp_path):
    """r, fdr and p as written here: a latent follows what it goes with, above chance by each figure there is."""
    scores = shutil.copytree(run.sweep / "comparison" / "scores", tmp_path / "scores")
    frame = pd.read_parquet(scores / "latents.parquet")
    metrics = json.loads((scores / "metrics.json").read_text())
    known = {10: (0.9, 0.001), 11: (0.12, 0.86), 12: (-0.3, 0.001), 13: (0.4, 0.001), 14: (0.4, 0.001)}
    for latent, (r, fdr) in known.items():
        row = (frame["name"] == NAMED) & (frame["latent"] == str(latent))
        frame.loc[row, ["r: Edema", "fdr: Edema"]] = r, fdr
        frame.loc[row, [f"{what}: {label}" for what in ("r", "fdr") for label in LABELS[1:]]] = [-0.9, -0.9, 1, 1]
    frame.to_parquet(scores / "latents.parquet")
    sae = next(c for c in metrics["candidates"] if c["name"] == NAMED)
    sae["observations"][0].update(latent=13, r=0.4, p_holm=0.86)
    (scores / "metrics.json").write_text(json.dumps(metrics))
    path = write_report(scores, tmp_path / "r.html")
    none = "Follows no observation above chance (strongest: Edema"
    told = {
        10: "Follows Edema best (r 0.90, fdr 0.001). It has no name.",
        11: f"{none}, r 0.12, fdr 0.860). It has no name.",
        12: f"{none}, r −0.30, fdr 0.001). It has no name.",
        13: f"{none}, r 0.40, p 0.860). It has no name.",
        14: "Follows Edema best (r 0.40, fdr 0.001). It has no name.",
    }
    with chromium.browser() as driver:
        driver.get(path.as_uri())
        place = [option.get_attribute("textContent") for option in driver.find_elements(By.CSS_SELECTOR, "#sae option")]
        for latent, words in told.items():
            visit(driver, f"latent/{place.index(NAMED)}/{latent}")
            wait(lambda latent=latent: text(driver, "h1") == f"Latent {latent}")
            assert text(driver, ".sub") == words
            assert ("no better than chance (p 0.860)" in text(driver, ".tags")) == (latent == 13)
        visit(driver, "latents")
        driver.execute_script("document.getElementById('dead').click(); document.getElementById('search').focus()")
        driver.find_element(By.ID, "search").send_keys("#11")
        assert rows(driver)[0][1].startswith("none above chance strongest: Edema")
        visit(driver, "overview")
        grey = [e.text for e in driver.find_elements(By.CSS_SELECTOR, ".tops tr.chance th")]
        assert "Edema" in grey


def test_without_a_table_no_image_is_said_to_show_nothing(run, tmp_path):
    path = write_report(run.sweep, tmp_path / "r.html", store=run.store, images=run.images)
    with chromium.browser() as driver:
        driver.get(path.as_uri())
        visit(driver, f"latent/0/{open_run(run.sweep).saes[0].scores.observations[0].latent}")
        captions = [e.text for e in driver.find_elements(By.CSS_SELECTOR, ".pictures figcaption")]
        assert captions and all(float(caption) > 0 for caption in captions)
