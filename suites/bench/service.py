"""One conversation, three ways: an application without a framework, one with Starlette, and Starlette's own TestClient.

Accept, one message, five events, close by the client.
"""

import asyncio
import json
import sys
import time

EVENTS = ("agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed")


async def raw(scope, receive, send):
    if scope["type"] != "websocket":
        raise NotImplementedError
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        if "nap" in event["text"]:
            await asyncio.sleep(90)
        for name in EVENTS:
            await send({"type": "websocket.send", "text": json.dumps({"type": name})})


def make_starlette():
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute

    async def converse(websocket):
        await websocket.accept()
        async for _ in websocket.iter_text():
            for name in EVENTS:
                await websocket.send_json({"type": name})

    return Starlette(routes=[WebSocketRoute("/ws", converse)])


def measure_test_client(cases):
    """Starlette's own client does the same; prints seconds per case."""
    from starlette.testclient import TestClient

    def converse(client):
        with client.websocket_connect("/ws") as session:
            session.send_text('{"type":"user_message"}')
            for name in EVENTS:
                assert session.receive_json() == {"type": name}

    client = TestClient(make_starlette())
    converse(client)
    start = time.perf_counter()
    for _ in range(cases):
        converse(client)
    print((time.perf_counter() - start) / cases)


if __name__ == "__main__":
    measure_test_client(int(sys.argv[1]))
