"""/ws: commands in, states and patches out. All messages are JSON texts.

    client                             server
    {"subscribe":"token:ID"}           {"type":"state","token":ID,"seq":N,"state":{the REST reply}}, then patches:
                                       {"type":"patch","token":ID,"seq":N+1,"patch":[RFC 6902 operations]}
    {"resume":{"token":ID,"seq":N}}    {"type":"resumed","token":ID,"seq":N} and the patches after N, or a state
    {"unsubscribe":"token:ID"}         {"type":"unsubscribed","token":ID}
    {"ping":X}                         {"type":"pong","ping":X}
    anything wrong                     {"type":"error","code":...,"detail":...,"token":ID if it concerns one}

An ID that is an address may be answered with the spelling that its producers use: that one is followed from then on.
A seq is a decimal string that grows by one with each patch of a token; its beginning is arbitrary. A state may come at
any time and replaces everything known of its token: a client that was too slow gets it instead of what it missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import Final

import msgspec
from fastapi import WebSocket, WebSocketDisconnect
from starlette.types import Message

from swapstats_api.access.origins import may_read
from swapstats_api.problems import problem
from swapstats_api.reading.reads import Overloaded, Refusal
from swapstats_api.ws.client import POLICY_VIOLATION, Client
from swapstats_api.ws.hub import Error, Hub, frame

COMMAND_LENGTH: Final = 4_096
"""Longest command, in characters."""
SEND_TIMEOUT_S: Final = 5.0
"""How long one frame may take to leave; a client that doesn't read fills the socket's buffers first."""
CLOSE_TIMEOUT_S: Final = 2.0
_USAGE: Final = (
    'send one of {"subscribe":"token:ID"}, {"unsubscribe":"token:ID"}, {"resume":{"token":"ID","seq":"N"}}, '
    '{"ping":TEXT}'
)


class _Resume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: str
    seq: str


class _Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    subscribe: str | msgspec.UnsetType = msgspec.UNSET
    unsubscribe: str | msgspec.UnsetType = msgspec.UNSET
    resume: _Resume | msgspec.UnsetType = msgspec.UNSET
    ping: str | int | msgspec.UnsetType | None = msgspec.UNSET


class _Unsubscribed(msgspec.Struct, frozen=True, tag="unsubscribed", tag_field="type"):
    token: str


class _Pong(msgspec.Struct, frozen=True, tag="pong", tag_field="type"):
    ping: str | int | None


class _Nonsense(Exception):
    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


_decode = msgspec.json.Decoder(_Command).decode


async def serve(websocket: WebSocket, hub: Hub, origins: Collection[str]) -> None:
    """One connection, from the handshake to its end. ``origins``: those of foreign pages that may listen."""
    origin = websocket.headers.get("origin")
    if not may_read(origin, websocket.headers.get("host"), origins):
        detail = f"pages of {origin} may not connect: add it to spec.api.http.corsOrigins if they shall"
        await websocket.send_denial_response(problem(403, "origin_not_allowed", detail, websocket.url.path))
        return
    try:
        client = hub.join()
    except Overloaded as refusal:
        await websocket.send_denial_response(problem(503, refusal.code, refusal.detail, websocket.url.path))
        return
    try:
        await websocket.accept()
        receiving = asyncio.create_task(_receive(websocket, hub, client))
        sending = asyncio.create_task(_send(websocket, client))
        try:
            await asyncio.wait((receiving, sending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (receiving, sending):
                task.cancel()
            results = await asyncio.gather(receiving, sending, return_exceptions=True)
        if client.closing is not None:
            code, reason = client.closing
            # The peer may be gone, or not reading: then there is nobody to tell.
            with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
                await asyncio.wait_for(websocket.close(code, reason), CLOSE_TIMEOUT_S)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
                raise result
    finally:
        hub.leave(client)


async def _send(websocket: WebSocket, client: Client) -> None:
    while (text := await client.next()) is not None:
        try:
            await asyncio.wait_for(websocket.send_text(text), SEND_TIMEOUT_S)
        except TimeoutError:
            client.close(POLICY_VIOLATION, f"too slow: nothing read for {SEND_TIMEOUT_S:.0f} s")


async def _receive(websocket: WebSocket, hub: Hub, client: Client) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        await client.room()
        token = None
        try:
            command = _parse(message)
            if isinstance(command.subscribe, str):
                token = _token(command.subscribe)
                await hub.subscribe(client, token)
            elif isinstance(command.unsubscribe, str):
                token = _token(command.unsubscribe)
                hub.unsubscribe(client, token)
                client.push(frame(_Unsubscribed(token)))
            elif isinstance(command.resume, _Resume):
                token = command.resume.token
                await hub.resume(client, token, command.resume.seq)
            elif not isinstance(command.ping, msgspec.UnsetType):
                client.push(frame(_Pong(command.ping)))
        except (_Nonsense, Refusal) as error:
            client.push(frame(Error(error.code, error.detail, token)))


def _parse(message: Message) -> _Command:
    text = message.get("text")
    if text is None:
        raise _Nonsense("not_text", f"binary messages mean nothing here: {_USAGE}")
    if len(text) > COMMAND_LENGTH:
        raise _Nonsense("too_long", f"a command has at most {COMMAND_LENGTH} characters, this one {len(text)}")
    try:
        command = _decode(text)
    except msgspec.ValidationError as error:
        raise _Nonsense("bad_command", f"{error}: {_USAGE}") from None
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise _Nonsense("bad_json", f"not JSON ({error}): {_USAGE}") from None
    given = [name for name in command.__struct_fields__ if getattr(command, name) is not msgspec.UNSET]
    if len(given) != 1:
        raise _Nonsense("bad_command", f"a command has exactly one key, this one {len(given)}: {_USAGE}")
    return command


def _token(topic: str) -> str:
    kind, colon, token = topic.partition(":")
    if kind != "token" or not colon:
        raise _Nonsense("unknown_topic", f"{topic[:40]!r}: topics are written token:ID")
    return token
