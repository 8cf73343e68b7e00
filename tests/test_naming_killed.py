"""Naming from the command line against a server: killed on the way, it goes on and sends nothing twice."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from helpers.chat_server import ChatServer
from helpers.libraries import needs_medgemma
from helpers.naming_case import FINDINGS, HOSTILE, concept_in, shared_finding

from medsae_plugin.cli import main
from medsae_plugin.naming.chat import Picture


@pytest.fixture
def case(phantom_case):
    return phantom_case


@pytest.fixture
def paths(case, tmp_path):
    """The arguments that every command here shares."""
    sae = shutil.copytree(case.sae, tmp_path / "sae")
    table = ["--table", case.table.root / "labels.csv", "--root", case.table.root, "--quiet"]
    return [*map(str, [case.store.path, sae, *table])]


def answer(case):
    """An oracle that names what it is shown, and judges by what is truly there."""

    def respond(asked):
        content = asked.body["messages"][0]["content"]
        parts = [part.get("text") for part in content]
        pictures = iter(asked.pictures)
        shown = [(parts[i - 1], Picture(next(pictures))) for i, text in enumerate(parts) if text is None]
        if shown[0][0].endswith("The image:"):
            return json.dumps({"fits": concept_in(asked.text) in case.seen(shown[0][1])})
        return f"```json\n{json.dumps({'concept': shared_finding(case, shown)})}\n```"

    return respond


def command(words, paths, out, server, **options):
    flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    model = f"server:oracle@{server.url}"
    if words == ["name"]:
        evidence = ["--strongest", "3", "--spread", "3", "--silent", "6", "--report-column", "Report"]
        return [*words, *paths, "--out", str(out), "--backend", model, *evidence, *flags]
    return [*words, *paths[:2], str(out), *paths[2:], "--judge", model, "--images", "3", *flags]


def test_a_killed_run_goes_on_and_sends_no_request_twice(case, paths, tmp_path, capsys):
    out, enough, go_on = tmp_path / "names", 5, threading.Event()
    with ChatServer(answer(case)) as server:
        respond = server.respond

        def stall_after_enough(asked):
            if len(server.asked) > enough and not go_on.is_set():
                go_on.wait(60)
            return respond(asked)

        server.respond = stall_after_enough
        arguments = command(["name"], paths, out, server, concurrency=2)
        process = subprocess.Popen([sys.executable, "-m", "medsae_plugin", *arguments], stderr=subprocess.PIPE)
        wait_until(lambda: len(list((out / "answers").rglob("*.json"))) >= enough, process)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        kept = {asked.key for asked in server.answered}
        assert len(kept) == enough and not (out / "names.json").exists()
        go_on.set()
        time.sleep(0.1)
        server.asked.clear()
        assert main(arguments) == 0
        again = [asked.key for asked in server.asked]
        assert again and not set(again) & kept and len(set(again)) == len(again)
        assert f"{len(again)} requests sent, {enough} answers were there" in capsys.readouterr().out
        server.asked.clear()
        unbroken = command(["name"], paths, tmp_path / "whole", server, concurrency=1)
        assert main(unbroken) == 0
        assert {asked.key for asked in server.asked} == kept | set(again)
    for file in ("names.json", "names.csv", "evidence.json"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_names_are_made_scored_and_refined_from_the_command_line(case, paths, tmp_path, capsys):
    out = tmp_path / "names"
    with ChatServer(answer(case)) as server:
        assert main(command(["name"], paths, out, server, neurons=4)) == 0
        said = capsys.readouterr().out
        units = json.loads((out / "names.json").read_text())["names"]
        named = [unit for unit in units if unit["status"] == "named"]
        assert len({unit["concept"] for unit in named if unit["kind"] == "latent"}) > 8
        assert "bear the label that the namer was told" in said and "13 latents: " in said
        assert all(json.dumps(HOSTILE.partition(". ")[2]) in asked.text for asked in server.asked), "as a quotation"
        assert all(unit["concept"] in FINDINGS for unit in named), "no report gives the names"
        assert main(command(["name", "score"], paths, out, server)) == 0
        said = capsys.readouterr().out
        assert "shuffled" in said and "neurons" in said
        scores = json.loads((out / "scores.json").read_text())
        assert scores["judges"][0]["latents"]["balanced_accuracy"] > 0.9
        assert server.url not in (out / "scores.json").read_text()
        server.asked.clear()
        assert main(command(["name", "score"], paths, out, server)) == 0
        assert not server.asked
        assert main(command(["name"], paths, out, server, rounds=1, images=3)) == 0
        runs = json.loads((out / "names.json").read_text())["made"]["runs"]
        told = [(run.get("refined", {}).get("rounds"), len(run["latents"]), len(run["neurons"])) for run in runs]
        assert sorted(told, key=str) == [(1, 13, 0), (None, 0, 4)], "the neurons of the first call stay, as they were"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--backend", "gpt"], "server:MODEL@URL"),
        (["--backend", "label", "--rounds", "1"], "--rounds is for models"),
        (["--backend", "label", "--latents", "1,x"], "latents are numbers"),
        (["--backend", "label", "--latents", "99"], "has latents 0 to 12"),
        (["--backend", "label", "--split", "dev"], "no images in split 'dev'"),
        (["--backend", "label", "--strongest", "0"], "1 strongest at least"),
        (["--backend", "label", "--report-column", "x"], "no report column 'x'"),
        (["--backend", "vocabulary", "--vocabulary", "absent.tsv"], "no vocabulary at absent.tsv"),
        (["--backend", "vocabulary", "--encoder", "phantom-swin"], "other weights of phantom-swin"),
        pytest.param(["--backend", "medgemma", "--4bit"], "4 bits need an NVIDIA GPU", marks=needs_medgemma),
    ],
)
def test_mistakes_are_told_in_a_line(paths, tmp_path, capsys, extra, message):
    assert main(["name", *paths, "--out", str(tmp_path / "out"), *extra]) == 1
    err = capsys.readouterr().err
    assert message in err.strip().splitlines()[-1] and "Traceback" not in err


def wait_until(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
