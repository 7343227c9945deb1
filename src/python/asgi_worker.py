"""The process behind asgi_host.rs: it runs one ASGI application, on one event loop.

It is started as `python3 -u -c SCRIPT application path`. It imports the application,
listens at the path, and says `+` on its standard input, which is a socket, the control line. Then
the server connects. Each connection is a lane: it carries one request at a time, in frames of
`kind (1 byte), length (4 bytes, big-endian), payload`:

    kind     from      payload
    R        server    a request; its whole body follows as one B
    S        server    a request whose body is asked for, piece by piece
    N        worker    the application wants a piece of the body
    B        server    a piece of the body; an empty one is the end
    H        worker    status and fields of the answer
    D, E     worker    a piece of its body; the last piece
    W        server    a client wants to open a WebSocket
    A, F     worker    the application accepts, with subprotocol and fields; it refuses
    T, Y, C  both      text; bytes; a close, with code (2 bytes) and reason. For a request, C says
                       that the client has hung up
    E        worker    the application has returned, and the WebSocket may end
    !        worker    the application has failed
    ?        both      are you there?
    Q        server    stop: no new requests; end when those that have begun are answered

The server closes a lane when the client has gone.
"""

import asyncio
import collections
import fcntl
import inspect
import os
import signal
import socket
import struct
import sys
import traceback

FRAME = struct.Struct("!cI")
CODE = struct.Struct("!H")
# The longest piece of an answer in one frame, in bytes.
PIECE = 256 * 1024
# How much is read at once, in bytes.
ARRIVALS = 256 * 1024
# WebSocket messages that wait for the application, and their bytes. With more of them we stop
# reading, and the client has to wait.
INBOX, INBOX_BYTES = 32, 1024 * 1024


class ClientGone(OSError):
    """What send() raises when nobody listens any more. The specification wants an OSError."""


class Lane(asyncio.BufferedProtocol):
    """One connection from the server. All lanes are read into the same memory: a plain Protocol asks
    the kernel for 256 KB before each read, and gives them back behind it."""

    def __init__(self, worker):
        self.worker = worker
        self.buffer = bytearray()
        self.call = None
        self.paused = False

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, error):
        if self.call:
            self.call.hang_up()

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False
        if self.call:
            self.call.tell()

    def write(self, kind, payload=b""):
        self.transport.write(FRAME.pack(kind, len(payload)) + payload)

    def get_buffer(self, hint):
        return self.worker.arrivals

    def buffer_updated(self, count):
        data = self.worker.arrivals[:count]
        if self.buffer:
            self.buffer += data
            data = self.buffer
        start, last = 0, len(data) - FRAME.size
        while start <= last:
            kind, length = FRAME.unpack_from(data, start)
            end = start + FRAME.size + length
            if end > len(data):
                break
            self.frame(kind, bytes(data[start + FRAME.size : end]))
            start = end
        if data is self.buffer:
            del data[:start]
        elif start < count:
            self.buffer += data[start:]

    def frame(self, kind, payload):
        if kind in b"RS":
            self.begin(Http(self, kind, payload))
        elif kind == b"W":
            self.begin(WebSocket(self, kind, payload))
        elif kind == b"?":
            self.write(b"?")
        elif kind == b"Q":
            self.worker.stopping.set()
        elif self.call:
            self.call.frame(kind, payload)

    def begin(self, call):
        self.call = call
        call.task = self.worker.loop.create_task(call.run())
        # The loop itself holds its tasks by weak references only.
        self.worker.calls.add(call)


class Call:
    """One call of the application: what requests and WebSockets have in common."""

    def __init__(self, lane, block):
        self.lane = lane
        self.inbox = collections.deque()
        self.waiters = []
        self.gone = False  # The client has, or the server has no use for this call.
        self.head = None  # The answer's, until it has been sent.
        self.stage = "asked"
        subprotocols, method, path, root_path, scheme, version, *rest = block.split(b"\0")
        client, client_port, server, server_port, raw_path, query, *headers = rest
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": version.decode(),
            "method": method.decode(),
            "scheme": scheme.decode(),
            "path": path.decode(),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": root_path.decode(),
            "headers": list(zip(headers[::2], headers[1::2])),
            "client": (client.decode(), int(client_port)),
            "server": (server.decode(), int(server_port)),
            "state": lane.worker.state.copy(),
            "extensions": {},
            "subprotocols": [name.decode() for name in subprotocols.split(b",") if name],
        }

    def tell(self):
        """Something has changed: whoever waits shall look again."""
        if not self.waiters:
            return
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def news(self):
        waiter = self.lane.worker.loop.create_future()
        self.waiters.append(waiter)
        await waiter

    async def drain(self):
        """Back-pressure: waits until the server has taken most of what was written."""
        while self.lane.paused and not self.gone:
            await self.news()
        if self.gone:
            raise ClientGone("the client has gone")

    def hang_up(self):
        self.gone = True
        self.tell()

    async def run(self):
        problem = ""
        try:
            await self.lane.worker.app(self.scope, self.receive, self.send)
        except (Exception, asyncio.CancelledError) as error:
            problem = f"{type(error).__name__}: {error}"
            if not is_about_client(error):
                sys.stderr.write(traceback.format_exc())
        finally:
            self.lane.worker.calls.discard(self)
        if not self.gone:
            self.end(problem)

    def answer(self, kind, event):
        """An event of an answer. Its head waits for the first piece of its body."""
        if kind == "start" and self.stage == "asked":
            self.head = block(b"%d" % event["status"], event.get("headers"))
            self.stage = "started"
            return
        if kind != "body" or self.stage not in ("started", "sending"):
            raise RuntimeError(f"{event['type']} does not fit here: the answer is {self.stage}")
        body, more = event.get("body", b""), event.get("more_body", False)
        if self.stage == "started":
            if not more and len(body) > PIECE and b"\0content-length\0" not in self.head.lower():
                self.head += b"content-length\0%d\0" % len(body)
            head = FRAME.pack(b"H", len(self.head)) + self.head
        else:
            head = b""
        while len(body) > PIECE:
            self.lane.transport.write(head + FRAME.pack(b"D", PIECE) + body[:PIECE])
            head, body = b"", memoryview(body)[PIECE:]
        self.lane.transport.write(head + FRAME.pack(b"D" if more else b"E", len(body)) + body)
        # When it is complete the lane may carry another request.
        self.stage = "sending" if more else "complete"
        self.tell()


class Http(Call):
    """A request, and its answer."""

    def __init__(self, lane, kind, block):
        super().__init__(lane, block)
        self.is_pulled = kind == b"S"
        self.has_asked = False
        self.body_ended = False
        self.hung_up = False
        del self.scope["subprotocols"]

    def frame(self, kind, payload):
        if kind == b"B":
            self.has_asked = False
            self.body_ended = not payload or not self.is_pulled
            more_body = not self.body_ended
            event = {"type": "http.request", "body": payload, "more_body": more_body}
            self.inbox.append(event)
        elif kind == b"C":
            # It may still read. If not, the lane will be closed when we send.
            self.hung_up = True
        self.tell()

    async def receive(self):
        while not self.inbox:
            if self.gone or self.hung_up or self.stage == "complete":
                return {"type": "http.disconnect"}
            if self.is_pulled and not self.has_asked and not self.body_ended:
                self.has_asked = True
                self.lane.write(b"N")
            # Behind the body there is only the end, and it has to be waited for: to say that the
            # client has gone while it waits for its answer would be a lie.
            await self.news()
        return self.inbox.popleft()

    async def send(self, event):
        if self.gone:
            raise ClientGone("the client has gone")
        self.answer(event["type"].removeprefix("http.response."), event)
        if self.lane.paused:
            await self.drain()

    def end(self, problem):
        if self.hung_up and self.stage == "asked" and not problem:
            # Nobody waits for an answer. In a log this number says so, since nginx began it.
            self.answer("start", {"status": 499})
            self.answer("body", {})
        # An application may go on when its answer is complete, and fail then.
        if self.stage != "complete":
            problem = problem or "the application returned without an answer"
            self.lane.write(b"!", problem.encode(errors="replace"))


class WebSocket(Call):
    """A WebSocket, from its handshake to its end."""

    def __init__(self, lane, kind, block):
        super().__init__(lane, block)
        self.scope.update(type="websocket", extensions={"websocket.http.response": {}})
        del self.scope["method"]
        self.inbox.append({"type": "websocket.connect"})
        self.inbox_bytes = 0

    def frame(self, kind, payload):
        if kind == b"T":
            event = {"type": "websocket.receive", "text": payload.decode()}
        elif kind == b"Y":
            event = {"type": "websocket.receive", "bytes": payload}
        elif kind == b"C":
            return self.disconnect(CODE.unpack_from(payload)[0], payload[2:].decode())
        else:
            return
        self.inbox.append(event)
        self.inbox_bytes += len(payload)
        if self.is_behind():
            self.lane.transport.pause_reading()
        self.tell()

    def is_behind(self):
        return len(self.inbox) > INBOX or self.inbox_bytes > INBOX_BYTES

    def disconnect(self, code, reason=""):
        if not self.gone:
            self.inbox.append({"type": "websocket.disconnect", "code": code, "reason": reason})
            super().hang_up()

    def hang_up(self):
        self.disconnect(1006)

    async def receive(self):
        while not self.inbox:
            if self.gone:
                raise RuntimeError("websocket.disconnect was the last event")
            await self.news()
        event, was_behind = self.inbox.popleft(), self.is_behind()
        self.inbox_bytes -= len(event.get("text") or event.get("bytes") or "")
        if was_behind and not self.gone:
            self.lane.transport.resume_reading()
        return event

    async def send(self, event):
        if self.gone or self.stage == "closed":
            raise ClientGone("the WebSocket has ended")
        kind = event["type"]
        if kind.startswith("websocket.http.response."):
            self.answer(kind[len("websocket.http.response.") :], event)
            if self.stage == "complete":
                self.disconnect(1006)
        elif kind == "websocket.accept" and self.stage == "asked":
            self.stage = "open"
            subprotocol = (event.get("subprotocol") or "").encode()
            self.lane.write(b"A", block(subprotocol, event.get("headers")))
        elif kind == "websocket.close" and self.stage == "asked":
            self.lane.write(b"F")
            self.disconnect(1006)
        elif kind == "websocket.close" and self.stage == "open":
            self.stage = "closed"
            reason = (event.get("reason") or "").encode()
            self.lane.write(b"C", CODE.pack(event.get("code", 1000)) + reason)
        elif kind == "websocket.send" and self.stage == "open":
            text = event.get("text")
            if text is None:
                self.lane.write(b"Y", event["bytes"])
            else:
                self.lane.write(b"T", text.encode())
            await self.drain()
        else:
            raise RuntimeError(f"{kind} does not fit here: the WebSocket is {self.stage}")

    def end(self, problem):
        if self.stage not in ("open", "closed"):
            problem = problem or "the application neither accepted nor refused"
        self.lane.write(b"!" if problem else b"E", problem.encode(errors="replace"))


def block(first, headers):
    """Texts with a NUL behind each. None of them may hold one: it would forge a field."""
    texts = [first]
    for name, value in headers or ():
        texts += (name, value)
    texts.append(b"")
    joined = b"\0".join(texts)
    if joined.count(b"\0") != len(texts) - 1:
        raise ValueError("a field holds a NUL byte")
    return joined


def is_about_client(error):
    """Whether an error has its cause in a client that has gone: that is nobody's mistake."""
    while error is not None and not isinstance(error, ClientGone):
        error = error.__cause__ or error.__context__
    return error is not None


class StartError(Exception):
    """The application cannot be served, and this is why."""


class Lifespan:
    """The application's own life: it hears of the start and of the end."""

    def __init__(self, worker):
        self.worker = worker
        self.events = asyncio.Queue()
        self.answers = asyncio.Queue()
        self.task = asyncio.ensure_future(self.run())

    async def run(self):
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
        scope["state"] = self.worker.state
        try:
            await self.worker.app(scope, self.events.get, self.answers.put)
        except Exception:
            # Before it has answered, this only says that it does not know the scope.
            if self.worker.is_ready:
                sys.stderr.write(traceback.format_exc())
        finally:
            self.answers.put_nowait({"type": "none"})

    async def say(self, event):
        """Tells the application, and waits for what it has to say."""
        if self.task.done():
            return
        self.events.put_nowait({"type": event})
        answer = await self.answers.get()
        if answer["type"] == event + ".failed":
            raise StartError(answer.get("message") or event + ".failed")


def load(name):
    """Finds MODULE:CALLABLE, or calls MODULE:FACTORY()."""
    module, colon, path = name.partition(":")
    if not colon or not path:
        raise StartError(f"{name}: the application is named as MODULE:CALLABLE")
    sys.path.insert(0, os.getcwd())
    __import__(module)  # not importlib: its own steps would stand in the traceback
    found = sys.modules[module]
    factory = path.endswith("()")
    for part in path.removesuffix("()").split("."):
        found = getattr(found, part)
    app = found() if factory else found
    if accepts(app, 3):
        return app
    if accepts(app, 2):
        raise StartError(f"{name} is a WSGI application: the program for those is `wsgi`")
    if accepts(app, 0) and not factory:
        raise StartError(f"{name} takes no arguments: if it makes an application, say {name}()")
    raise StartError(f"{name} is no ASGI application: it does not take scope, receive and send")


def accepts(app, count):
    try:
        inspect.signature(app).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        pass  # It is not written in Python, and does not say what it takes.
    return True


class Worker:
    """What all lanes of this process share."""

    def __init__(self):
        self.state = {}
        self.calls = set()
        self.arrivals = memoryview(bytearray(ARRIVALS))
        self.loop = asyncio.get_running_loop()
        self.stopping = asyncio.Event()
        self.is_ready = False

    async def serve(self, name, path, control):
        # The server never writes here: what can be read is its end.
        self.loop.add_reader(control, os._exit, 0)
        self.app = load(name)
        lifespan = Lifespan(self)
        await lifespan.say("lifespan.startup")
        self.is_ready = True
        server = await self.loop.create_unix_server(lambda: Lane(self), path, backlog=1024)
        control.sendall(FRAME.pack(b"+", 0))
        await self.stopping.wait()
        server.close()
        while self.calls:
            await asyncio.wait([call.task for call in self.calls])
        try:
            await lifespan.say("lifespan.shutdown")
        except StartError as error:
            sys.stderr.write(f"{error}\n")


def own_control_line():
    """Takes the control line away from standard input, where the application would find it."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # SIGIO comes when the server has gone, and ends us even in the middle of an endless loop.
    fcntl.fcntl(control, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(control, fcntl.F_GETFL)
    fcntl.fcntl(control, fcntl.F_SETFL, flags | os.O_ASYNC)
    return control


def main(name, path):
    # Ctrl-C is for the server, which will tell us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = own_control_line()

    async def serve():
        await Worker().serve(name, path, control)

    try:
        asyncio.run(serve())
    except Exception as error:
        told = isinstance(error, StartError)
        text = (str(error) if told else traceback.format_exc()).encode(errors="replace")
        control.sendall(FRAME.pack(b"!", len(text)) + text)
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
