"""An application between two examiners: wsgiref.validate looks at both sides of PEP 3333."""
import warnings
from wsgiref.validate import validator

warnings.simplefilter("error")


@validator
def application(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"valid ", body] if environ["QUERY_STRING"] != "lazy" else iter([b"valid ", body])
