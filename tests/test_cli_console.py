"""What a console, a signal and a fault may do to a command, and the commands that users are told of."""

import argparse
import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from tqdm import tqdm

import medsae_plugin
from medsae_plugin.cli import declared, main
from medsae_plugin.cli.commands import parse
from medsae_plugin.cli.console import prepare_console

ROOT = Path(__file__).parent.parent
CARD = """
name: mine
description: 心拡大 ≥ 1
licence: MIT
family: swin
source: {format: medclip, url: https://example.org/x.zip}
preprocessing: {mode: L, size: 32, fit: pad, resample: bicubic, mean: [0.5], std: [0.25]}
vision: {image_size: 32, embed_dim: 8, depths: [2, 2], num_heads: [1, 2], window_size: 4}
projection_dim: 6
"""


@pytest.fixture
def card(tmp_path: Path) -> str:
    (tmp_path / "mine.yaml").write_text(CARD, encoding="utf-8")
    return str(tmp_path / "mine.yaml")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
def test_what_a_console_cannot_print_is_replaced(card, monkeypatch, encoding):
    console_bytes = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(console_bytes, encoding=encoding))
    assert main(["encoders", card]) == 0
    assert b"mine: ??? ? 1\n" in console_bytes.getvalue()


def test_a_full_output_is_said(monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdout", Path("/dev/full").open("w", encoding="utf-8"))  # noqa: SIM115
    assert main(["encoders"]) == 1
    assert "standard output cannot be written: No space left on device" in capfd.readouterr().err


def test_an_output_that_nobody_reads_is_said(monkeypatch, capfd):
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        assert main(["encoders"]) == 1
    assert "standard output cannot be written: Broken pipe" in capfd.readouterr().err


def test_closed_streams_and_a_full_stderr_stop_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["encoders"]) == 0
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", Path("/dev/full").open("w", encoding="utf-8"))  # noqa: SIM115
    prepare_console()
    assert list(tqdm(range(3), mininterval=0)) == [0, 1, 2]
    assert main(["phantoms", "--n", "1", "--out", str(tmp_path / "p")]) == 0
    assert (tmp_path / "p" / "labels.csv").is_file()


@pytest.mark.parametrize("words", [["--debug", "store", "verify"], ["store", "--debug", "verify"]])
def test_debug_shows_where_an_error_comes_from(words, tmp_path, capsys):
    assert main([*words, str(tmp_path)]) == main(["store", "verify", str(tmp_path), "--debug"]) == 1
    err = capsys.readouterr().err
    assert err.count("Traceback (most recent call last)") == 2 and err.count("layout.py") == 2
    assert main(["store", "verify", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("medsae: ")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TypeError("what?"), "TypeError: what?. This was not foreseen: the same command with --debug"),
        (MemoryError(), "memory ran out"),
        (PermissionError(13, "Permission denied", "/a"), "Permission denied: /a"),
        (ConnectionResetError(104, "Connection reset by peer"), "the network failed (Connection reset by peer"),
    ],
)
def test_no_error_is_a_traceback(monkeypatch, capsys, error, said):
    def run(args: argparse.Namespace) -> None:
        raise error

    monkeypatch.setattr("medsae_plugin.cli.store.run_verify", run)
    assert main(["store", "verify", "x"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"medsae: {said}") and "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["train", "s", "--recipe", "r", "--out", "o"], "the same command goes on from the last checkpoint"),
        (["extract", "e", "--images", "i", "--out", "o"], "the same command goes on from there"),
        (["report", "run", "--out", "o"], "starts again from the beginning"),
    ],
)
def test_what_is_said_after_an_interruption(monkeypatch, capsys, words, advice):
    def run(args: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"medsae_plugin.cli.{words[0]}.run", run)
    assert main(words) == 130
    assert advice in capsys.readouterr().err


def told() -> list[tuple[str, str]]:
    """Every `medsae` command line with arguments in the README, the docs, the examples and their recipes."""
    found = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.*"))]:
        text = re.sub(r"\\\n\s*(#\s*)?", " ", path.read_text(encoding="utf-8"))
        for line in re.findall(r"^(?:    |#   |\$ )\$? ?(medsae .*)$", text, re.MULTILINE):
            found += [(path.name, command.strip()) for command in re.split(r"&&|\|", line)]
    return [(name, command) for name, command in found if command.startswith("medsae ")]


def test_every_command_line_in_the_documents_parses(capsys):
    lines = told()
    assert len(lines) > 30
    for name, line in lines:
        words = shlex.split(line, comments=True)
        try:
            parse(declared(), words[1:])
        except SystemExit as stopped:
            assert stopped.code == 0, f"{name}: {line}\n{capsys.readouterr().err}"


def commands() -> set[str]:
    return {word for command in declared().declared for word in (command.name, command.words[0])}


def test_every_command_and_option_that_is_named_exists():
    """In the documents, and in the messages, help and docstrings of the package."""
    package = Path(medsae_plugin.__file__).parent
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *package.rglob("*.py")]
    parsers = [p for c in declared().declared for p in _parsers(declared().parser(c.words))]
    options = {o for p in parsers for a in p._actions if a.help != argparse.SUPPRESS for o in a.option_strings}
    for path in files:
        text = path.read_text(encoding="utf-8")
        named = re.findall(r"(?:`medsae |(?:of|by|that|from|with|make them with|:|\() ?medsae )([a-z][a-z-]+)", text)
        assert set(named) <= commands() | {"error"}, (path, set(named) - commands())
        for words in re.findall(r"`medsae ([^`]*)`", text):
            unknown = set(re.findall(r"--[a-z0-9][a-z0-9-]*", words)) - options
            assert not unknown, (path, unknown)


def _parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    inner = [a.choices.values() for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [parser, *(p for group in inner for sub in group for p in _parsers(sub))]


SAES = """
saes:
  - {name: a, hook: hook_embedding, architecture: topk, expansion: 1, options: {k: 2}, seed: 0}
  - {name: b, hook: hook_embedding, architecture: topk, expansion: 1, options: {k: 2}, seed: 1}
training: {total_training_samples: 64, batch_size: 8}
"""
TABLE = "--table phantoms/labels.csv"
LONG = (
    "phantoms --n 12 --out phantoms",
    f"extract phantom-swin {TABLE} --hooks hook_embedding --workers 0 --out store",
    "train store --recipe recipe.yaml --out saes",
    f"evaluate store saes/a {TABLE} --permutations 9 --out scores",
    f"compare store saes/a saes/b {TABLE} --permutations 9 --out comparison",
    f"fidelity phantom-swin saes/a {TABLE} --workers 0",
    f"attribute phantom-swin saes/a {TABLE} --workers 0",
    f"linearity phantom-swin {TABLE} --pairs 5",
    f"name store saes/a {TABLE} --backend label --out names",
    "report comparison --out report.html",
)
# One process for all, since most of a command's time is what it imports.
IN_TURN = """
import shlex, sys
from medsae_plugin.cli import main
for line in sys.argv[1:]:
    print("$ medsae", line, flush=True)
    if main(shlex.split(line)):
        sys.exit(1)
"""


def on_a_terminal(lines: list[str], folder: Path) -> dict[str, str]:
    """What a terminal of 100 columns is sent by commands that run in turn in a process of their own, each command's."""
    termios, pty = pytest.importorskip("termios", reason="no pseudo-terminals here"), pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", IN_TURN, *lines], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        sent = b""
        with suppress(OSError), os.fdopen(ours, "rb", buffering=0) as terminal:  # EIO: nobody writes there any more
            while part := terminal.read(65_536):
                sent += part
    text = sent.decode()
    assert process.returncode == 0, text
    return dict(command.split("\r\n", 1) for command in text.split("$ medsae ")[1:])


def test_a_quiet_command_shows_no_bar_on_a_terminal(tmp_path):
    """Nor anything else that goes back in its line: SAE-Lens's, transformers' and the Hub's bars among them."""

    def goes_back(shown: str) -> bool:
        return re.search(r"\r(?!\n)|\x1b|\d%\|", shown) is not None

    (tmp_path / "recipe.yaml").write_text(SAES)
    assert all(map(goes_back, on_a_terminal(["phantoms --n 3 --out loud"], tmp_path).values()))
    quiet = on_a_terminal([f"{line} --quiet" for line in LONG], tmp_path)
    assert len(quiet) == len(LONG)
    assert not [line for line, shown in quiet.items() if goes_back(shown)]
