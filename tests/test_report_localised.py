"""Where latents look, in the report: figures and flags on a latent's page, regions outlined on its images."""

import json
import re
import shutil

import numpy as np
import pytest
from helpers import chromium
from helpers.small_run import NAMED, POSITIONS, N
from PIL import Image
from selenium.webdriver.common.by import By

from medsae_plugin import MedSAEError
from medsae_plugin.data.regions import read_regions
from medsae_plugin.localisation.results import Localisation
from medsae_plugin.localisation.score import score_regions
from medsae_plugin.report import open_run, write_figures, write_report
from medsae_plugin.report.localised import outline


@pytest.fixture(scope="module")
def page(small_run, tmp_path_factory):
    """The sweep with what localize found of its two spatial SAEs: Edema lies in the quarter where the features are."""
    folder = tmp_path_factory.mktemp("localised")
    run = shutil.copytree(small_run.sweep, folder / "sweep")
    placed = np.random.default_rng(1).integers(0, POSITIONS, N)  # as `small_run.prepare` draws it
    edema = small_run.table.labels[:, 0] == 1
    for k, path in enumerate(small_run.table.frame["path"]):
        if edema[k]:
            _mask(folder / "masks" / "Edema" / path, *divmod(int(placed[k]), 2))
        _mask(folder / "masks" / "lungs" / path, slice(None), 0)
    regions = read_regions(folder / "masks", small_run.table)
    saes = sorted(p.parent for p in run.glob("passes/*/*/cfg.json") if "embedding" not in str(p))
    scores = run / "comparison" / "scores"
    found = score_regions(small_run.store, saes, small_run.table, regions, scores, inside="lungs", progress=False)
    shown = {"table": small_run.table, "store": small_run.store, "images": small_run.images, "regions": regions}
    return write_report(run, folder / "report.html", **shown), found, run, regions


def _mask(path, row, column):
    mask = np.zeros((2, 2), np.uint8)
    mask[row, column] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).resize((64, 64), Image.Resampling.NEAREST).save(path)


def data_of(path):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)[1])


def test_each_sae_has_what_was_found_of_it_and_images_their_outlines(page):
    path, found, run, _ = page
    data = data_of(path)
    for sae in data["saes"]:
        if "embedding" in sae["name"]:
            assert sae["localised"] is None
            continue
        own = next(u for u in found.units if u.name in sae["name"])
        best = own.best("Edema")
        (label, images, patients, pointing, *_), *_ = sae["localised"]["latents"][str(best.unit)]
        assert (label, images, patients) == ("Edema", best.images, best.patients)
        assert pointing[0] == round(best.figures["pointing"].mean, 4) == 1
        inside = next(x for x in found.inside if x.name == own.name)
        flagged = {unit for unit, (flag, *_) in sae["localised"]["flags"].items() if flag == "outside"}
        assert flagged == set(map(str, inside.outside))
    assert any(sae["localised"] for sae in data["saes"])
    drawn = data["images"]["outlines"]
    assert all("lungs" in lines for lines in drawn.values()) and set(drawn) == set(data["images"]["pictures"])
    assert {s.name for s in open_run(run).saes if s.localised is None} == {
        s["name"] for s in data["saes"] if "embedding" in s["name"]
    }


def test_an_outline_goes_round_what_is_in_the_mask():
    mask = np.zeros((4, 5), dtype=bool)
    mask[1:3, 2:4] = True
    assert sorted(re.findall(r"M[^M]*", outline(mask))) == ["M2 1H4", "M2 1V3", "M2 3H4", "M4 1V3"]
    assert outline(np.zeros((3, 3), dtype=bool)) == ""
    rng = np.random.default_rng(0)
    mask = rng.random((9, 7)) < 0.5
    padded = np.pad(mask, 1)
    length = (padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum()
    drawn = 0
    for x, y, way, end in re.findall(r"M(\d+) (\d+)([HV])(\d+)", outline(mask)):
        drawn += int(end) - int(x if way == "H" else y)
    assert drawn == length


def test_regions_without_images_are_refused(page, tmp_path):
    *_, run, regions = page
    with pytest.raises(MedSAEError, match="regions are outlined on images"):
        write_report(run, tmp_path / "report.html", regions=regions)


@pytest.mark.skipif(chromium.missing() is not None, reason=str(chromium.missing()))
def test_a_latents_page_shows_where_it_looks(page):
    path, found, run, _ = page
    names = [s.name for s in open_run(run).saes]
    own = next(u for u in found.units if u.kind == "sae")
    k, best = next(k for k, name in enumerate(names) if own.name in name), own.best("Edema")
    with chromium.browser() as driver:
        driver.get(f"{path.as_uri()}#/latent/{k}/{best.unit}")
        shown = driver.find_element(By.ID, "main").text
        assert "Where it looks" in shown and "outlined: " in shown
        row = driver.find_element(By.CSS_SELECTOR, "table.looks tbody tr").text.split()
        assert row[:3] == ["Edema", str(best.images), "1.00"]
        outlined = driver.find_elements(By.CSS_SELECTOR, ".frame .outline path")
        findings = {path.get_attribute("data-finding") for path in outlined}
        assert findings == {"Edema", "lungs"}
        driver.find_element(By.ID, "overlay").click()
        assert outlined[0].is_displayed(), "outlines stay where the heatmap goes"
        assert not [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert Localisation.open(run / "comparison" / "scores").to_json() == found.to_json() and NAMED in names


def test_figures_are_drawn_of_it_and_the_same_again(page, tmp_path):
    *_, run, _ = page
    opened = open_run(run)
    spatial = [s.name.replace("/", "--") for s in opened.saes if s.localised is not None]
    files = {path.name: path.read_bytes() for path in write_figures(opened, tmp_path / "a", ["svg"])}
    for name in spatial:
        assert b"Edema" in files[f"localisation-{name}.svg"] and b"lungs" in files[f"inside-{name}.svg"]
    assert sum(name.startswith(("localisation-", "inside-")) for name in files) == 2 * len(spatial)
    again = {path.name: path.read_bytes() for path in write_figures(opened, tmp_path / "b", ["svg"])}
    assert files == again
