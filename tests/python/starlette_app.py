"""Starlette: a form with a file, sessions of a kind, a mounted application, an error page."""

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Mount, Route, WebSocketRoute


async def upload(request):
    form = await request.form()
    file = form["file"]
    return JSONResponse({"name": file.filename, "size": len(await file.read())})


async def cookie(request):
    response = PlainTextResponse(request.cookies.get("taste", "none"))
    response.set_cookie("taste", "sweet")
    return response


async def inner(request):
    return PlainTextResponse(str(request.url_for("inner")))


async def away(request):
    return RedirectResponse("/cookie")


async def wrong(request):
    raise RuntimeError("a mistake of the application")


async def echo(socket):
    await socket.accept(subprotocol="json" if "json" in socket.scope["subprotocols"] else None)
    await socket.send_json(await socket.receive_json())
    await socket.close(4001, "done")


async def private(socket):
    await socket.close()


routes = [
    Route("/upload", upload, methods=["POST"]),
    Route("/cookie", cookie),
    Route("/away", away),
    Route("/wrong", wrong),
    Mount("/below", routes=[Route("/inner", inner, name="inner")]),
    WebSocketRoute("/echo", echo),
    WebSocketRoute("/private", private),
]
app = Starlette(routes=routes)
