"""What latents lean on, in the report, in a browser, and in figures."""

import numpy as np
import pandas as pd
import pytest
from helpers import chromium
from helpers.planted import reading_weights, relu_sae, save_sae, write_store
from matplotlib.patches import Rectangle
from selenium.webdriver.common.by import By

from medsae_plugin.confounding import Confounders, score_confounders
from medsae_plugin.data.tables import read_table
from medsae_plugin.report import figures_leaning, open_run, write_figures, write_report
from medsae_plugin.scores import Resampling, evaluate

LABELS = ("Edema", "No <b>Finding</b>")
SITES = ("<i>one</i></script>", "two")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Latent 0 follows the first label, latent 1, the best of the second, the site."""
    folder = tmp_path_factory.mktemp("leaning")
    rng = np.random.default_rng(0)
    n = 600
    site = np.repeat(rng.integers(0, 2, n // 3), 3)
    y = np.stack([rng.random(n) < 0.4, rng.random(n) < np.where(site == 1, 0.6, 0.2)], 1)
    codes = 3 + np.stack([y[:, 0], 0.2 * y[:, 1] + site], 1) + 0.3 * rng.normal(size=(n, 2))
    weights = reading_weights(6, 2)
    rows = codes @ weights["decoder"].numpy() + 3
    store = write_store(folder / "store", {"h": rows.astype(np.float32)})
    frame = pd.DataFrame(
        {"Path": store.images["path"], "Site": np.array(SITES)[site], **dict(zip(LABELS, 1 * y.T, strict=True))}
    )
    frame.to_csv(folder / "t.csv", index=False)
    table = read_table(folder / "t.csv", label_columns=list(LABELS))
    sae = save_sae(folder / "sae", relu_sae("h", **weights, encoder_sha256="0" * 64))
    evaluate(store, sae, table, folder / "out", resampling=Resampling(20), progress=False)
    score_confounders(store, sae, table, out=folder / "out", permutations=20, progress=False)
    return folder / "out"


def test_figures_show_r_raw_and_adjusted_and_box_what_leans(run, tmp_path):
    written = write_figures(open_run(run), tmp_path, ["png"])
    assert {"adjusted-sae.png", "covariates-sae.png"} <= {path.name for path in written}
    units = Confounders.open(run).units[0]
    top = {one.label: one for one in units.leanings if one.top}
    assert [top[label].leans for label in LABELS] == [False, True]
    heat = figures_leaning.covariates(units).axes[0]
    shown = heat.images[0].get_array()
    np.testing.assert_allclose(shown, [[top[label].r, top[label].with_covariate] for label in LABELS])
    boxes = [p.get_xy() for p in heat.patches if isinstance(p, Rectangle)]
    np.testing.assert_allclose(boxes, [(1 - 0.46, 1 - 0.44)])
    marks = {
        tuple(line.get_xydata()[0])
        for line in figures_leaning.adjusted(units).axes[0].lines
        if len(line.get_xdata()) == 1
    }
    assert {(x, k) for k, label in enumerate(LABELS) for x in (top[label].r, top[label].partial)} <= marks


@pytest.mark.skipif(chromium.missing() is not None, reason=str(chromium.missing()))
def test_the_report_has_a_tab_and_badges_and_words_of_a_table_stay_words(run, tmp_path):
    found = {one.label: one for one in Confounders.open(run).units[0].leanings if one.top}
    with chromium.browser() as driver:

        def text(place):
            driver.get(f"{write_report(run, tmp_path / 'report.html').as_uri()}#/{place}")
            driver.refresh()
            return driver.find_element(By.ID, "main").text

        tab = text("leaning")
        assert "Leaning" in driver.find_element(By.ID, "tabs").text
        for label in LABELS:
            assert label in tab and found[label].verdict in tab
            for x in (found[label].partial, found[label].with_covariate):
                assert f"{x:.2f}".replace("-", "\u2212") in tab
        assert SITES[0] in tab, "the worst stratum"
        assert not driver.find_elements(By.CSS_SELECTOR, "main td i, main td b")
        assert [e.text for e in driver.find_elements(By.CSS_SELECTOR, "td .tag.warn")] == [found[LABELS[1]].verdict]
        assert "Does the encoder lean more?" in tab and "probe of h" in tab
        page = text("latent/0/1")
        assert (
            found[LABELS[1]].verdict in driver.find_element(By.CSS_SELECTOR, ".tags").text
            and "What it leans on" in page
        )
        assert found[LABELS[0]].verdict not in driver.find_element(By.CSS_SELECTOR, ".tags").text
        text("latents")
        assert "leans on site" in driver.find_element(By.CSS_SELECTOR, ".list").text
        assert [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_a_report_without_them_has_no_tab(run, tmp_path):
    for name in ("metrics.json", "latents.parquet"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "latents").symlink_to(run / "latents")
    assert open_run(tmp_path).confounders is None
    page = write_report(tmp_path, tmp_path / "report.html").read_text()
    assert '"leaning":null' in page
