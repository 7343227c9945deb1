"""The smallest application of PEP 3333, and one that reads."""


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Hello, world!\n"]


def count(environ, start_response):
    """How many bytes came, read in pieces of 64 KB."""
    read = environ["wsgi.input"].read
    total = sum(map(len, iter(lambda: read(64 * 1024), b"")))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d\n" % total]
