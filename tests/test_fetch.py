"""The network from the package's one door to it: servers on loopback that misbehave, settings that are misspelt."""

import hashlib
import http.server
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from medsae_plugin.encoders import HookedVisionEncoder
from medsae_plugin.errors import MedSAEError
from medsae_plugin.fetch import download, hub_file, hub_file_if_any, network_reason, unreachable

BODY = bytes(range(256)) * 1000
COMMIT = "1" * 40


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as the Hub does for one file of BODY, and cuts each answer's body after `sends` bytes."""

    sends, asked = len(BODY), 0

    def do_HEAD(self) -> None:
        type(self).asked += 1
        self.send_response(200)
        etag = f'"{hashlib.sha256(BODY).hexdigest()}"'
        for key, value in (("X-Repo-Commit", COMMIT), ("ETag", etag), ("Content-Length", str(len(BODY)))):
            self.send_header(key, value)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(BODY[: self.sends])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of this machine's settings, an empty cache, and a client that is made anew."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture
def server() -> Iterator[tuple[type[Server], http.server.ThreadingHTTPServer]]:
    handler = type("Handler", (Server,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield handler, httpd
        httpd.shutdown()


def endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("HF_ENDPOINT", url)


def free_port() -> int:
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as httpd:
        return httpd.server_port


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HF_ENDPOINT", "127.0.0.1:9", "missing an 'http://' or 'https://' protocol"),
        ("HF_ENDPOINT", "htp://127.0.0.1:9", "unsupported protocol 'htp://'"),
        ("HF_ENDPOINT", "http://127.0.0.1:PORT", "Connection refused"),
        ("HTTPS_PROXY", "foo://someone:secret@127.0.0.1:9", "Unknown scheme for proxy"),
        ("HTTPS_PROXY", "http://someone:secret@127.0.0.1:port", "Invalid port"),
        ("HTTPS_PROXY", "http://someone:secret@127.0.0.1:PORT", "Connection refused"),
        ("HTTPS_PROXY", "socks5://someone:secret@127.0.0.1:PORT", ""),
        ("SSL_CERT_FILE", "/absent.pem", "No such file or directory"),
    ],
)
def test_a_misspelt_setting_is_named_at_once(monkeypatch, variable, value, said):
    value = value.replace("PORT", str(free_port()))
    if variable == "HF_ENDPOINT":
        endpoint(monkeypatch, value)
    monkeypatch.setenv(variable, value)
    start = time.monotonic()
    with pytest.raises(MedSAEError) as caught:
        hub_file("org/name", "model.safetensors")
    shown = value.replace("someone:secret@", "")
    assert said in str(caught.value) and f"{variable}={shown}" in str(caught.value)
    assert "secret" not in str(caught.value) and time.monotonic() - start < 15


def test_offline_is_said_and_the_cache_still_serves(monkeypatch, server):
    endpoint(monkeypatch, f"http://127.0.0.1:{server[1].server_port}")
    path = hub_file("org/name", "model.safetensors", COMMIT)
    assert path.read_bytes() == BODY
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = server[0].asked
    assert hub_file("org/name", "model.safetensors", COMMIT) == path
    with pytest.raises(MedSAEError, match=r"not in the cache, and the Hub cannot be reached \(HF_HUB_OFFLINE is set\)"):
        hub_file("org/name", "other.bin", COMMIT)
    with pytest.raises(MedSAEError, match="HF_HUB_OFFLINE is set"):
        hub_file_if_any("org/name", "other.bin", COMMIT)  # nobody knows, so it is not "no"
    assert server[0].asked == asked


def test_a_connection_that_is_cut_says_to_run_it_again(monkeypatch, server):
    handler, httpd = server
    endpoint(monkeypatch, f"http://127.0.0.1:{httpd.server_port}")
    handler.sends = 1000
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    with pytest.raises(MedSAEError, match=r"the connection was cut .*; run it again to go on"):
        hub_file("org/name", "model.safetensors")
    with pytest.raises(MedSAEError, match=r"card rad-dino: microsoft/rad-dino: the connection was cut .*run it again"):
        HookedVisionEncoder.from_pretrained("rad-dino")


def test_a_token_that_no_request_can_carry_is_not_repeated(monkeypatch, server):
    endpoint(monkeypatch, f"http://127.0.0.1:{server[1].server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_ä-secret")
    with pytest.raises(MedSAEError, match="HF_TOKEN") as caught:
        hub_file("org/name", "model.safetensors")
    assert "secret" not in str(caught.value)


def test_a_server_that_is_no_hub_is_said(monkeypatch, server):
    """As a network's login page answers."""
    handler, httpd = server
    endpoint(monkeypatch, f"http://127.0.0.1:{httpd.server_port}")
    monkeypatch.setattr(handler, "do_HEAD", lambda self: (self.send_response(200), self.end_headers()))
    with pytest.raises(MedSAEError, match="cannot be reached"):
        hub_file("org/name", "model.safetensors")


def test_a_certificate_that_is_not_trusted_is_said(monkeypatch, tmp_path, server):
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    words = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout key.pem -out cert.pem"
    subprocess.run(["openssl", *words.split()], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    httpd = server[1]
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    url = f"https://localhost:{httpd.server_port}"
    endpoint(monkeypatch, url)
    reason = unreachable()
    assert reason is not None and "certificate is not trusted: self" in reason and "SSL_CERT_FILE" in reason
    with pytest.raises(MedSAEError, match="certificate is not trusted: self"):
        hub_file("org/name", "model.safetensors")
    start = time.monotonic()
    with pytest.raises(MedSAEError, match="certificate is not trusted: self"):
        download(f"{url}/weights.zip", tmp_path / "weights.zip")
    assert time.monotonic() - start < 5, "trying again would not help"


@pytest.mark.parametrize("url", ["no-address", "foo://host/x", "http://127.0.0.1:port/x", "http://[::1/x"])
def test_an_address_that_is_none_is_said(tmp_path, url):
    with pytest.raises(MedSAEError, match="cannot be fetched"):
        download(url, tmp_path / "x")


def test_what_has_no_network_in_it_is_not_put_on_the_network():
    for error in (ValueError("x"), PermissionError(13, "no", "/a"), UnicodeEncodeError("ascii", "ä", 0, 1, "no")):
        assert network_reason(error) is None
