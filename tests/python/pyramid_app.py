"""Pyramid: a route, a view, and a factory that makes the application."""
from pyramid.config import Configurator
from pyramid.response import Response


def hello(request):
    return Response(f"Hello, {request.matchdict['name']}!\n")


def sums(request):
    return {"sum": sum(request.json_body)}


def make_app():
    with Configurator() as config:
        config.add_route("hello", "/hello/{name}")
        config.add_view(hello, route_name="hello")
        config.add_route("sums", "/sums")
        config.add_view(sums, route_name="sums", renderer="json", request_method="POST")
        return config.make_wsgi_app()
