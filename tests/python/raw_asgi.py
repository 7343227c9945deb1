"""ASGI by hand: an answer for each trap, and the lifespan."""

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time

NOTES = []
FAREWELL = []


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(scope, receive, send)
    name = scope["path"].removeprefix(scope["root_path"]).strip("/").split("/")[0] or "hello"
    await PAGES[scope["type"] + "_" + name](scope, receive, send)


async def lifespan(scope, receive, send):
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["color"] = "green"
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    for path in FAREWELL:
        with open(path, "w") as file:
            file.write("put away")
    await send({"type": "lifespan.shutdown.complete"})


async def answer(send, body, status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def http_hello(scope, receive, send):
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"14")]
    await answer(send, b"Hello, world!\n", headers=headers)


async def http_scope(scope, receive, send):
    scope = {name: repr(value) for name, value in scope.items()}
    await answer(send, json.dumps(scope).encode())


async def http_state(scope, receive, send):
    color = scope["state"]["color"]
    scope["state"]["color"] = "red"
    await answer(send, color.encode())


async def http_sum(scope, receive, send):
    """What came, and in how many events."""
    digest, count, events = hashlib.sha256(), 0, 0
    while True:
        event = await receive()
        assert event["type"] == "http.request", event
        digest.update(event["body"])
        count, events = count + len(event["body"]), events + 1
        if not event["more_body"]:
            break
    await answer(send, f"{count} {digest.hexdigest()} {events}".encode())


async def http_unread(scope, receive, send):
    """3 MB at once, with a field of this name, or with a last byte behind them."""
    name, body = scope["query_string"], b"x" * 3_000_000
    if name != b"more":
        return await answer(send, body, headers=[(name, b"3000000")] if name else [])
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b"x"})


async def http_after(scope, receive, send):
    """Behind the body receive() waits until the answer is complete, or the client gone."""
    await receive()
    waiting = asyncio.ensure_future(receive())
    await asyncio.sleep(0.7)
    early = waiting.done()
    await answer(send, b"early" if early else b"waited")
    NOTES.append((await waiting)["type"])


async def http_early(scope, receive, send):
    """Answers at once, while it listens for what comes."""
    listening = asyncio.ensure_future(receive())
    await asyncio.sleep(0.05)
    await answer(send, b"no", 403)
    NOTES.append((await listening)["type"])


async def http_first(scope, receive, send):
    """Needs one piece of the body, and not its end."""
    await answer(send, str(len((await receive())["body"])).encode())


async def http_notes(scope, receive, send):
    await answer(send, json.dumps(NOTES).encode())
    NOTES.clear()


async def http_leave(scope, receive, send):
    """Waits for the client to leave, and says so."""
    await receive()
    event = await receive()
    NOTES.append(event["type"])


async def http_drain(scope, receive, send):
    """Reads until the client has gone."""
    while (event := await receive())["type"] == "http.request":
        pass
    NOTES.append(event["type"])


async def http_stream(scope, receive, send):
    """Sends until nobody listens, and asks then whether that is so."""
    await receive()
    await send({"type": "http.response.start", "status": 200})
    ticks = b"tick\n" * int(scope["query_string"] or b"1")
    try:
        while True:
            await send({"type": "http.response.body", "body": ticks, "more_body": True})
            await asyncio.sleep(0.05)
    except OSError as error:
        NOTES.append(f"OSError: {error}, {(await receive())['type']}")
        raise RuntimeError("nobody listens")
    finally:
        NOTES.append("finally")


async def http_big(scope, receive, send):
    """100 MB. Remembers how far it has come."""
    await send({"type": "http.response.start", "status": 200})
    for number in range(400):
        await send({"type": "http.response.body", "body": b"x" * 250_000, "more_body": True})
        NOTES[:] = [number]
    await send({"type": "http.response.body"})


async def http_pieces(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    *pieces, last = scope["query_string"].split(b"&")
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": last})


async def http_empty(scope, receive, send):
    await answer(send, b"", status=int(scope["query_string"] or b"204"))


async def http_crlf(scope, receive, send):
    await answer(send, b"", headers=[(b"x-a", b"1\r\nx-b: 2")])


async def http_nul(scope, receive, send):
    await answer(send, b"", headers=[(b"x-a", b"1\0x-b\x002")])


async def http_raise(scope, receive, send):
    raise ValueError("before the head")


async def http_unprintable(scope, receive, send):
    raise ValueError("a name that is no UTF-8: " + os.fsdecode(b"\xff"))


async def http_late(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise ValueError("in the middle")


async def http_start(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    raise ValueError("behind the start")


async def http_twice(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.start", "status": 201})


async def http_nothing(scope, receive, send):
    pass


async def http_background(scope, receive, send):
    await answer(send, b"done")
    await asyncio.sleep(0.2)
    NOTES.append("afterwards")
    if path := scope["query_string"]:
        with open(path, "w") as file:
            file.write("afterwards")


async def http_again(scope, receive, send):
    await answer(send, b"once")
    await asyncio.sleep(0.05)
    await send({"type": "http.response.body", "body": b"twice"})


async def http_cancel(scope, receive, send):
    raise asyncio.CancelledError


async def http_exit(scope, receive, send):
    sys.exit(3)


async def http_die(scope, receive, send):
    with open(scope["query_string"].decode(), "a") as file:
        file.write("x")
    os._exit(1)


async def http_block(scope, receive, send):
    time.sleep(1000)


async def http_loop(scope, receive, send):
    while True:
        pass


async def http_slow(scope, receive, send):
    await asyncio.sleep(0.5)
    await answer(send, b"slow")


async def http_pid(scope, receive, send):
    await answer(send, str(os.getpid()).encode())


async def http_farewell(scope, receive, send):
    FAREWELL.append(scope["query_string"].decode())
    await answer(send, b"")


async def http_print(scope, receive, send):
    print("printed by the application")
    await answer(send, repr(sys.stdin.read()).encode())


async def http_child(scope, receive, send):
    child = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True)
    await answer(send, child.stdout)


async def websocket_echo(scope, receive, send):
    assert (await receive())["type"] == "websocket.connect"
    offered = scope["subprotocols"]
    choice = offered[-1] if offered else None
    headers = [(b"x-state", scope["state"]["color"].encode())]
    await send({"type": "websocket.accept", "subprotocol": choice, "headers": headers})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            NOTES.append([event["code"], event["reason"]])
            return
        if event.get("text") == "raise":
            raise ValueError("in a WebSocket")
        if event.get("text") == "return":
            return
        if event.get("text") == "die":
            os._exit(1)
        if event.get("text") == "close":
            await send({"type": "websocket.close", "code": 3001, "reason": "enough"})
            with contextlib.suppress(OSError):
                await send({"type": "websocket.send", "text": "one more"})
            continue
        await send({**event, "type": "websocket.send"})


async def websocket_scope(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    scope = {name: repr(value) for name, value in scope.items()}
    await send({"type": "websocket.send", "text": json.dumps(scope)})


async def websocket_push(scope, receive, send):
    """Talks without listening, until nobody is there."""
    await receive()
    await send({"type": "websocket.accept"})
    try:
        while True:
            await send({"type": "websocket.send", "text": "tick"})
            await asyncio.sleep(0.02)
    except OSError as error:
        notes = [f"OSError: {error}"]
    await asyncio.sleep(0.1)
    notes.append((await receive())["type"])
    try:
        await receive()
    except RuntimeError as error:
        NOTES.extend([*notes, f"RuntimeError: {error}"])


async def websocket_stone_deaf(scope, receive, send):
    """Accepts, and neither receives nor sends."""
    await receive()
    await send({"type": "websocket.accept"})
    await asyncio.sleep(6)


async def websocket_deaf(scope, receive, send):
    """Accepts, and receives nothing for a while."""
    await receive()
    await send({"type": "websocket.accept"})
    await asyncio.sleep(1.5)
    count = 0
    while (await receive())["type"] != "websocket.disconnect":
        count += 1
        if count == 200:
            await send({"type": "websocket.send", "text": str(count)})


async def websocket_refuse(scope, receive, send):
    await receive()
    await send({"type": "websocket.close"})
    NOTES.append((await receive())["type"])


async def websocket_deny(scope, receive, send):
    await receive()
    start = {"type": "websocket.http.response.start", "status": 402}
    await send({**start, "headers": [(b"x-why", b"money")]})
    await send({"type": "websocket.http.response.body", "body": b"Pay first.\n"})
    NOTES.append((await receive())["type"])


async def websocket_silent(scope, receive, send):
    pass


async def websocket_early(scope, receive, send):
    await receive()
    await send({"type": "websocket.send", "text": "too early"})


async def websocket_undecided(scope, receive, send):
    await receive()
    NOTES.append((await receive())["type"])


PAGES = {name: page for name, page in globals().items() if name.startswith(("http_", "websocket_"))}


async def echo(scope, receive, send):
    """A WebSocket that says what it hears, at any path."""
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


async def plain(scope, receive, send):
    """An application that knows no lifespan."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await http_hello(scope, receive, send)


async def failing(scope, receive, send):
    """An application whose start fails."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database\n"})


def make_app():
    return plain


def wsgi(environ, start_response):
    pass
