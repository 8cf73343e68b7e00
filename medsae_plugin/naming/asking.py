"""Questions to a model: asked once, read strictly, asked again with what was wrong, else recorded as unanswered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from medsae_plugin.errors import MedSAEError
from medsae_plugin.naming.answers import Answers, key_of, request_of
from medsae_plugin.naming.chat import Chat, Conversation, Failure, Turn
from medsae_plugin.naming.prompts import load_prompt
from medsae_plugin.naming.schema import Answer, Unparsable, parse

ATTEMPTS = 3
# So many failures one after another, with no answer between them, are not bad luck.
_FAILURES_IN_A_ROW = 10
_QUOTED = 2000  # characters of an unusable answer that the model is shown again


@dataclass(frozen=True)
class Question:
    """A question: `build` makes the conversation when it is needed, so that pictures are not all in memory at once.

    prompt: the prompt's identity, kept with the answer.
    check: what is wrong with an answer that fits the schema, in words for the model; "" where nothing is.
    """

    build: Callable[[], Conversation]
    schema: type[Answer]
    prompt: str
    check: Callable[[Any], str] = lambda answer: ""


@dataclass(frozen=True)
class Reply:
    """An answer, or why there is none. `failed`: none came, so a later run asks again."""

    answer: Answer | None
    problem: str = ""
    failed: bool = False


class Asker:
    """Asks a model, and keeps what it says; `sent` and `reused` count requests made and answers that were there."""

    def __init__(self, chat: Chat, answers: Answers, *, progress: bool = True) -> None:
        self.chat, self.answers, self.progress = chat, answers, progress
        self.sent = self.reused = 0
        self._failures = 0

    def ask(self, questions: Sequence[Question], what: str = "questions") -> list[Reply]:
        """A reply to each question, in order.

        An answer that cannot be read is asked for again with the reason, `ATTEMPTS` times in all.

        Raises:
            MedSAEError: the model cannot be used, or fails again and again; what was answered is kept.
        """
        replies: list[Reply] = [Reply(None)] * len(questions)
        follow_ups: dict[int, tuple[Turn, ...]] = {i: () for i in range(len(questions))}
        with tqdm(total=len(questions), desc=what, disable=not self.progress, leave=False) as bar:
            for attempt in range(ATTEMPTS):
                again: dict[int, tuple[Turn, ...]] = {}
                for i, record in self._wave(questions, follow_ups):
                    replies[i] = reply = _read(record, questions[i])
                    if reply.answer is None and record.get("answer") is not None and attempt < ATTEMPTS - 1:
                        again[i] = (*follow_ups[i], *_once_more(record["answer"], reply.problem))
                    else:
                        bar.update()
                follow_ups = dict(sorted(again.items()))
        return replies

    def _wave(
        self, questions: Sequence[Question], follow_ups: dict[int, tuple[Turn, ...]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Ask these questions once; yields the record of each as it comes."""
        kept: list[tuple[int, dict[str, Any]]] = []
        requests: list[dict[str, Any]] = []
        waiting: dict[str, list[int]] = {}  # questions that share a request share its answer

        def needed() -> Iterator[Conversation]:
            for i, turns in follow_ups.items():
                conversation = (*questions[i].build(), *turns)
                request = request_of(self.chat.identity, questions[i].prompt, conversation)
                key = key_of(request)
                if key in waiting:
                    waiting[key].append(i)
                elif (record := self.answers.get(request)) is not None:
                    self.reused += 1
                    kept.append((i, record))
                else:
                    waiting[key] = [i]
                    requests.append(request)
                    self.sent += 1
                    yield conversation

        for place, reply in self.chat.replies(needed()):
            record = self._keep(requests[place], reply)
            # Taken out before any later question can join, whose answer is on disk from now on.
            for i in waiting.pop(key_of(requests[place])):
                yield i, record
        yield from kept

    def _keep(self, request: dict[str, Any], reply: str | Failure) -> dict[str, Any]:
        if isinstance(reply, str):
            self._failures = 0
            return self.answers.put(request, reply)
        if reply.lasting:
            return self.answers.put(request, None, reply.reason)
        self._failures += 1
        if self._failures >= _FAILURES_IN_A_ROW:
            raise MedSAEError(
                f"{self._failures} requests failed one after another, the last with: {reply.reason}. What was answered "
                "is kept; run the same command again to go on"
            )
        return {"answer": None, "refusal": reply.reason, "failed": True}


def _read(record: dict[str, Any], question: Question) -> Reply:
    if record["answer"] is None:
        return Reply(None, f"no answer came: {record['refusal']}", failed=record.get("failed", False))
    try:
        answer = parse(record["answer"], question.schema)
    except Unparsable as error:
        return Reply(None, str(error))
    problem = question.check(answer)
    return Reply(None, problem) if problem else Reply(answer)


def _once_more(text: str, problem: str) -> tuple[Turn, Turn]:
    return Turn("assistant", (text[:_QUOTED].strip() or "(nothing)",)), load_prompt("again").turn({}, problem=problem)
