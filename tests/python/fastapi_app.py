"""FastAPI: validation, a stream, the lifespan's state, a WebSocket."""

import asyncio
from contextlib import asynccontextmanager

from fastapi import BackgroundTasks, FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

DONE = []


@asynccontextmanager
async def lifespan(app):
    yield {"greeting": "hello"}


app = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    name: str
    price: float


@app.get("/")
async def state(request: Request):
    return {"greeting": request.state.greeting}


@app.get("/items/{number}")
def number(number: int):
    """Not async: it runs on another thread of the worker."""
    return {"number": number}


@app.post("/items")
async def create(item: Item, tasks: BackgroundTasks):
    tasks.add_task(DONE.append, item.name)
    return item


@app.post("/sums")
async def sums(numbers: list[int]):
    return {"sum": sum(numbers)}


@app.get("/done")
async def done():
    return DONE


@app.get("/numbers")
async def numbers():
    async def lines():
        for number in range(3):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(lines(), media_type="text/event-stream")


@app.get("/endless")
async def endless():
    async def lines():
        try:
            while True:
                yield "data: tick\n\n"
                await asyncio.sleep(0.05)
        finally:
            DONE.append("closed")

    return StreamingResponse(lines(), media_type="text/event-stream")


@app.websocket("/ws/{name}")
async def chat(socket: WebSocket, name: str):
    await socket.accept()
    try:
        while True:
            text = await socket.receive_text()
            await socket.send_text(f"{name}: {text}")
    except WebSocketDisconnect as error:
        DONE.append(error.code)
