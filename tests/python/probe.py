"""An application with a path for each thing that can go right or wrong between us and it."""
import hashlib
import os
import sys
import threading
import time

TEXT = [("Content-Type", "text/plain; charset=utf-8")]
closed = []
calls = 0


class Closing:
    """An iterable that remembers that it was closed."""

    def __init__(self, chunks):
        self.chunks = iter(chunks)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.chunks)

    def close(self):
        closed.append(True)


def forever():
    try:
        while True:
            yield b"x" * 65536
            time.sleep(0.001)
    finally:
        closed.append(True)


def environ_(environ, start_response):
    lines = [f"{name}={value!r}\n" for name, value in sorted(environ.items()) if name.isupper() or "." in name]
    start_response("200 OK", TEXT)
    return ["".join(lines).encode()]


def cafe(environ, start_response):
    text = environ["PATH_INFO"].encode("latin-1").decode()
    start_response("200 OK", TEXT + [("X-Path", environ["PATH_INFO"])])
    return [text.encode()]


def hash_(environ, start_response):
    digest, count = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(100_000):
        digest.update(piece)
        count += len(piece)
    start_response("200 OK", TEXT)
    end = environ["wsgi.input"].read(1)
    return [f"{count} {digest.hexdigest()} {environ.get('CONTENT_LENGTH')} {end!r}".encode()]


def lines(environ, start_response):
    start_response("200 OK", TEXT)
    first = environ["wsgi.input"].readline()
    return [repr([first, *environ["wsgi.input"]]).encode()]


def whole(environ, start_response):
    """Reads a little past the buffer, then all at once, and says in how many pieces it came."""
    raw, asked = environ["wsgi.input"].raw, []
    readinto = raw.readinto
    raw.readinto = lambda buffer: asked.append(len(buffer)) or readinto(buffer)
    body = raw.read(1000) + environ["wsgi.input"].read()
    start_response("200 OK", TEXT)
    return [f"{hashlib.sha256(body).hexdigest()} {len(asked)}".encode()]


def sips(environ, start_response):
    """Reads past the buffer of the reader, a little at a time."""
    digest = hashlib.sha256()
    while piece := environ["wsgi.input"].read1(1000):
        digest.update(piece)
    start_response("200 OK", TEXT)
    return [digest.hexdigest().encode()]


class Slow(list):
    def close(self):
        time.sleep(0.1)


def tastes(environ, start_response):
    """Reads the first bytes of its body when all of it could be here, and has enough."""
    time.sleep(0.05)
    start = environ["wsgi.input"].read(3)
    start_response("200 OK", TEXT)
    return Slow([start])


def calls_(environ, start_response):
    start_response("200 OK", TEXT)
    return [str(calls).encode()]


def echo(environ, start_response):
    """Answers while it reads."""
    start_response("200 OK", TEXT)
    while piece := environ["wsgi.input"].read(65536):
        yield piece


def length(environ, start_response):
    start_response("200 OK", TEXT)
    return [environ.get("CONTENT_LENGTH", "none").encode()]


def ignore(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"y" * 3_000_000]


def late(environ, start_response):
    start_response("200 OK", TEXT)
    yield b""
    yield b"a"
    yield b""
    yield b"b"


def never(environ, start_response):
    return [b"no head"]


def twice(environ, start_response):
    start_response("200 OK", TEXT)
    start_response("200 OK", TEXT)
    return [b"twice"]


def replaced(environ, start_response):
    start_response("200 OK", [*TEXT, ("Content-Length", "8")])
    try:
        raise KeyError("lost")
    except KeyError:
        start_response("503 Service Unavailable", TEXT, sys.exc_info())
    return iter([b"replaced", b" by this"])


def silent(environ, start_response):
    start_response(environ["QUERY_STRING"].replace("+", " ") or "200 OK", TEXT)
    _, _, *count = environ["PATH_INFO"].split("/")
    yield b"begun" * int(count[0] if count else 1)
    time.sleep(5)
    yield b"late"


def too_late(environ, start_response):
    start_response("200 OK", TEXT)
    yield b"begun"
    try:
        raise KeyError("lost")
    except KeyError:
        start_response("500 Oops", TEXT, sys.exc_info())
    yield b"never sent"


def raises(environ, start_response):
    raise ConnectionRefusedError("the database is away")


def raises_later(environ, start_response):
    start_response("200 OK", TEXT)
    yield b"half"
    raise RuntimeError("no second half")


def crlf(environ, start_response):
    start_response("200 OK", [("X-Bad", "a\r\nX-Worse: b")])
    return [b"split"]


def nul(environ, start_response):
    start_response("200 OK", [("X-Bad", "a\0X-Worse\0b")])
    return [b"split"]


def told(environ, start_response):
    """Hears of each field that cannot be sent while it can still send another."""
    count = 0
    for wrong in "\r", "\n", "\0", "\u20ac":
        try:
            start_response("200 OK", [("X-Bad", f"a{wrong}b")])
        except ValueError:
            count += 1
    start_response("200 OK", TEXT)
    return [str(count).encode()]


def status(environ, start_response):
    start_response(environ["QUERY_STRING"].replace("+", " "), TEXT)
    return [b"status"]


def hop(environ, start_response):
    names = "Connection Keep-Alive Proxy-Connection TE Trailer Transfer-Encoding Upgrade X-Kept".split()
    start_response("200 OK", TEXT + [(name, "yes") for name in names])
    return [b"hop"]


def cookies(environ, start_response):
    start_response("200 OK", TEXT + [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    return [environ.get("HTTP_COOKIE", "").encode()]


def write(environ, start_response):
    push = start_response("200 OK", TEXT)
    push(b"written, ")
    push(b"")
    push(b"twice, ")
    return [b"and", b" returned"]


def several(environ, start_response):
    start_response("200 OK", TEXT)
    chunks = [b"one ", b"two ", b"three"]
    return tuple(chunks) if environ["QUERY_STRING"] == "tuple" else chunks


def empty(environ, start_response):
    start_response("200 OK", TEXT)
    return []


def large(environ, start_response):
    query = environ["QUERY_STRING"]
    own = [("Content-Length", "1000000")] if query == "own" else []
    start_response("200 OK", TEXT + own)
    return [b"z" * (int(query) if query.isdigit() else 1_000_000)]


def pieces(environ, start_response):
    """A hundred pieces of 8000 bytes."""
    start_response("200 OK", TEXT)
    return (b"p" * 8000 for _ in range(100))


def huge(environ, start_response):
    start_response("200 OK", TEXT)
    return Closing(b"h" * 65536 for _ in range(1600))


def no_content(environ, start_response):
    start_response("204 No Content", [])
    return Closing([b"not allowed"])


def not_modified(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"1"')])
    return Closing(b"not allowed" for _ in range(3))


def endless(environ, start_response):
    start_response("200 OK", TEXT)
    return forever()


def was_closed(environ, start_response):
    start_response("200 OK", TEXT)
    count = len(closed)
    closed.clear()
    return [str(count).encode()]


def closes(environ, start_response):
    start_response("200 OK", TEXT)
    return Closing([b"c"] if environ["QUERY_STRING"] == "one" else [b"c", b"d"])


def declared(environ, start_response):
    """All that was declared comes in one piece."""
    start_response("200 OK", [*TEXT, ("Content-Length", "5")])
    yield b"whole"
    time.sleep(0.05)
    if environ["QUERY_STRING"] == "more":
        yield b"more"
    if environ["QUERY_STRING"] == "fails":
        raise RuntimeError("nobody waits for more")


def closes_after_failure(environ, start_response):
    def fails():
        yield b"half"
        raise RuntimeError("no second half")

    start_response("200 OK", TEXT)
    return Closing(fails())


def file(environ, start_response):
    source = open(__file__, "rb")
    keep.append(source)
    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](source, 4096)


keep = []


def file_was_closed(environ, start_response):
    start_response("200 OK", TEXT)
    return [repr([source.closed for source in keep]).encode()]


def prints(environ, start_response):
    print("a line for standard output")
    print("a line for wsgi.errors", file=environ["wsgi.errors"])
    start_response("200 OK", TEXT)
    return [repr(sys.stdin.read()).encode()]


def fork(environ, start_response):
    """The copy stays for a while; it must not keep anything open."""
    pid = os.fork()
    if pid == 0:
        time.sleep(1.5)
        os._exit(0)
    start_response("200 OK", TEXT)
    return [b"forked"]


def forgotten_fork(environ, start_response):
    """Both go on, as if both were the worker."""
    os.fork()
    start_response("200 OK", TEXT)
    return [b"forked"]


def threads(environ, start_response):
    start_response("200 OK", TEXT)
    return [str(threading.active_count()).encode()]


def sleep(environ, start_response):
    time.sleep(float(environ["QUERY_STRING"]))
    start_response("200 OK", TEXT)
    return [str(os.getpid()).encode()]


def pid(environ, start_response):
    start_response("200 OK", TEXT)
    return [str(os.getpid()).encode()]


def loop(environ, start_response):
    environ["wsgi.input"].read()
    while True:
        pass


def exits(environ, start_response):
    sys.exit(7)


def dies(environ, start_response):
    with open(environ["QUERY_STRING"], "a") as count:
        count.write("once ")
    os._exit(7)


def memory(environ, start_response):
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
    start_response("200 OK", TEXT)
    return [b"m" * (1 << 30)]


def application(environ, start_response):
    global calls
    calls += 1
    name = environ["PATH_INFO"].strip("/").split("/")[0]
    view = globals().get(name.replace("-", "_") + "_") or globals().get(name.replace("-", "_"))
    return (view or cafe)(environ, start_response)


def make_app():
    return application


def leaves():
    sys.exit(7)


def make_maker():
    return make_app


wrapped = dict  # it does not say what it takes


async def asgi(scope, receive, send):
    pass


class Site:
    async def __call__(self, scope, receive, send):
        pass


site = Site()
number = 5


def refuses(environ, start_response):
    """Says no without a look at the body."""
    start_response("403 Forbidden", TEXT)
    return [b"no"]
