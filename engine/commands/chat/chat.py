"""`noodle-engine chat`: turns with the model of a running cluster."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from engine.commands.chat.conversation import Conversation, Order, help_text, read_line
from engine.commands.chat.options import Chat
from engine.commands.chat.reading import Reader, reader
from engine.commands.cluster.generate import Transcript, transcribe
from engine.commands.cluster.used import sampling_note
from engine.commands.output import note, printable, stand_in_note
from engine.data.errors import Exhausted, InvalidInput, NoodleError, Refused, Unauthorized
from engine.data.generation import GenerateRequest, TokenChunk
from engine.data.json_text import json_text
from engine.files import failure
from engine.service.client import Client

_FINAL = (Refused, Unauthorized)  # of a request for an answer: the next one would be refused as well

_TOO_LONG = (InvalidInput, Exhausted)  # perhaps for what was said before


def chat(options: Chat) -> int:
    """Talk until the reader has no more turns; returns the exit code."""
    return asyncio.run(_run(options))


async def _run(options: Chat) -> int:
    options.sampling.request()  # refused before anything is typed
    async with options.connection.client() as client:
        status, turns = await client.status(), reader(not options.no_history)
        if turns.is_person:
            name = status.model.name or "a model that is being prepared"
            note(f"{name} at {options.connection.connect}; /help lists commands, Ctrl-D ends")
        return await Talk(options, client, turns).run()


class Talk:
    """One conversation with one model."""

    def __init__(self, options: Chat, client: Client, turns: Reader) -> None:
        self._options, self._client, self._turns = options, client, turns
        self._conversation = Conversation(options.system or "")
        self._num_retries = 0
        self._told: set[str] = set()
        self._is_over = False

    async def run(self) -> int:
        """At a terminal an error is said, and the chat goes on if it can; from a pipe it ends the program."""
        while (text := await self._turns.next()) is not None:
            try:
                order = read_line(text)
                if isinstance(order, Order):
                    if order.name == "/quit":
                        break
                    await self._obey(order)
                elif order is not None:
                    self._num_retries = 0
                    self._conversation.ask(order)
                    await self._answer()
            except NoodleError as error:
                if not self._turns.is_person or self._is_over:
                    raise
                note(f"noodle-engine: {error}")
        return 0

    async def _obey(self, order: Order) -> None:
        conversation = self._conversation
        match order.name:
            case "/system":
                if order.argument:
                    conversation.system = "" if order.argument == "-" else order.argument
                note(f"system: {conversation.system}" if conversation.system else "the system says nothing")
            case "/reset":
                conversation.reset()
                note("the conversation begins anew")
            case "/retry":
                conversation.retry()
                self._num_retries += 1
                await self._answer()
            case "/save":
                _save(order.argument, conversation.document())
                note(f"{len(conversation.messages())} messages are in {order.argument}")
            case "/help":
                note(help_text())

    async def _answer(self) -> None:
        """Ask for what is due, and show it as it comes; what came before Ctrl-C counts as the answer."""
        shown = Transcript(0.0)
        asking = asyncio.create_task(transcribe(self._client, self._request(), self._show, shown))
        try:
            with _interrupting(asking):
                await asking
        except asyncio.CancelledError:
            self._keep(shown, "stopped")
            current = asyncio.current_task()
            if current is not None and current.cancelling():  # not by Ctrl-C: the program itself ends
                raise
        except NoodleError as error:
            self._keep(shown, "")
            self._is_over = isinstance(error, _FINAL)
            if isinstance(error, _TOO_LONG) and len(self._conversation.turns) > 1:
                raise type(error)(f"{error}; /reset begins the conversation anew") from error
            raise
        else:
            self._keep(shown, str(shown.finish_reason))

    def _request(self) -> GenerateRequest:
        options, sampling = self._options, self._options.sampling.request()
        if self._num_retries:
            sampling = replace(sampling, seed=((sampling.seed or 0) + self._num_retries) % 2**63)
        messages = json_text(self._conversation.messages())
        return GenerateRequest(messages=messages, max_new_tokens=options.max_new_tokens, sampling=sampling, stop=options.stop)

    def _show(self, chunk: TokenChunk) -> None:
        if chunk.used is not None:
            self._tell_once(sampling_note(chunk.used))
            if self._num_retries and not chunk.used.sampling.temperature:
                self._tell_once("the answer is greedy, so it will be the same: begin the chat with --temperature 0.7 to draw others")
        if chunk.stand_in_tokenizer:
            self._tell_once(stand_in_note(chunk.stand_in_tokenizer))
        print(printable(chunk.text) if sys.stdout.isatty() else chunk.text, end="", flush=True)

    def _tell_once(self, text: str) -> None:
        if text and text not in self._told:
            self._told.add(text)
            note(text)

    def _keep(self, shown: Transcript, ending: str) -> None:
        """What came is the answer; if nothing came, it is due still."""
        num_tokens, text = len(shown.arrived_s), "".join(chunk.text for chunk in shown.chunks)
        if text or num_tokens:
            self._conversation.answer(text)
        if text or ending:
            print(flush=True)
        if ending and self._turns.is_person:
            speed = f"; first after {shown.ttft_s:.2f} s, then {shown.tokens_per_s:.1f} tokens/s" if num_tokens else ""
            note(f"[{num_tokens} tokens, {ending}{speed}]")


@contextmanager
def _interrupting(task: asyncio.Task[Transcript]) -> Iterator[None]:
    """Ctrl-C ends the task and nothing else."""
    loop = asyncio.get_running_loop()
    former = signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(task.cancel))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _save(name: str, text: str) -> None:
    """Raises Refused for a file that is there, and what writing a file raises."""
    path = Path(name).expanduser()
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise Refused(f"{path} exists already: choose another name") from error
    except OSError as error:
        raise failure(error, path) from error
