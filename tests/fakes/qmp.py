"""A QMP server over a real Unix socket: one client at a time, JSON read as it comes, replies as a test scripted them.

It must never speak out of turn: after the greeting only replies, in order, and the events a test sends.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""}, "capabilities": ["oob"]}}
Arguments = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class QmpFailure:
    """An error reply."""

    error_class: str
    description: str


Answer = object | QmpFailure | Callable[[Arguments], object]


class FakeQmpServer:
    """``answers`` by command; ``latency_s`` and ``silent`` by command too; ``dies_on``: it hangs up instead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {"query-status": {"status": "prelaunch", "running": False}}
        self.latency_s: dict[str, float] = {}
        self.silent: set[str] = set()
        self.dies_on: set[str] = set()
        self.greets = True
        self.received: list[str] = []
        self._turn = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for client in tuple(self._clients):
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def send_event(self, name: str, **data: object) -> None:
        """An event to the connected client."""
        if self._writer is None:
            raise RuntimeError("nobody is connected")
        stamp = {"seconds": 1_700_000_000, "microseconds": 0}
        self._write(self._writer, {"timestamp": stamp, "event": name, "data": data})
        await self._writer.drain()

    async def hang_up(self) -> None:
        """Closes the connection without a word."""
        if self._writer is not None:
            self._writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)
        try:
            async with self._turn:  # like a chardev: the second client waits, ungreeted
                self._writer = writer
                if self.greets:
                    self._write(writer, GREETING)
                await self._converse(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = json.JSONDecoder()
        text = ""
        while data := await reader.read(65536):
            text += data.decode()
            while text := text.lstrip():
                try:
                    message, end = decoder.raw_decode(text)
                except json.JSONDecodeError:
                    break  # the rest is still to come: clients send no newline
                text = text[end:]
                if not await self._reply(message, writer):
                    return

    async def _reply(self, message: Mapping[str, object], writer: asyncio.StreamWriter) -> bool:
        name = str(message.get("execute", message.get("exec-oob")))
        self.received.append(name)
        if name in self.dies_on:
            return False
        await asyncio.sleep(self.latency_s.get(name, 0))
        if name not in self.silent:
            arguments = message.get("arguments", {})
            answer = self._answer(name, arguments if isinstance(arguments, Mapping) else {})
            self._write(writer, {**answer, "id": message.get("id")})
            await writer.drain()
        return True

    def _answer(self, name: str, arguments: Arguments) -> dict[str, object]:
        if name == "qmp_capabilities":
            return {"return": {}}
        if name not in self.answers:
            missing = f"The command {name} has not been found"
            return {"error": {"class": "CommandNotFound", "desc": missing}}
        answer = self.answers[name]
        if callable(answer):
            answer = answer(arguments)
        if isinstance(answer, QmpFailure):
            return {"error": {"class": answer.error_class, "desc": answer.description}}
        return {"return": answer}

    @staticmethod
    def _write(writer: asyncio.StreamWriter, message: Mapping[str, object]) -> None:
        writer.write(json.dumps(message).encode() + b"\r\n")
