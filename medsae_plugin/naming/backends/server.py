"""Models behind an OpenAI-compatible server: vLLM, TGI, SGLang, llama.cpp, or a hosted one."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import PurePath
from typing import Any

from medsae_plugin.errors import MedSAEError, reason_of
from medsae_plugin.fetch import network_reason
from medsae_plugin.naming.chat import Conversation, Failure, Picture, Turn
from medsae_plugin.text import printable

_MAX_TOKENS = 512
# Seconds before the second try, doubled up to the most before each further one, as the client's own pauses are.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0


class Server:
    """A model behind `POST {url}/chat/completions`, asked by several requests at once; images go as data URLs.

    A time-out, a lost connection, 408, 409, 429 and 5xx are tried again, `retries` times, after pauses that double
    from half a second to 8, or as long as the server says (`Retry-After`); so is an answer that is no chat completion.
    The key, where the server wants one, is taken from the environment, `OPENAI_API_KEY`.

    Args:
        url: such as `http://localhost:8000/v1`.
        model: the name under which the server has it.
        concurrency: requests at once.
        timeout: seconds that one try may take.

    Raises:
        MedSAEError: the `openai` package is missing, or a figure is out of range.
    """

    def __init__(
        self, url: str, model: str, *, concurrency: int = 8, timeout: int | float = 120.0, retries: int = 5
    ) -> None:
        try:
            import openai
        except ImportError:
            raise MedSAEError("asking a server needs the openai package: pip install 'medsae-plugin[server]'") from None
        if concurrency < 1 or timeout <= 0 or retries < 0:
            raise MedSAEError("concurrency is 1 or more, the time-out above 0 seconds, retries 0 or more")
        self.model, self.url, self.concurrency, self.retries = model, url, concurrency, retries
        self._client = openai.OpenAI(
            base_url=url, api_key=os.environ.get("OPENAI_API_KEY") or "none", timeout=timeout, max_retries=retries
        )

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's name and how it is asked; not where it is, nor the folder that a server may name it by."""
        return {
            "model": PurePath(self.model).name if self.model.startswith("/") else self.model,
            "temperature": 0,
            "max_tokens": _MAX_TOKENS,
            "seed": 0,
        }

    def replies(self, conversations: Iterable[Conversation]) -> Iterator[tuple[int, str | Failure]]:
        running: dict[Future[str | Failure], int] = {}
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            for place, conversation in enumerate(conversations):
                running[pool.submit(self._ask, conversation)] = place
                done, _ = wait(running, 0 if len(running) < self.concurrency else None, FIRST_COMPLETED)
                yield from ((running.pop(future), future.result()) for future in done)
            while running:
                done, _ = wait(running, None, FIRST_COMPLETED)
                yield from ((running.pop(future), future.result()) for future in done)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, conversation: Conversation) -> str | Failure:
        import openai

        for attempt in range(self.retries + 1):
            try:
                answer = self._client.chat.completions.create(
                    model=self.model,
                    messages=[_message(turn) for turn in conversation],  # type: ignore[misc]
                    temperature=0,
                    max_tokens=_MAX_TOKENS,
                    seed=0,
                )
                return answer.choices[0].message.content or ""
            except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
                raise MedSAEError(f"{self.url} refuses {self.model}: {_reason(error)}") from None
            except openai.APIStatusError as error:
                status, reason = str(error.status_code), _reason(error)  # older releases of openai leave it out
                reason = reason if status in reason else f"{status} {reason}"
                return Failure(reason, lasting=error.status_code in (400, 413, 422))
            except openai.APIConnectionError as error:
                return Failure((network_reason(error) or _reason(error))[:200], lasting=False)
            except (AttributeError, IndexError, TypeError, ValueError, openai.APIResponseValidationError):
                if attempt < self.retries:
                    time.sleep(min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE))
        return Failure("what it answers is no chat completion", lasting=False)


def _message(turn: Turn) -> dict[str, Any]:
    if turn.role == "assistant":
        return {"role": "assistant", "content": "".join(part for part in turn.parts if isinstance(part, str))}
    return {"role": "user", "content": [_part(part) for part in turn.parts]}


def _part(part: str | Picture) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    data = base64.b64encode(part.png).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def _reason(error: Exception) -> str:
    return printable(reason_of(error)[:200])
