"""An OpenAI-compatible server on loopback, which also stalls, refuses, fails and talks rubbish when told to."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Response:
    """What the server does with a request: answer `body` after `delay` seconds, or hang up."""

    body: str | bytes = ""
    status: int = 200
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    hang_up: bool = False


def completion(text: str) -> Response:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return Response(json.dumps(body))


@dataclass(frozen=True)
class Asked:
    """A request as the server got it: its texts, its pictures' bytes, the model, and a hash of all turns."""

    model: str
    texts: list[str]
    pictures: list[bytes]
    turns: int
    key: str
    body: dict[str, Any]

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


def read_request(body: dict[str, Any]) -> Asked:
    texts, pictures = [], []
    for message in body["messages"]:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                texts.append(part["text"])
            else:
                head, _, data = part["image_url"]["url"].partition(",")
                assert head == "data:image/png;base64"
                pictures.append(base64.b64decode(data))
    key = hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()
    return Asked(body["model"], texts, pictures, len(body["messages"]), key, body)


class ChatServer:
    """Answers by `respond(asked)`, a text or a `Response`; `asked` lists every request, `at_once` the most in work."""

    def __init__(self, respond: Callable[[Asked], str | Response]) -> None:
        self.respond, self.asked, self.answered, self.at_once = respond, [], [], 0
        self._working, self._lock = 0, threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                server._handle(self, read_request(json.loads(raw)))

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def __enter__(self) -> "ChatServer":
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)
            self._working += 1
            self.at_once = max(self.at_once, self._working)
        try:
            response = self.respond(asked)
            response = completion(response) if isinstance(response, str) else response
            time.sleep(response.delay)
            if response.hang_up:
                handler.connection.close()
                return
            body = response.body if isinstance(response.body, bytes) else response.body.encode()
            handler.send_response(response.status)
            for name, value in {
                "Content-Type": response.kind,
                "Content-Length": str(len(body)),
                **response.headers,
            }.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)
            with self._lock:
                self.answered.append(asked)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with self._lock:
                self._working -= 1
