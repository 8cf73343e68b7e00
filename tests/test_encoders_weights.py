"""Official weights: found, fetched, resumed, unpacked inside their folder, and every key accounted for."""

import http.server
import pickle
import re
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

from medsae_plugin import MedSAEError
from medsae_plugin.encoders import HookedVisionEncoder, load_card
from medsae_plugin.encoders.sources import Source
from medsae_plugin.encoders.weights import official_checkpoint
from medsae_plugin.fetch import download, unpack
from medsae_plugin.files import sha256_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDSAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


HOOKS = Path(__file__).parent.parent / "hooks"


@pytest.fixture(scope="module")
def state(golden_medclip: Callable[[str], Path]) -> dict[str, torch.Tensor]:
    """The official checkpoint with one block a stage, two text layers and 50 words, to be quick."""
    full = torch.load(golden_medclip("swin"), weights_only=True)
    words = "text_model.model.embeddings.word_embeddings.weight"
    full[words] = full[words][:50]
    beyond = re.compile(r"vision_model.*\.blocks\.[1-9]|text_model.*\.layer\.([2-9]|1\d)\.")
    return {k: v.clone() for k, v in full.items() if not beyond.search(k)}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The card of that checkpoint."""
    card = yaml.safe_load((HOOKS / "medclip-swin.yaml").read_text())
    card["vision"]["depths"] = [1, 1, 1, 1]
    card["text"]["config"] |= {"vocab_size": 50, "num_hidden_layers": 2}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(card))
    return tmp_path / "small.yaml"


def save(state: dict[str, torch.Tensor], folder: Path) -> Path:
    torch.save(state, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def test_file_zip_and_folder_give_the_same_encoder(state, small, tmp_path):
    (tmp_path / "plain").mkdir()
    checkpoint = save(state, tmp_path / "plain")
    archive = tmp_path / "official.zip"
    with zipfile.ZipFile(archive, "w") as z:
        z.write(checkpoint, "medclip/pytorch_model.bin")
    card = load_card(small)
    for weights in (checkpoint, checkpoint.parent, archive):
        found = official_checkpoint(Source(card, weights))
        assert sha256_of(found) == sha256_of(checkpoint)
    zipped = tmp_path / "folder"
    zipped.mkdir()
    shutil.copy(archive, zipped)
    encoder = HookedVisionEncoder.from_pretrained(small, weights=zipped)
    assert encoder.weights_sha256 == sha256_of(checkpoint)


def test_keys_missing_left_over_or_of_another_shape_are_named(state, small, tmp_path):
    bad = dict(state)
    gone = "vision_model.model.encoder.layers.0.blocks.0.attention.self.query.weight"
    del bad[gone]
    bad["vision_model.model.extra.weight"] = torch.zeros(1)
    bad["vision_model.projection_head.weight"] = torch.zeros(512, 767)
    with pytest.raises(MedSAEError) as caught:
        HookedVisionEncoder.from_pretrained(small, weights=save(bad, tmp_path))
    text = str(caught.value)
    assert "missing: model.encoder.layers.0.blocks.0.attention.q_proj.weight" in text
    assert "left over: model.extra.weight" in text
    assert "projection_head.weight is (512, 767), should be (512, 768)" in text


@pytest.mark.parametrize("key", ["text_model.model.pooler.dense.bias", "logit_scale"])
def test_the_text_towers_keys_are_checked_before_it_is_built(state, small, tmp_path, key):
    bad = {k: v for k, v in state.items() if k != key}
    with pytest.raises(MedSAEError, match=re.escape(key.removeprefix("text_model."))):
        HookedVisionEncoder.from_pretrained(small, weights=save(bad, tmp_path))


def test_the_buffers_that_transformers_dropped_may_be_absent(state, small, tmp_path):
    slim = {k: v for k, v in state.items() if not k.endswith(("relative_position_index", "position_ids"))}
    assert len(slim) < len(state)
    HookedVisionEncoder.from_pretrained(small, weights=save(slim, tmp_path))


def test_another_towers_checkpoint_is_refused(state, tmp_path):
    with pytest.raises(MedSAEError, match=r"missing: .*embedder"):
        HookedVisionEncoder.from_pretrained("medclip-resnet50", weights=save(state, tmp_path))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"logit_scale": Hostile()}))
    with pytest.raises(MedSAEError, match="not a checkpoint of tensors alone"):
        HookedVisionEncoder.from_pretrained("medclip-swin", weights=tmp_path / "pytorch_model.bin")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_damaged_checkpoint_is_an_error_in_words(tmp_path, content):
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(MedSAEError, match=r"pytorch_model\.bin"):
        HookedVisionEncoder.from_pretrained("medclip-swin", weights=tmp_path)


def test_no_weights_there(tmp_path):
    with pytest.raises(MedSAEError, match="no weights at"):
        official_checkpoint(Source(load_card("medclip-swin"), tmp_path / "absent.bin"))
    with pytest.raises(MedSAEError, match=re.escape("holds no pytorch_model.bin")):
        official_checkpoint(Source(load_card("medclip-swin"), tmp_path))


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_a_zip_cannot_leave_its_folder(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.writestr("good.txt", "good")
        z.writestr(zipfile.ZipInfo(name), "evil")
    with pytest.raises(MedSAEError, match="would leave the folder"):
        unpack(tmp_path / "a.zip", tmp_path / "in" / "a")
    assert not list(tmp_path.rglob("*evil*")) and not (tmp_path / "in" / "a").exists()


def test_a_zip_with_a_link_or_a_flipped_bit_is_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as z:
        z.writestr(link, "/etc")
    with pytest.raises(MedSAEError, match="would leave the folder"):
        unpack(tmp_path / "link.zip", tmp_path / "in" / "link")
    with zipfile.ZipFile(tmp_path / "bits.zip", "w") as z:
        z.writestr("pytorch_model.bin", b"0123456789" * 100)
    content = bytearray((tmp_path / "bits.zip").read_bytes())
    content[200] ^= 1
    (tmp_path / "bits.zip").write_bytes(content)
    with pytest.raises(MedSAEError, match="is damaged"):
        unpack(tmp_path / "bits.zip", tmp_path / "in" / "bits")
    assert not (tmp_path / "in" / "bits").exists()


class Flaky(http.server.BaseHTTPRequestHandler):
    """Serves `content` with ranges, and cuts each of the first `cuts` answers after 40 kB."""

    content = bytes(range(256)) * 800
    cuts, ranges, status = 0, True, 200
    asked: list[str | None]

    def do_GET(self) -> None:
        cls = type(self)
        asked = self.headers.get("Range")
        cls.asked.append(asked)
        if cls.status != 200:
            self.send_error(cls.status)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and cls.ranges else 0
        body = cls.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if cls.cuts > 0:
            cls.cuts -= 1
            body = body[:40_000]
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[Flaky], str]]:
    handler = type("Handler", (Flaky,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield handler, f"http://127.0.0.1:{httpd.server_port}/weights.zip"
        httpd.shutdown()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_is_cut_goes_on(server, tmp_path, ranges):
    handler, url = server
    handler.cuts, handler.ranges = 2, ranges
    download(url, tmp_path / "weights.zip")
    assert (tmp_path / "weights.zip").read_bytes() == handler.content
    assert handler.asked == [None, "bytes=40000-", "bytes=80000-" if ranges else "bytes=40000-"]
    assert not (tmp_path / "weights.zip.part").exists()


def test_a_part_left_by_an_earlier_call_is_continued(server, tmp_path):
    handler, url = server
    (tmp_path / "weights.zip.part").write_bytes(handler.content[:123])
    download(url, tmp_path / "weights.zip")
    assert handler.asked == ["bytes=123-"] and (tmp_path / "weights.zip").read_bytes() == handler.content


def test_a_server_that_refuses_is_named(server, tmp_path):
    handler, url = server
    handler.status = 403
    with pytest.raises(MedSAEError, match="403"):
        download(url, tmp_path / "weights.zip")


def test_without_weights_the_cards_url_is_fetched_once_and_checked(server, state, small, tmp_path):
    handler, url = server
    checkpoint = save(state, tmp_path)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as z:
        z.write(checkpoint, "pytorch_model.bin")
    handler.content = (tmp_path / "z.zip").read_bytes()
    card = yaml.safe_load(small.read_text())
    card["source"] |= {"url": url, "sha256": sha256_of(checkpoint)}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(card))
    for _ in range(2):
        encoder = HookedVisionEncoder.from_pretrained(tmp_path / "mine.yaml")
    assert len(handler.asked) == 1 and encoder.weights_sha256 == sha256_of(checkpoint)
    card["source"]["sha256"] = "0" * 64
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(MedSAEError, match="its sha256 is another"):
        HookedVisionEncoder.from_pretrained(tmp_path / "mine.yaml")
