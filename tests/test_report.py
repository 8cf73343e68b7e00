"""What a report file holds and does not hold."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.small_run import HOSTILE, LABELS, NAMED, SmallRun

from medsae_plugin import MedSAEError
from medsae_plugin.cli import main
from medsae_plugin.data.tables import read_table
from medsae_plugin.report import report as report_module
from medsae_plugin.report import write_report
from medsae_plugin.report.evidence import digits, nearest, strips, strongest
from medsae_plugin.report.pictures import shrunk
from medsae_plugin.report.report import embedded
from medsae_plugin.report.sources import open_run, report_rows
from medsae_plugin.scores import Evaluation


@pytest.fixture
def run(small_run) -> SmallRun:
    return small_run


class Page(HTMLParser):
    """The scripts of a page, and every address that it names."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.addresses: list[str] = []
        self.inside = False
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.inside = tag == "script"
        self.scripts += [""] if self.inside else []
        self.addresses += [v for k, v in attributes if k in ("src", "href") and v and not v.startswith("#")]

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data


def data_of(path) -> dict:
    return json.loads(Page(path.read_text("utf-8")).scripts[0])


def test_what_is_embedded_cannot_leave_its_script():
    value = {"</script>": "<!-- & \u2028\u2029 \" ' \\ é"}
    text = embedded(value)
    assert json.loads(text) == value and not re.search("[<>&\u2028\u2029]", text)


def test_without_images_nothing_of_an_image_or_a_patient_is_in_the_file(run, tmp_path, capsys):
    out = tmp_path / "report.html"
    table = ["--table", str(run.images / "labels.csv"), "--labels", ",".join(LABELS)]
    assert main(["report", str(run.sweep), "--out", str(out), "--names", str(run.names), *table]) == 0
    assert "without images" in capsys.readouterr().out
    content = out.read_text("utf-8")
    assert not re.search(
        r"patient0\d|\.png|image_id|/tmp|http:|https:", content.replace("http://www.w3.org/2000/svg", "")
    )
    page = Page(content)
    assert page.addresses == ["data:,"] + ["#"] * 0 and len(page.scripts) == 2
    data = data_of(out)
    assert data["images"] is None and all("strongest" not in sae["latents"] for sae in data["saes"])
    named = next(sae for sae in data["saes"] if sae["name"] == NAMED)
    assert named["names"]["0"]["concept"] == HOSTILE[0][0] and "5" not in named["names"]
    assert named["names"]["0"]["score"]["balanced_accuracy"] == 0.75


def test_the_same_run_gives_the_same_file(run, tmp_path):
    for name in ("a", "b"):
        write_report(run.sweep, tmp_path / name, table=run.table, store=run.store, images=run.images)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_evaluation_alone_makes_a_report(run, tmp_path, capsys):
    scores = run.sweep / "comparison" / "scores"
    assert main(["report", str(scores), "--out", str(tmp_path / "r.html")]) == 0
    data = data_of(tmp_path / "r.html")
    assert data["comparison"] is None and data["saes"][0]["training"] is None
    saes = [str(p.parent) for p in run.sweep.glob("passes/*/*/cfg.json")]
    compared = ["--comparison", str(run.sweep / "comparison"), "--saes", *saes]
    assert main(["report", str(scores), "--out", str(tmp_path / "r.html"), *compared]) == 0
    data = data_of(tmp_path / "r.html")
    assert data["comparison"]["flows"] and all(len(sae["training"]["history"]) > 1 for sae in data["saes"])


def test_the_figures_are_those_of_the_run(run, tmp_path):
    data = data_of(write_report(run.sweep, tmp_path / "r.html", table=run.table))
    opened = open_run(run.sweep)
    for sae, entry in zip(opened.saes, data["saes"], strict=True):
        frame = sae.latents
        for c, label in enumerate(LABELS):
            found = np.array(entry["latents"]["r"][c], dtype=float)
            np.testing.assert_allclose(found, frame[f"r: {label}"], rtol=6e-3, atol=1e-4)
        best = frame[[f"r: {label}" for label in LABELS]].fillna(-2).to_numpy()
        follows = np.array(entry["latents"]["follows"])
        silent = (best == -2).all(1)
        assert (follows[~silent] == best[~silent].argmax(1)).all() and (follows[silent] == -1).all()


def test_a_file_with_pictures_stays_under_its_limit_and_says_so(run, tmp_path, monkeypatch):
    arguments = {"table": run.table, "store": run.store, "images": run.images}
    whole = data_of(write_report(run.sweep, tmp_path / "whole.html", **arguments))
    assert len(whole["images"]["pictures"]) == whole["images"]["wanted"] > 10
    bare = write_report(run.sweep, tmp_path / "bare.html").stat().st_size
    limit = (bare + (tmp_path / "whole.html").stat().st_size) // 2 + report_module._MARGIN
    monkeypatch.setattr(report_module, "LIMIT", limit)
    path = write_report(run.sweep, tmp_path / "less.html", **arguments)
    less = data_of(path)["images"]
    assert path.stat().st_size <= limit and 0 < len(less["pictures"]) < less["wanted"]


def test_too_many_latents_are_cut_to_those_that_say_most(run, tmp_path, monkeypatch):
    from medsae_plugin.report import data as data_module

    monkeypatch.setattr(data_module, "MOST_LATENTS", 80)
    data = data_of(write_report(run.sweep, tmp_path / "r.html"))
    for sae, entry in zip(open_run(run.sweep).saes, data["saes"], strict=True):
        r = sae.latents[[f"r: {label}" for label in LABELS]].abs().max(axis=1).fillna(0)
        assert entry["left_out"] == 64 - 20 and len(entry["latents"]["index"]) == 20
        assert r[entry["latents"]["index"]].min() >= r.drop(entry["latents"]["index"]).max()


def test_evidence_against_dense_arrays(run):
    opened = open_run(run.sweep)
    sae = opened.saes[0]
    rows = report_rows(sae, opened.evaluation.report)
    dense = sae.matrix.columns(0, sae.matrix.n_latents).toarray()[rows]
    best = strongest(sae.matrix, rows)
    near, r = nearest(sae.matrix, rows)
    labels = run.table.labels[rows]
    drawn = strips(sae.matrix, rows, labels, np.zeros(64, dtype=int))
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.corrcoef(dense.astype(float).T)
    np.fill_diagonal(expected, np.nan)
    for j in range(64):
        order = np.sort(dense[:, j])[::-1]
        positive = order[order > 0]
        np.testing.assert_allclose(best.values[j, : len(positive)], positive[:8])
        assert set(best.images[j][best.images[j] >= 0]) <= set(rows)
        if len(positive):
            top = np.sort(expected[j][~np.isnan(expected[j])])[::-1][: near.shape[1]]
            np.testing.assert_allclose(r[j][near[j] >= 0], top, atol=1e-9)
            assert drawn[j].level[0] <= 1 and len(drawn[j].level) == min(32, len(positive))
            if len(positive) <= 32:
                np.testing.assert_allclose(drawn[j].level, positive / positive[0], rtol=1e-6)
        else:
            assert (near[j] == -1).all() and len(drawn[j].level) == 0
    assert digits(np.array([0, 1, np.nan, 0.5])) == "0Z-u"
    grid = np.arange(24.0 * 20).reshape(24, 20)
    assert shrunk(grid).shape == (12, 12) and shrunk(grid).max() == grid.max() and shrunk(grid)[0, 0] == 21
    assert (shrunk(grid[:3, :4]) == grid[:3, :4]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "."], "no output of medsae evaluate"),
        (["report", "RUN", "--images", "IMAGES"], "--images needs --store"),
        (["report", "RUN", "--images", "NOWHERE", "--store", "STORE"], "there is no image at"),
        (["report", "RUN", "--names", "NOWHERE"], "names.json"),
        (["report", "RUN", "--saes", "NOWHERE"], "holds no SAE"),
    ],
)
def test_mistakes_are_told(run, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nowhere").mkdir()
    places = {"RUN": run.sweep, "IMAGES": run.images, "STORE": run.store.path, "NOWHERE": tmp_path / "nowhere"}
    assert main([*(str(places.get(a, a)) for a in arguments), "--out", "r.html"]) == 1
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err


def test_a_score_stays_with_the_name_that_was_tried(run, tmp_path):
    """A name may have been replaced since it was scored, and two lists may name one latent differently."""
    names = json.loads((run.names / "names.json").read_text())
    names["names"][0]["concept"] = "replaced"
    (tmp_path / "names.json").write_text(json.dumps(names))
    (tmp_path / "scores.json").write_bytes((run.names / "scores.json").read_bytes())
    data = data_of(write_report(run.sweep, tmp_path / "r.html", names=[tmp_path]))
    named = next(sae for sae in data["saes"] if sae["name"] == NAMED)
    assert named["names"]["0"]["concept"] == "replaced" and named["names"]["0"]["score"] is None
    with pytest.raises(MedSAEError, match=r"latent 0 has a name in .* and another"):
        write_report(run.sweep, tmp_path / "r.html", names=[run.names, tmp_path])


def test_a_table_without_the_runs_labels_is_refused(run, tmp_path):
    table = read_table(run.images / "labels.csv", label_columns=["Edema"])
    with pytest.raises(MedSAEError, match="no label 'Fracture', which the run was scored on"):
        write_report(run.sweep, tmp_path / "r.html", table=table)


def test_the_printed_table_counts_only_what_is_above_chance(run):
    metrics = json.loads((run.sweep / "comparison" / "scores" / "metrics.json").read_text())
    for sae in metrics["candidates"]:
        for o, p, follows in zip(sae["observations"], (0.005, 0.005, 0.86), LABELS, strict=True):
            o.update(r=0.3, p_holm=p, follows=follows)
        sae["observations"][1]["follows"] = LABELS[0]
    lines = [line for line in str(Evaluation.read(metrics)).splitlines() if line.startswith("top latents")]
    assert set(lines) == {"top latents above chance (p < 0.05): 2 of 3; that follow their own observation most: 1 of 2"}


def test_names_of_another_sae_are_refused(run, tmp_path):
    names = json.loads((run.names / "names.json").read_text())
    names["made"]["sae_sha256"] = "f" * 64
    (tmp_path / "names.json").write_text(json.dumps(names))
    with pytest.raises(MedSAEError, match="an SAE that this run does not have"):
        write_report(run.sweep, tmp_path / "r.html", names=[tmp_path])
