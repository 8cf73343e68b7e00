"""Every example runs, on small input."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(EXAMPLES)!r})\n{code}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """A folder, and what the quickstart prints that makes it."""
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    return folder, run(f"from pathlib import Path; import quickstart; quickstart.main(Path({str(folder)!r}), 60, 2048)")


def test_the_quickstart_on_few_phantoms(quickstart):
    assert "Cardiomegaly" in quickstart[1] and "explained variance" in quickstart[1]


def test_several_layers_on_few_phantoms(tmp_path):
    out = run(
        f"from pathlib import Path; import several_layers as e; e.main(Path({str(tmp_path / 'run')!r}), 60, 2048)"
    )
    assert "Cardiomegaly" in out and "explained variance" in out


def test_editing_what_the_quickstart_has_made(quickstart):
    folder = f"Path({str(quickstart[0])!r})"
    out = run(f"from pathlib import Path; import edit_latents; edit_latents.main({folder}, 'Cardiomegaly', 6)")
    edited = out[out.index("Cardiomegaly: latent ") :]
    assert re.search(r"as it is +[+-]0\.\d{3}\n +ablated +[+-]0\.\d{3}\n +doubled +[+-]0\.\d{3}\n", edited)


def test_medclip_on_a_chexpert_table(tmp_path, golden_medclip):
    from medsae_plugin.phantoms import generate

    table = generate(30, tmp_path / "images", seed=0)
    arguments = [table, tmp_path / "run", "--weights", golden_medclip("resnet50"), "--samples", 2048]
    command = [sys.executable, EXAMPLES / "medclip_on_chexpert.py", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Cardiomegaly" in done.stdout and (tmp_path / "run" / "saes" / "medsae" / "cfg.json").is_file()
