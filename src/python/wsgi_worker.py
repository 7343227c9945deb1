"""A worker for WSGI (PEP 3333): python3 -u -c SCRIPT MODULE:CALLABLE SOCKET

Standard input is the control line: we say on it when we are ready, and end when the server does.
Requests come by connections to SOCKET, called lanes, one at a time on each. A frame is a letter,
a length of four bytes, and a payload.

    R, S  to us      the request: NAME NUL VALUE NUL ...   Its body follows as one B (after R),
                     or is asked for piece by piece with N (after S).
    N     to server  the application reads: a piece of the body, please
    B     to us      a piece of the body; an empty one is its end
    H     to server  status and fields: STATUS NUL NAME NUL VALUE NUL ...
    D, E  to server  a piece of the answer; the last one
    !     to server  the application has failed
    Q     to us      end
"""
import contextlib
import fcntl
import inspect
import io
import os
import selectors
import signal
import socket
import sys
import traceback
from wsgiref.util import FileWrapper

PIECE = 64 * 1024  # bytes in one frame of an answer
UPLOAD = 256 * 1024  # bytes of room for a piece of a body: the server's have 192 KB at most
UNWANTED = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
COMMON = {
    "wsgi.version": (1, 0),
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": False,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
    "wsgi.input_terminated": True,
    "wsgi.file_wrapper": lambda file, size=PIECE: FileWrapper(file, max(size, PIECE)),
}


def frame(kind, payload=b""):
    return kind + len(payload).to_bytes(4, "big") + payload


class Lane:
    """A connection from the server."""

    def __init__(self, connection):
        self.connection, self.lost, self.over = connection, False, True
        self.file = open(connection.fileno(), "rb", closefd=False)

    def send(self, frames):
        try:
            self.connection.sendall(frames)
        except OSError:
            self.lost = True
            raise

    def begin(self):
        """The kind of the next frame, and the length of its payload, which is to be read."""
        prefix = self.file.read(5)
        if len(prefix) < 5:
            self.lost = True
            raise ConnectionError("the client has gone, or its body breaks a rule")
        return prefix[:1], int.from_bytes(prefix[1:], "big")

    def receive(self):
        kind, length = self.begin()
        return kind, self.file.read(length)


class Body(io.RawIOBase):
    """A request body that stays with the client until the application reads it."""

    def __init__(self, lane):
        self.lane, self.ended, self.rest = lane, False, b""

    def readable(self):
        return True

    def readinto(self, buffer):
        if not self.rest and not self.ended:
            self.lane.send(frame(b"N"))
            length = self.lane.begin()[1]
            self.ended = not length
            if length <= len(buffer):
                return self.lane.file.readinto(memoryview(buffer)[:length])
            self.rest = memoryview(self.lane.file.read(length))
        count = min(len(buffer), len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count

    def readall(self):
        # The one of io.RawIOBase asks for 8 KB at a time.
        whole, piece = io.BytesIO(), memoryview(bytearray(UPLOAD))
        while count := self.readinto(piece):
            whole.write(piece[:count])
        return whole.getvalue()


class Answer:
    """What start_response is told, and what leaves after it."""

    def __init__(self, lane, environ):
        self.lane, self.head, self.length, self.sent = lane, None, "", False
        self.bodiless = environ["REQUEST_METHOD"] == "HEAD"

    def start_response(self, status, headers, exc_info=None):
        if exc_info:
            try:
                if self.sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # or the frames would keep each other alive
        elif self.head is not None:
            raise AssertionError("start_response was called twice, without exc_info")
        texts, self.length = [status], None
        for name, value in headers:
            lower = name.lower()
            if lower not in UNWANTED:
                texts += name, value
            if lower == "content-length":
                self.length = value
        head = "\0".join(texts) + "\0"
        if head.count("\0") != len(texts) or "\r" in head or "\n" in head:
            raise ValueError(f"a line end or a NUL in the head: {texts}")
        self.head = head.encode("latin-1")
        self.bodiless = self.bodiless or status[:3] in ("204", "304")
        return self.write

    def prefix(self):
        if self.head is None:
            raise AssertionError("start_response was not called before the body")
        first, self.sent = not self.sent, True
        return frame(b"H", self.head) if first else b""

    def write(self, data):
        if data and self.lane.over:
            raise ValueError("the body is longer than its Content-Length")
        if data:
            head = self.prefix()
            for at in range(0, len(data), PIECE):
                self.lane.send(head + frame(b"D", data[at : at + PIECE]))
                head = b""

    def finish(self, data=b""):
        if not self.sent and len(data) > PIECE and self.length is None:
            self.head += b"Content-Length\0%d\0" % len(data)
        if len(data) > PIECE:
            self.write(data)
            data = b""
        self.lane.send(self.prefix() + frame(b"E", data))
        self.lane.over = True


def respond(application, environ, lane):
    answer = Answer(lane, environ)
    result = application(environ, answer.start_response)
    try:
        if isinstance(result, (list, tuple)):
            return answer.finish(result[0] if len(result) == 1 else b"".join(result))
        for data in result:
            if data and not answer.sent and answer.length == str(len(data)):
                answer.finish(data)  # there can be no second piece, so nobody need wait for one
            else:
                answer.write(data)
            if answer.sent and answer.bodiless:
                break  # nobody would see the rest, and it may have no end
        if not lane.over:
            answer.finish()
    finally:
        if hasattr(result, "close"):
            result.close()


def serve(application, lane):
    """Answers one request. False if the lane cannot be used again."""
    try:
        kind, block = lane.receive()
        if kind == b"Q":
            raise SystemExit
        if kind == b"B":
            return False  # of a body that was not read to its end
        whole = kind == b"R"  # if not, it is S
        body = io.BytesIO(lane.receive()[1]) if whole else io.BufferedReader(Body(lane), UPLOAD)
    except OSError:
        return False
    texts = iter(block.decode("latin-1").split("\0"))
    environ = {**COMMON, "wsgi.input": body}
    environ.update(zip(texts, texts))  # in turn a name and its value
    lane.over = False
    try:
        respond(application, environ, lane)
    except Exception:
        if not lane.lost:
            traceback.print_exc()
            if not lane.over:
                with contextlib.suppress(OSError):
                    lane.send(frame(b"!"))
    return not lane.lost


def load(name):
    """MODULE:CALLABLE, MODULE:FACTORY(), or MODULE alone for its `application` or `app`."""
    sys.path.insert(0, os.getcwd())
    module, _, path = name.partition(":")
    __import__(module)  # not importlib: its own steps would stand in the traceback
    found = sys.modules[module]
    if not path:
        path = "application" if hasattr(found, "application") else "app"
    factory = path.endswith("()")
    for part in path.removesuffix("()").split("."):
        found = getattr(found, part)
    if factory:
        found = found()
    if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(getattr(found, "__call__", None)):
        sys.exit(f"{name} is an async callable, for ASGI: serve it with asgi_http or asgi_ws.")
    if not callable(found):
        sys.exit(f"{name} is {found!r}, which cannot be called.")
    if accepts(found, 2):
        return found
    if accepts(found, 0) and not factory:
        sys.exit(f"{name} takes no arguments: if it makes an application, say {name}()")
    sys.exit(f"{name} is no WSGI application: it does not take environ and start_response")


def accepts(application, count):
    try:
        inspect.signature(application).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        pass  # it is not written in Python, and does not say what it takes
    return True


def take_control():
    """Standard input is ours alone: the application shall find an empty one."""
    control = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # When the server has gone the kernel sends SIGIO, which ends us, even out of an endless loop.
    fcntl.fcntl(control, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(control, fcntl.F_SETFL, fcntl.fcntl(control, fcntl.F_GETFL) | os.O_ASYNC)
    return control


def main(name, path):
    control = take_control()
    try:
        application = load(name)
    except BaseException as error:
        is_ours = isinstance(error, SystemExit) and isinstance(error.code, str)
        text = error.code if is_ours else traceback.format_exc()
        control.sendall(frame(b"!", text.encode("utf-8", "replace")))
        os._exit(1)
    door = socket.socket(socket.AF_UNIX)
    door.bind(path)
    door.listen(1024)
    ours, copies = {door.fileno(), control.fileno()}, []

    def forget():
        """In a copy of us, which the application has made: it must not keep lanes open."""
        copies.append(os.getpid())
        for descriptor in ours:
            os.close(descriptor)

    os.register_at_fork(after_in_child=forget)
    selector = selectors.DefaultSelector()
    selector.register(door, selectors.EVENT_READ)
    selector.register(control, selectors.EVENT_READ)
    control.sendall(frame(b"+"))
    while True:
        for key, _ in selector.select():
            if key.fileobj is door:
                connection, _ = door.accept()
                ours.add(connection.fileno())
                selector.register(connection, selectors.EVENT_READ, Lane(connection))
            elif key.fileobj is control:
                return
            elif not serve(application, key.data):
                if copies:
                    os._exit(0)  # it was done with its part, and went on to ours
                selector.unregister(key.fileobj)
                ours.remove(key.fd)
                key.data.file.close()
                key.fileobj.close()


main(*sys.argv[1:3])
