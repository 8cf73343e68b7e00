"""Publishing to a Hub: what is sent, what is refused, and going on after a cut."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.hub_server import Fault, etag_of
from helpers.planted import planted_rows, write_store
from huggingface_hub import ModelCard
from sae_lens import SAE
from safetensors.torch import load_file, save_file

from medsae_plugin import (
    Evaluation,
    MedSAEError,
    SAESpec,
    TrainingConfig,
    evaluate,
    metric,
    publish,
    read_table,
    train_saes,
)
from medsae_plugin.cli import main
from medsae_plugin.encoders.cards import pretrained_folder
from medsae_plugin.scores.registry import METRICS
from medsae_plugin.store import ActivationStore

NAMES = ("early", "late")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run of two SAEs, as `medsae train` leaves it, and its evaluation in `scores`."""
    folder = tmp_path_factory.mktemp("made")
    rows, codes = planted_rows(450, 8, 6)
    store = write_store(folder / "store", {"early": rows, "late": rows[:, ::-1].copy()})
    labels = pd.DataFrame({"path": store.images["path"], "patient": store.images["patient"]})
    for k, name in enumerate(("Edema", "Cardiomegaly")):
        labels[name] = (codes[:, k] > 0).astype(int)
    labels.to_csv(folder / "labels.csv", index=False)
    specs = [SAESpec(name, name, "topk", expansion=2, options={"k": 3}) for name in NAMES]
    saes = train_saes(store, specs, TrainingConfig(6400, batch_size=64, lr=1e-3), folder / "run", progress=False)
    table = read_table(folder / "labels.csv", label_columns=["Edema", "Cardiomegaly"])
    evaluate(store, saes, table, folder / "scores", progress=False)
    return folder


@pytest.fixture
def run(made, tmp_path) -> Path:
    """A copy of the run that a test may spoil, with each SAE's metrics in its folder."""
    shutil.copytree(made / "run", tmp_path / "run")
    for name in NAMES:
        shutil.copy(made / "scores" / "metrics.json", tmp_path / "run" / name)
    return tmp_path / "run"


def dry(run: Path, out: Path, **options: object) -> Path:
    publish([run], "lab/saes", dry_run=out, licence="mit", **{"small": 5, **options})
    return out


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_dry_run_writes_the_saes_their_own_metrics_and_the_card(made, run, tmp_path):
    (run / "early" / "names.json").write_text(json.dumps({"3": {"concept": "interstitial oedema"}}))
    (run / "late" / "notes.txt").write_text("my own")
    publication = publish([run], "lab/saes", dry_run=tmp_path / "out", licence="mit", small=5)
    sent = files_in(tmp_path / "out")
    own_files = ("cfg.json", "sae_weights.safetensors", "runner_cfg.json", "metrics.json")
    own = {f"{name}/{file}" for name in NAMES for file in own_files}
    assert sent.keys() == own | {"README.md", "early/names.json"} == publication.files.keys()
    assert publication.files == {name: len(content) for name, content in sent.items()}
    assert publication.left_out == [run / "late" / "notes.txt"]
    # Digests of training patients are where training left them, and go nowhere.
    assert all((run / name / "patients.safetensors").is_file() for name in NAMES)
    whole = json.loads((made / "scores" / "metrics.json").read_text())
    for name in NAMES:
        assert sent[f"{name}/sae_weights.safetensors"] == (run / name / "sae_weights.safetensors").read_bytes()
        metrics = json.loads(sent[f"{name}/metrics.json"])
        expected = [c for c in whole["candidates"] if c["name"] in (name, f"untrained {name}", f"neurons of {name}")]
        assert metrics["candidates"] == expected and len(expected) == 3
        assert {k: v for k, v in metrics.items() if k != "candidates"} == {
            k: v for k, v in whole.items() if k != "candidates"
        }


def test_what_sae_lens_has_beside_its_weights_is_there(made, tmp_path):
    """Sparsity is log10 of the share of the reported rows on which a latent is not 0, counted here from the weights."""
    out = tmp_path / "out"
    publish([made / "run"], "lab/saes", metrics=made / "scores", dry_run=out, licence="mit", small=5)
    store = ActivationStore(made / "store")
    for name in NAMES:
        config = json.loads((out / name / "cfg.json").read_text())
        metadata = config["metadata"]
        assert metadata["model_class_name"] == "HookedVisionEncoder" and metadata["exclude_special_tokens"] is False
        assert metadata["dataset_path"] is None and metadata["neuronpedia_id"] is None
        before = json.loads((made / "run" / name / "cfg.json").read_text())
        counted = "num_dead_features"  # of val in training, of the reported rows when published
        kept = {k: v for k, v in before["metadata"].items() if k != counted}
        assert {k: metadata[k] for k in kept} == kept
        runner = json.loads((out / name / "runner_cfg.json").read_text())
        assert runner["training"]["total_training_samples"] == 6400 and runner["sae"]["options"]["k"] == 3
        sae = SAE.load_from_disk(out / name)
        assert sae.cfg.metadata.model_class_name == "HookedVisionEncoder"
        rows = np.concatenate([batch for batch, _ in rows_of_split(store, name, "test")])
        with torch.no_grad():
            share = (sae.encode(torch.from_numpy(rows)) != 0).double().mean(0)
        assert metadata[counted] == (share == 0).sum()
        sparsity = load_file(out / name / "sparsity.safetensors")["sparsity"]
        assert sparsity.dtype == torch.float32
        torch.testing.assert_close(sparsity, (share + 1e-10).log10().float(), rtol=1e-5, atol=1e-5)


def rows_of_split(store: ActivationStore, hook: str, split: str):
    ids = store.images.loc[store.images["split"] == split, "image_id"].to_numpy()
    yield store.rows_of(hook, ids)[:, 0].numpy(), ids


def test_the_card_says_what_a_reader_needs(made, run, tmp_path):
    out = dry(run, tmp_path / "out", data="Planted rows")
    card = ModelCard.load(out / "README.md")
    assert (card.data.license, card.data.library_name) == ("mit", "saelens")
    whole = json.loads((made / "scores" / "metrics.json").read_text())
    results = {result.metric_name: result for result in card.data.eval_results}
    for name in NAMES:
        (entry,) = (c for c in whole["candidates"] if c["name"] == name)
        for figure, value in (
            ("mean r of top latents", entry["mean_top_r"]),
            ("explained variance", entry["fidelity"]["explained_variance"]),
            ("L0", entry["fidelity"]["l0"]),
        ):
            result = results[f"{name}: {figure}"]
            assert result.metric_value == pytest.approx(value, abs=1e-4) and result.dataset_split == "test"
            assert result.dataset_name == "Planted rows"
        row = next(line for line in card.text.splitlines() if line.startswith("| Edema |"))
        assert re.search(r"\| \d+ \| \d+ \| -?\d\.\d\d \[", row)
    for said in ("Not a medical device", "## Intended use", "## Limits", "## Licence", "2510.26411", "Planted rows"):
        assert said in card.text
    assert 'SAE.from_pretrained("lab/saes", "early")' in card.text
    assert re.search(r"topk, k = 3, aux_loss_coefficient = 32(\.0)?, expansion 2", card.text)
    dry(run, tmp_path / "again", data="Planted rows")
    assert files_in(out) == files_in(tmp_path / "again")


def test_what_a_file_says_cannot_break_the_card(run, tmp_path):
    path = run / "early" / "metrics.json"
    path.write_text(path.read_text().replace("Edema", "<script>x</script> | y"))
    text = (dry(run, tmp_path / "out") / "README.md").read_text()
    assert "<script>" not in text and "&lt;script&gt;x&lt;/script&gt; \\| y" in text


def test_a_metric_of_ones_own_is_in_the_card(made, tmp_path):
    """Declared outside, one per label and one per SAE, it is scored, sent and shown without another line."""
    try:
        metric("doubled", title="2 r", per="label", show=["card"])(lambda scored: 2 * scored["r"])
        metric("labels", title="labels scored", per="sae", show=["card"])(lambda scored: float(len(scored.label_names)))
        table = read_table(made / "labels.csv", label_columns=["Edema", "Cardiomegaly"])
        saes = [made / "run" / name for name in NAMES]
        evaluation = evaluate(ActivationStore(made / "store"), saes, table, tmp_path / "scores", progress=False)
        shutil.copytree(made / "run", tmp_path / "run")
        out = dry(tmp_path / "run", tmp_path / "out", metrics=tmp_path / "scores")
    finally:
        METRICS.pop("doubled", None), METRICS.pop("labels", None)
    card = ModelCard.load(out / "README.md")
    head, row = (next(x for x in card.text.splitlines() if x.startswith(s)) for s in ("| observation |", "| Edema |"))
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    assert cells["2 r"] == f"{2 * evaluation['early'].of_label('Edema').value('r'):.2f}"
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert found["early: labels scored"] == found["late: labels scored"] == 2


def without_nulls_but(before, after):
    """What is sent, without the keys that are null because version 0.1 did not know them, at every depth."""
    if isinstance(before, list):
        return [without_nulls_but(*both) for both in zip(before, after, strict=True)]
    if not isinstance(before, dict):
        return after
    return {k: without_nulls_but(before.get(k), v) for k, v in after.items() if k in before or v is not None}


def test_figures_of_version_0_1_are_sent_as_they_are(tmp_path):
    """`metrics-0.1.json` has schema 2, as version 0.1 wrote it of two observations: only its keys change."""
    shutil.copytree(pretrained_folder() / "medsae-phantom" / "embedding", tmp_path / "run" / "embedding")
    old = json.loads((Path(__file__).parent / "data" / "metrics-0.1.json").read_text())
    config = json.loads((tmp_path / "run" / "embedding" / "cfg.json").read_text())
    old["encoder"]["weights_sha256"] = config["metadata"]["encoder_sha256"]
    for scores in old["candidates"][:2]:  # a file is of an SAE of its width
        scores["d_sae"] = config["d_sae"]
    (tmp_path / "run" / "embedding" / "metrics.json").write_text(json.dumps(old))
    out = dry(tmp_path / "run", tmp_path / "out")
    new = json.loads((out / "embedding" / "metrics.json").read_text())
    assert new["schema"] == 3 and [c["name"] for c in new["candidates"]] == [c["name"] for c in old["candidates"]]
    for before, after in zip(old["candidates"], new["candidates"], strict=True):
        after["mean_top_r_interval"] = [after.pop("mean_top_r_low"), after.pop("mean_top_r_high")]
        assert after.pop("baseline_of") == ("embedding" if before["kind"] == "untrained" else None)
        assert after.pop("gains") == []
        assert without_nulls_but(before, after) == before


def test_an_evaluation_is_narrowed_to_one_sae(made):
    whole = Evaluation.open(made / "scores")
    early = whole.only("early")
    assert [c.name for c in early.candidates] == ["early", "untrained early", "neurons of early"]
    assert early["early"].neurons.hook == "early" and early["early"].untrained.name == "untrained early"
    assert set(early.frame()["name"]) == {c.name for c in early.candidates}
    pd.testing.assert_frame_equal(early.frame("early"), whole.frame("early"))
    with pytest.raises(KeyError):
        whole.only("absent")


def edit_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def in_metadata(run: Path, **fields: object) -> None:
    config = json.loads((run / "early" / "cfg.json").read_text())
    config["metadata"] |= fields
    (run / "early" / "cfg.json").write_text(json.dumps(config))


def small_count(run: Path, field: str, count: int) -> None:
    path = run / "early" / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["candidates"][0]["observations"][0][field] = count
    path.write_text(json.dumps(metrics))


def chosen_where_reported(run: Path) -> None:
    path = run / "early" / "metrics.json"
    edit_json(path, select=json.loads(path.read_text())["report"])


def in_header(run: Path) -> None:
    weights = run / "early" / "sae_weights.safetensors"
    save_file(load_file(weights), weights, metadata={"made": "in /home/ann/study/saes"})


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
SPOILT = {
    "an image beside the weights": (
        lambda run: write(run / "early" / "figure.png", PNG),
        "early/figure.png is an image",
    ),
    "one by another name": (lambda run: write(run / "early" / "notes", PNG), "early/notes is an image"),
    "one further down": (lambda run: write(run / "early" / "x" / "a.dcm", bytes(128) + b"DICM"), "a.dcm is an image"),
    "names that are one": (lambda run: write(run / "early" / "names.json", PNG), "early/names.json is an image"),
    "one in text": (
        lambda run: write(run / "early" / "names.json", json.dumps({"0": "data:image/png;base64,iVBORw0KGgo"})),
        "names.json has an image",
    ),
    "an image's name": (
        lambda run: write(run / "early" / "names.json", json.dumps({"0": {"evidence": ["view1.png"]}})),
        "has an image, 'view1.png'",
    ),
    "names that are no JSON": (lambda run: write(run / "early" / "names.json", "{"), "names.json is not JSON"),
    "counts by label": (
        lambda run: in_metadata(run, label_counts={"Edema": 40, "Fracture": 2}),
        "Fracture: label_counts is 2, fewer than 5",
    ),
    "a path": (
        lambda run: in_metadata(run, store="/data/chexpert/store"),
        "has an absolute path, '/data/chexpert/store'",
    ),
    "a path of one part": (lambda run: in_metadata(run, store="/store"), "has an absolute path, '/store'"),
    "a Windows path": (lambda run: in_metadata(run, store="C:\\Users\\ann"), "has an absolute path"),
    "a path in a sentence": (lambda run: in_metadata(run, note="made from:/mnt/pacs/x"), "has an absolute path"),
    "a path in the weights' header": (in_header, "sae_weights.safetensors has an absolute path"),
    "a patient of CheXpert": (lambda run: in_metadata(run, example="patient00042"), "has a patient, 'patient00042'"),
    "a patient of MIMIC": (lambda run: in_metadata(run, example="p10000032"), "has a patient, 'p10000032'"),
    "a DICOM identifier": (
        lambda run: in_metadata(run, uid="1.2.826.0.1.3680043.8.498.123"),
        "has a patient, '1.2.826",
    ),
    "a patient by key": (lambda run: in_metadata(run, patient_id="A-17"), "has a patient's patient_id"),
    "few positives": (lambda run: small_count(run, "positives", 4), "Edema: positives is 4, fewer than 5"),
    "few known": (lambda run: small_count(run, "known", 3), "Edema: known is 3, fewer than 5"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_must_not_leave_is_refused(run, tmp_path, what):
    spoil, message = SPOILT[what]
    spoil(run)
    with pytest.raises(MedSAEError) as caught:
        dry(run, tmp_path / "out")
    assert message in str(caught.value) and "nothing is sent" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_threshold_is_ten_unless_it_is_set(run, tmp_path):
    small_count(run, "positives", 9)
    with pytest.raises(MedSAEError, match="positives is 9, fewer than 10"):
        publish([run], "lab/saes", dry_run=tmp_path / "out", licence="mit")
    dry(run, tmp_path / "out", small=9)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "early" / "metrics.json").unlink(), r"early has no metrics at .*evaluate it"),
        (
            lambda run: (run / "early" / "sae_weights.safetensors").write_bytes(b"cut"),
            "sae_weights.safetensors is cut short or damaged",
        ),
        (lambda run: shutil.copytree(run / "early", run / "other"), "does not score the SAE other"),
        (lambda run: in_metadata(run, encoder_sha256="f" * 64), "on another encoder's weights"),
        (lambda run: (run / "early" / "metrics.json").write_text("{"), "metrics.json is damaged"),
        (lambda run: (run / "early" / "metrics.json").write_text("{}"), "is not what medsae evaluate writes"),
        (lambda run: edit_json(run / "early" / "metrics.json", optimistic=True), "holds nothing out"),
        (chosen_where_reported, "holds nothing out"),
    ],
)
def test_a_run_that_is_not_fit_to_publish(run, tmp_path, spoil, message):
    spoil(run)
    if message.startswith("does not score"):
        edit_json(run / "other" / "metrics.json", candidates=[])
    with pytest.raises(MedSAEError, match=message):
        dry(run, tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent", "--repo", "lab/x"], "absent holds no SAE"),
        (["RUN", "--repo", "x"], "'x' is no repository: give ORG/NAME"),
        (["RUN", "--repo", "lab/x", "--dry-run", "--out", "RUN"], "is not an empty folder"),
        (["RUN", "--repo", "lab/x", "--dry-run", "--out", "OUT"], "no card of the package tells the licence"),
        (["RUN", "RUN/early", "--repo", "lab/x", "--licence", "mit"], "have the same name"),
    ],
)
def test_mistakes_are_told_in_a_line(run, tmp_path, capsys, arguments, message):
    words = [word.replace("RUN", str(run)).replace("OUT", str(tmp_path / "out")) for word in arguments]
    assert main(["publish", *words]) == 1
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err


WRITER = "hf_writer"


def sending(run: Path, repo_id: str, more: str = "") -> str:
    return (
        "from medsae_plugin import publish\n"
        f"p = publish([{str(run)!r}], {repo_id!r}, licence='mit', small=5{more})\nresult = [p.commit, p.changed]"
    )


def weights_of(run: Path) -> list[str]:
    return [etag_of("x.safetensors", (run / name / "sae_weights.safetensors").read_bytes()) for name in NAMES]


def test_published_and_loaded_by_a_fresh_process_without_the_plugin(made, hub, client, tmp_path, capsys):
    """By the command, from a run and its evaluation; then plain SAE-Lens with an empty cache, by repository id."""
    repo, out = "lab/whole", tmp_path / "out"
    command = ["publish", str(made / "run"), "--metrics", str(made / "scores"), "--repo", repo, "--licence", "mit"]
    command += ["--min-count", "5"]
    assert main([*command, "--dry-run", "--out", str(out)]) == 0
    dried = capsys.readouterr().out.splitlines()
    assert dried[-1] == f"would be sent to {repo}; written to {out}"
    captured = "import io, contextlib\nfrom medsae_plugin.cli import main\n"
    captured += f"with contextlib.redirect_stdout(io.StringIO()) as out:\n    status = main({command!r})\n"
    status, sent = client.run(captured + "result = [status, out.getvalue().splitlines()]", WRITER)
    (commit,) = hub.commits(repo)
    assert status == 0 and sent == [*dried[:-1], f"sent to {repo}, commit {commit.oid}"]
    assert {k: v for k, v in commit.files.items() if k != ".gitattributes"} == files_in(out)
    code = (
        "import sys, json\nfrom sae_lens import SAE\n"
        f"saes = [SAE.from_pretrained({repo!r}, name) for name in {NAMES!r}]\n"
        "assert 'medsae_plugin' not in sys.modules\n"
        "print(json.dumps([sae.W_dec.tolist() for sae in saes]))"
    )
    reader = hub.environment(tmp_path / "reader")
    loaded = subprocess.run([sys.executable, "-c", code], env=reader, capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    for name, decoder in zip(NAMES, json.loads(loaded.stdout), strict=True):
        expected = load_file(made / "run" / name / "sae_weights.safetensors")["W_dec"]
        np.testing.assert_allclose(decoder, expected.numpy(), rtol=0, atol=0)


def test_killed_while_uploading_the_same_command_completes_it(run, hub, tmp_path):
    repo, (first, second) = "lab/killed", weights_of(run)
    hub.lfs.clear()
    hub.uploaded.clear()
    command = [sys.executable, "-m", "medsae_plugin", "publish", run, "--repo", repo, "--licence", "mit"]
    command += ["--min-count", "5"]
    environment = hub.environment(tmp_path / "home", "hf_writer")
    hub.hold = f"/lfs/{second}"
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert hub.reached.wait(180)
        while first not in hub.uploaded:
            assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        hub.hold = None
        hub.resume.set()
    assert hub.commits(repo) == [] and second not in hub.lfs
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert len(hub.commits(repo)) == 1 and sorted(hub.uploaded) == sorted([first, second])


def test_the_same_content_makes_no_new_commit(run, hub, client):
    first = client.run(sending(run, "lab/twice"), WRITER)
    uploads = len(hub.uploaded)
    assert first == [hub.commits("lab/twice")[0].oid, True]
    assert client.run(sending(run, "lab/twice"), WRITER) == [first[0], False]
    assert len(hub.commits("lab/twice")) == 1 and len(hub.uploaded) == uploads
    (run / "early" / "names.json").write_text('{"1": "cardiac silhouette"}')
    changed = client.run(sending(run, "lab/twice"), WRITER)
    assert changed == [hub.commits("lab/twice")[1].oid, True] and len(hub.uploaded) == uploads


def test_a_commit_whose_answer_was_lost_is_not_made_twice(run, hub, client):
    hub.faults.append(Fault("POST", "/api/models/lab/lost/commit", lose_answer=True))
    answer = client.run(sending(run, "lab/lost"), WRITER)
    assert answer.startswith("MedSAEError") and "connection was cut" in answer and "run it again" in answer
    assert client.run(sending(run, "lab/lost"), WRITER) == [hub.commits("lab/lost")[0].oid, False]
    assert len(hub.commits("lab/lost")) == 1


def test_an_upload_that_is_cut_is_tried_again(run, hub, client):
    hub.lfs.clear()
    hub.faults.append(Fault("PUT", "/lfs/", cut=100))
    assert client.run(sending(run, "lab/cut"), WRITER)[1] is True
    hub.faults.append(Fault("POST", "/api/models/lab/cut2/preupload", status=503))
    assert client.run(sending(run, "lab/cut2"), WRITER)[1] is True


def test_private_and_revision(run, hub, client):
    client.run(sending(run, "lab/hidden", ", private=True, revision='v1'"), WRITER)
    assert hub.repos["lab/hidden"].private
    assert hub.commits("lab/hidden") == [] and len(hub.commits("lab/hidden", "v1")) == 1
    assert b'revision="v1"' in hub.commits("lab/hidden", "v1")[0].files["README.md"]


def test_private_never_means_a_public_repository(run, hub, client):
    hub.create("lab/open")
    answer = client.run(sending(run, "lab/open", ", private=True"), WRITER)
    assert answer.startswith("MedSAEError") and "is there already, and public" in answer
    assert hub.commits("lab/open") == []


def test_who_may_not_write_is_told(run, hub, client):
    hub.create("lab/theirs")
    for token in ("hf_reader", ""):
        answer = client.run(sending(run, "lab/theirs"), token)
        assert answer.startswith("MedSAEError") and "hf auth login" in answer, answer
    assert hub.commits("lab/theirs") == []


def test_a_hub_in_trouble_is_said(run, hub, client):
    hub.faults.append(Fault("POST", "/api/repos/create", status=500))
    assert "the Hub answers 500; try again later" in client.run(sending(run, "lab/trouble"), WRITER)


def test_what_must_not_leave_reaches_no_server(run, hub, client):
    write(run / "early" / "scan.jpg", b"\xff\xd8\xff" + bytes(20))
    n_requests = len(hub.requests)
    assert "scan.jpg is an image" in client.run(sending(run, "lab/never"), WRITER)
    assert len(hub.requests) == n_requests


def test_an_sae_without_training_report_or_neurons_has_a_card_too(run, tmp_path):
    for name in NAMES:
        (run / name / "training.json").unlink()
        metrics = json.loads((run / name / "metrics.json").read_text())
        edit_json(run / name / "metrics.json", candidates=[c for c in metrics["candidates"] if c["kind"] == "sae"])
    assert "**`early`**: not recorded." in (dry(run, tmp_path / "out") / "README.md").read_text()
    assert torch.is_tensor(load_file(tmp_path / "out" / "early" / "sae_weights.safetensors")["W_dec"])
