"""Flask: a session, an upload, a stream, an error."""
import hashlib

from flask import Flask, Response, abort, request, session

app = Flask(__name__)
app.secret_key = "only for tests"


@app.get("/hello/<name>")
def hello(name):
    return f"Hello, {name}!\n"


@app.get("/count")
def count():
    session["count"] = session.get("count", 0) + 1
    return str(session["count"])


@app.post("/upload")
def upload():
    file = request.files["file"]
    data = file.read()
    return {"name": file.filename, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@app.post("/sums")
def sums():
    return {"sum": sum(request.get_json())}


@app.post("/form")
def form():
    return {"name": request.form["name"]}


@app.get("/stream")
def stream():
    return Response((f"line {number}\n" for number in range(1000)), mimetype="text/plain")


@app.get("/error")
def error():
    raise RuntimeError("on purpose")


@app.get("/missing")
def missing():
    abort(404)


@app.get("/file")
def file():
    from flask import send_file

    return send_file(__file__, mimetype="text/plain", conditional=True)


def create_app():
    return app
