"""Tests of what the shim learns of the routes of each framework.

`python3 -m unittest test_frameworks` here, with `fixtures/requirements/frameworks.txt` installed.
"""

import json
import os
import tempfile
import textwrap
import unittest

from driver import Shim


def said(route):
    """A route in words: its methods and path, and what it takes, each with a good value."""
    methods = "ws" if route["kind"] == "websocket" else ",".join(route["methods"]) or route["kind"]
    words = [f"{methods} {route['path']}"]
    for place in ("params", "query", "headers", "cookies"):
        pairs = [f"{one['name']}{'' if one['required'] else '?'}={one['good']}" for one in route[place]]
        words += [f"{place}({', '.join(pairs)})"] if pairs else []
    if route["content_type"].startswith("multipart/"):
        names = [part.split('"')[1] + ("@" if "filename" in part.split("\r\n")[0] else "")
                 for part in route["body"].split("; name=")[1:]]
        words.append(f"parts({', '.join(names)})")
    elif route["content_type"]:
        words.append(f"{route['content_type'].partition('/')[2]}({route['body']})")
    for place in ("offers", "messages"):
        words += [f"{place}({' '.join(route[place])})"] if route[place] else []
    return " ".join(words)


class Frameworks(unittest.TestCase):
    maxDiff = None

    def learn(self, source, app="main:app"):
        """The reply about an app."""
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        folder = os.path.realpath(holder.name)
        with open(os.path.join(folder, "main.py"), "w") as file:
            file.write(textwrap.dedent(source))
        shim = Shim(folder, app)
        shim.process.kill()
        shim.end()
        self.assertTrue(shim.hello["ok"], shim.hello)
        return shim.hello

    def assert_routes(self, source, *expected, guesses=("GET /",)):
        """The routes of an app in words, those of its documentation left out."""
        hello = self.learn(source)
        self.assertEqual(hello["troubles"], [])
        docs = ("/docs", "/redoc", "/openapi.json", "/schema")
        routes = [route for route in hello["routes"] if not route["path"].startswith(docs)]
        self.assertEqual([said(route) for route in routes], list(expected))
        self.assertEqual([said(route) for route in hello["guesses"]], list(guesses))
        return {said(route).partition(" ")[0] + route["path"]: route for route in routes}

    def test_fastapi(self):
        self.assert_routes(
            """
            from fastapi import Body, FastAPI, Header, Request, WebSocket

            TOKENS = {"token-of-ann": "ann"}
            KINDS = ("tea", "cake")
            app = FastAPI()

            @app.get("/orders/{kind}")
            def order(kind: str, since: str = "", authorization: str = Header("")):
                if kind not in KINDS or TOKENS.get(authorization.removeprefix("Bearer ")) is None:
                    return {}
                return int(since)

            @app.post("/raw")
            async def raw(request: Request):
                body = await request.json()
                return body["guest"]["name"].upper(), body.get("count", 0) + 1

            @app.post("/dict")
            def loose(data: dict = Body()):
                return data["title"]

            @app.websocket("/talk")
            async def talk(websocket: WebSocket):
                await websocket.accept()
                message = await websocket.receive_json()
                if message["type"] == "join":
                    print(message["room"])
                elif message["type"] == "leave":
                    pass
            """,
            "GET /orders/{kind} params(kind=tea) query(since?=1)"
            " headers(authorization=Bearer token-of-ann)",
            'POST /raw json({"guest": {"name": "a"}})',
            'POST /dict json({"title": "a"})',
            'ws /talk messages({"type": "join", "room": "a"} {"type": "leave", "room": "a"})')

    def test_fields_of_pydantic_1(self):
        """FastAPI before 0.100 has fields of pydantic 1, which pydantic 2 keeps in a package of its own."""
        self.assert_routes(
            """
            import types
            from typing import List
            from pydantic.v1 import BaseModel, Field

            class Part(BaseModel):
                size: int = Field(ge=5)
            class Body(BaseModel):
                name: str
                page: int = 3
                parts: List[Part]

            class Outer(BaseModel):
                body: Body
            fields = Body.__fields__
            dependant = types.SimpleNamespace(
                query_params=[fields["name"], fields["page"]], header_params=[], path_params=[],
                cookie_params=[], body_params=[Outer.__fields__["body"]], dependencies=[])

            class App:
                routes = [types.SimpleNamespace(
                    path="/x", endpoint=print, methods={"POST"}, dependant=dependant)]
                async def __call__(self, scope, receive, send): pass
            app = App()
            """,
            'POST /x query(name=a, page?=3) json({"name": "a", "parts": [{"size": 6}]})'
            ' messages({"name": "a", "page": 3, "parts": []} {"name": "a", "page": 3, "parts": [{"size": 5}]})')

    def test_further_values(self):
        """Enumerations, limits and what may be null: of parameters, and in bodies that differ in one place."""
        route, = self.learn("""
            from typing import Annotated, Literal, Optional
            from fastapi import FastAPI, Path
            from pydantic import BaseModel, Field

            class Size(BaseModel):
                width: int = Field(ge=1, le=9)
            class Change(BaseModel):
                action: Literal["pay", "ship"] = "pay"
                note: Optional[str] = None
                size: None | Size = None
            app = FastAPI(openapi_url=None)

            @app.put("/orders/{month}")
            async def change(month: Annotated[int, Path(ge=1, le=12)], change: Change,
                             sort: Literal["id", "due", "size"] = "id", archived: bool = False): pass
            """)["routes"]
        others = {one["name"]: one["others"] for place in ("params", "query") for one in route[place]}
        self.assertEqual(others, {"month": ["1", "12"], "sort": ["due", "size"], "archived": ["true"]})
        full = {"action": "pay", "note": "a", "size": {"width": 2}}
        changes = ({"action": "ship"}, {"note": None}, {"size": None}, {"size": {"width": 1}}, {"size": {"width": 9}})
        self.assertEqual([json.loads(body) for body in route["messages"]], [{**full, **change} for change in changes])

    def test_further_bodies_of_several_parameters(self):
        """Where a body has a key for each parameter, each of them has further values."""
        route, = self.learn("""
            from typing import Literal
            from fastapi import Body, FastAPI
            app = FastAPI(openapi_url=None)

            @app.post("/moves")
            async def move(kind: Literal["up", "down"] = Body(), steps: int = Body(ge=1, le=3)): pass
            """)["routes"]
        self.assertEqual([json.loads(body) for body in route["messages"]], [
            {"kind": "down", "steps": 2}, {"kind": "up", "steps": 1}, {"kind": "up", "steps": 3}])

    def test_texts_that_code_looks_for(self):
        """A text that the code looks for in another is no key of it, and one that begins it is no whole value."""
        route, = self.learn("""
            from starlette.applications import Starlette
            from starlette.responses import JSONResponse
            from starlette.routing import Route

            async def join(request):
                data = await request.json()
                email = data["email"]
                if "@" not in email:
                    return JSONResponse({}, 422)
                if request.headers.get("range", "").startswith("bytes="):
                    return JSONResponse({}, 206)
                return JSONResponse({"domain": email.split("@")[1]})

            app = Starlette(routes=[Route("/members", join, methods=["POST"])])
            """)["routes"]
        self.assertEqual(json.loads(route["body"]), {"email": "a@b"})
        self.assertIn({"email": "a@b@c"}, [json.loads(body) for body in route["messages"]])
        self.assertIn("bytes=-1", route["headers"][0]["others"])

    def test_starlette(self):
        routes = self.assert_routes(
            """
            import json, pathlib
            from starlette.applications import Starlette
            from starlette.endpoints import HTTPEndpoint
            from starlette.routing import Mount, Route, WebSocketRoute
            from starlette.staticfiles import StaticFiles

            pathlib.Path("files").mkdir(exist_ok=True)
            pathlib.Path("files/page.txt").write_text("text")

            async def submit(request):
                async with request.form() as form:
                    title = form["title"]
                    return await form["photo"].read(), request.query_params.get("page")

            async def stream(request):
                async for piece in request.stream(): pass

            class Thing(HTTPEndpoint):
                async def get(self, request): return request.cookies["visit"]
                async def put(self, request): return json.loads(await request.body())["color"]

            async def chat(websocket):
                for name in ("v2.chat.json", "v1.chat.json"):
                    if name in websocket.scope["subprotocols"]:
                        await websocket.accept(subprotocol=name)
                text = await websocket.receive_text()
                if text == "ping":
                    await websocket.send_text("pong")

            app = Starlette(routes=[
                Route("/submit", submit, methods=["POST"]),
                Route("/stream", stream, methods=["POST"]),
                Route("/things/{number:int}", Thing),
                Mount("/files", StaticFiles(directory="files")),
                Mount("/t/{tenant}", routes=[WebSocketRoute("/chat", chat)]),
            ])
            """,
            "POST /submit query(page?=a) parts(title, photo@)",
            "POST /stream plain(a)",
            'GET,PUT /things/{number:int} params(number=1) cookies(visit?=a) json({"color": "a"})',
            "mount /files", "GET,HEAD /files/page.txt",
            "mount /t/{tenant} params(tenant=a)",
            "ws /t/{tenant}/chat params(tenant=a) offers(v2.chat.json) messages(ping)")
        self.assertEqual(routes["ws/t/{tenant}/chat"]["subprotocols"], ["v2.chat.json", "v1.chat.json"])

    def test_litestar(self):
        self.assert_routes(
            """
            import datetime
            from dataclasses import dataclass
            from typing import Annotated, Any
            from litestar import Controller, Litestar, Request, Router, WebSocket, get, post, websocket
            from litestar.handlers import websocket_listener
            from litestar.params import Parameter

            @dataclass
            class Order:
                name: str
                size: int = 3

            @get("/orders/{number:int}")
            async def order(number: int, size: int, key: Annotated[str, Parameter(header="X-Key")]) -> dict:
                return {}

            @post("/orders")
            async def make(data: Order) -> dict: return {}

            @post("/raw")
            async def raw(request: Request) -> str: return (await request.json())["color"]

            @websocket("/ws/{room:str}")
            async def ws(socket: WebSocket, room: str, page: int = 1) -> None:
                await socket.accept(subprotocols="v1.chat.json")
                (await socket.receive_json())["kind"]

            @websocket_listener("/listen")
            async def listen(data: dict[str, Any]) -> str: return data["name"]

            class Days(Controller):
                path = "/days"
                @get("/{day:date}")
                async def day(self, day: datetime.date) -> str: return ""

            app = Litestar([order, make, raw, Router("/r", route_handlers=[ws, Days]), listen])
            """,
            "GET /orders/{number} params(number=1) query(size=1) headers(X-Key=a)",
            'POST /orders json({"name": "a"})',
            'POST /raw json({"color": "a"})',
            'ws /r/ws/{room} params(room=a) query(page?=1) offers(v1.chat.json) messages({"kind": "a"})',
            "GET /r/days/{day} params(day=2026-01-02)",
            'ws /listen messages({"name": "a"})')

    def test_quart(self):
        self.assert_routes(
            """
            from quart import Quart, request, websocket

            app = Quart(__name__, static_folder=None)

            @app.post("/items/<uuid:item>/<path:rest>")
            async def items(item, rest): return (await request.get_json())["color"]

            @app.post("/form")
            async def form():
                files = await request.files
                return (await request.form)["title"] + request.args["page"] + files["photo"].filename

            @app.websocket("/ws/<int(min=5):room>")
            async def ws(room):
                await websocket.accept(subprotocol="chat")
                (await websocket.receive_json())["kind"]
            """,
            "POST /items/{item}/{rest:path} params(item=12345678-1234-4234-8234-123456789abc, rest=a/b)"
            ' json({"color": "a"})',
            "POST /form query(page?=a) parts(title, photo@)",
            'ws /ws/{room} params(room=5) offers(chat) messages({"kind": "a"})')

    def test_flask_behind_an_adapter(self):
        source = """
            import flask
            from a2wsgi import WSGIMiddleware
            from asgiref.wsgi import WsgiToAsgi
            from fastapi import FastAPI

            inner = flask.Flask(__name__, static_folder=None)

            @inner.post("/<string(length=2):lang>/<any(tea, cake):kind>")
            def order(lang, kind):
                flask.request.headers["X-Key"], flask.request.cookies.get("visit")
                return flask.request.form["name"] + flask.request.get_json()["x"]

            app = FastAPI()
            app.mount("/old", ADAPTER(inner))
            """
        for adapter in ("WSGIMiddleware", "WsgiToAsgi"):
            with self.subTest(adapter):
                self.assert_routes(
                    source.replace("ADAPTER", adapter),
                    "mount /old",
                    "POST /old/{lang}/{kind} params(lang=aa, kind=cake) headers(X-Key?=a)"
                    " cookies(visit?=a) x-www-form-urlencoded(name=a)")

    def test_django(self):
        self.assert_routes(
            """
            import django, json
            from django.conf import settings
            settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="x", ALLOWED_HOSTS=["*"])
            django.setup()
            from django.core.asgi import get_asgi_application
            from django.urls import include, path, re_path
            from django.views import View
            from django.views.decorators.http import require_http_methods

            def search(request, number, tag): return request.GET["q"]

            @require_http_methods(["POST"])
            def save(request, year): return request.POST["title"]

            class Upload(View):
                def put(self, request, key): return request.FILES["photo"]

            def raw(request): return json.loads(request.body)["color"]

            urlpatterns = [
                path("a/<int:number>/<slug:tag>/", search),
                re_path(r"^b/(?P<year>[0-9]{4})/(?:x|y)/$", save),
                path("c/", include([path("d/<uuid:key>", Upload.as_view())])),
                path("raw", raw),
            ]
            app = get_asgi_application()
            """,
            "GET /a/{number}/{tag}/ params(number=1, tag=a) query(q?=a)",
            "POST /b/{year}/x/ params(year=1111) x-www-form-urlencoded(title=a)",
            "PUT /c/d/{key} params(key=12345678-1234-4234-8234-123456789abc) parts(photo@)",
            'GET,POST /raw json({"color": "a"})')

    def test_channels(self):
        self.assert_routes(
            """
            import json
            import django
            from django.conf import settings
            settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="x", ALLOWED_HOSTS=["*"], INSTALLED_APPS=[
                "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "channels"])
            django.setup()
            from channels.auth import AuthMiddlewareStack
            from channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer
            from channels.routing import ProtocolTypeRouter, URLRouter
            from channels.security.websocket import AllowedHostsOriginValidator
            from django.core.asgi import get_asgi_application
            from django.http import JsonResponse
            from django.urls import path, re_path

            def rooms(request): return JsonResponse({})
            urlpatterns = [path("rooms", rooms)]

            class Counter(AsyncJsonWebsocketConsumer):
                async def receive_json(self, content): content["add"] + 1

            class Room(AsyncWebsocketConsumer):
                async def connect(self): await self.accept(subprotocol="room.v1")
                async def receive(self, text_data=None, bytes_data=None):
                    event = json.loads(text_data)
                    if event["type"] == "say": print(event["text"])

            inner = URLRouter([re_path(r"^(?P<room>\\w{3})/$", Room.as_asgi())])
            app = ProtocolTypeRouter({
                "http": get_asgi_application(),
                "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter([
                    path("count/<int:start>/", Counter.as_asgi()), path("rooms/", inner)]))),
            })
            """,
            "GET /rooms",
            'ws /count/{start}/ params(start=1) messages({"add": 1})',
            "ws /rooms/{room}/ params(room=aaa) offers(room.v1) messages({\"type\": \"say\", \"text\": \"a\"})")

    def test_socketio(self):
        self.assert_routes(
            """
            import socketio
            from fastapi import FastAPI

            TOKENS = {"t-ann": "ann"}
            api = FastAPI()
            @api.get("/ready")
            def ready(): return {}

            server = socketio.AsyncServer(async_mode="asgi")
            @server.event
            async def connect(sid, environ, auth): return TOKENS.get(auth["token"])
            @server.event
            async def say(sid, data): return data["room"], data["text"]

            class Admin(socketio.AsyncNamespace):
                async def on_kick(self, sid, name): pass
            server.register_namespace(Admin("/admin"))
            app = socketio.ASGIApp(server, other_asgi_app=api)
            """,
            "GET /socket.io/ query(EIO=4, transport=polling)",
            'ws /socket.io/ query(EIO=4, transport=websocket) messages(40{"token": "t-ann"}'
            ' 42["say",{"room":"a","text":"a"}] 40/admin, 42/admin,["kick","a"])',
            "GET /ready")

    def test_strawberry(self):
        source = """
            import typing
            import strawberry
            from fastapi import FastAPI
            from starlette.applications import Starlette
            from starlette.routing import Route, WebSocketRoute
            from strawberry.asgi import GraphQL
            from strawberry.fastapi import GraphQLRouter

            @strawberry.type
            class Meter:
                name: str
                @strawberry.field
                def readings(self, last: int) -> typing.List[float]: return []
            @strawberry.type
            class Query:
                @strawberry.field
                def meters(self, kind: typing.Optional[str] = None) -> typing.List[Meter]: return []
            @strawberry.type
            class Mutation:
                @strawberry.mutation
                def rename(self, name: str) -> str: return name
            @strawberry.type
            class Subscription:
                @strawberry.subscription
                async def ticks(self, upto: int) -> typing.AsyncGenerator[int, None]: yield upto
            schema = strawberry.Schema(Query, Mutation, Subscription)
            """
        query = "query { meters { name readings(last: 1) } }"
        messages = (
            'messages({"type": "connection_init", "payload": {}}'
            ' {"id": "1", "type": "subscribe", "payload": {"query": "subscription { ticks(upto: 1) }"}}'
            ' {"id": "2", "type": "subscribe", "payload": {"query": "' + query + '"}}'
            ' {"id": "3", "type": "subscribe", "payload": {"query": "mutation { rename(name: \\"a\\") }"}}'
            ' {"id": "1", "type": "complete"})')
        body = f'query(query={query}) json({{"query": "{query}"}})'
        with self.subTest("GraphQL"):
            routes = self.assert_routes(
                source + """
            server = GraphQL(schema)
            app = Starlette(routes=[Route("/graphql", server), WebSocketRoute("/graphql", server)])
            """,
                f"GET,POST /graphql {body}",
                f"ws /graphql offers(graphql-transport-ws) {messages}")
            self.assertEqual(routes["ws/graphql"]["subprotocols"], ["graphql-transport-ws", "graphql-ws"])
            self.assertIn("meters", routes["ws/graphql"]["words"])
        with self.subTest("GraphQLRouter"):
            self.assert_routes(
                source + """
            app = FastAPI()
            app.include_router(GraphQLRouter(schema), prefix="/graphql")
            """,
                f"GET /graphql {body}", f"POST /graphql {body}",
                f"ws /graphql offers(graphql-transport-ws) {messages}")

    def test_ariadne(self):
        self.assert_routes(
            """
            import ariadne
            from ariadne.asgi import GraphQL
            from ariadne.asgi.handlers import GraphQLTransportWSHandler

            TOKENS = {"t-ann"}
            def connected(websocket, params):
                if params["token"] not in TOKENS: raise ValueError

            schema = ariadne.make_executable_schema(
                "type Query { size(of: Kind!): Int! } enum Kind { TEA CAKE } "
                "type Subscription { news: String! }")
            app = GraphQL(schema, websocket_handler=GraphQLTransportWSHandler(on_connect=connected))
            """,
            'GET,POST / query(query=query { size(of: TEA) }) json({"query": "query { size(of: TEA) }"})',
            'ws / offers(graphql-transport-ws) messages({"type": "connection_init", "payload": {"token": "t-ann"}}'
            ' {"id": "1", "type": "subscribe", "payload": {"query": "subscription { news }"}}'
            ' {"id": "2", "type": "subscribe", "payload": {"query": "query { size(of: TEA) }"}}'
            ' {"id": "1", "type": "complete"})',
            guesses=())

    def test_mcp(self):
        routes = self.assert_routes(
            """
            from mcp.server import MCPServer

            server = MCPServer("weather")
            @server.tool()
            async def forecast(city: str, days: int = 3) -> str: return city
            app = server.streamable_http_app(stateless_http=True, json_response=True)
            """,
            "POST /mcp headers(accept=application/json, text/event-stream, host=127.0.0.1:8000)"
            ' json({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": '
            '"2025-06-18", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}})'
            ' messages({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "forecast", '
            '"arguments": {"city": "a"}}})')
        self.assertEqual(
            routes["POST/mcp"]["full_body"],
            '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "forecast", '
            '"arguments": {"city": "a"}}}')

    def test_wrappers(self):
        """Apps are found within apps: in attributes, closures, partials and what a function calls."""
        self.assert_routes(
            """
            import functools
            from starlette.applications import Starlette
            from starlette.middleware.cors import CORSMiddleware
            from starlette.routing import Route, WebSocketRoute

            def app_with(path): return Starlette(routes=[Route(path, lambda request: None)])

            class Gate:
                def __init__(self, inner): self.inner = inner
                async def __call__(self, scope, receive, send):
                    if scope["path"] == "/health": return
                    await self.inner(scope, receive, send)

            def closed(inner):
                async def wrapped(scope, receive, send): await inner(scope, receive, send)
                return wrapped

            async def given(other, scope, receive, send): pass

            class Dispatcher:
                def __init__(self): self.apps = {"one": Gate(app_with("/one")), "two": closed(app_with("/two"))}
                async def __call__(self, scope, receive, send): pass

            three, dispatcher = app_with("/three"), CORSMiddleware(Dispatcher())
            partial = functools.partial(given, app_with("/four"))

            async def app(scope, receive, send):
                if scope["path"] == "/three": await three(scope, receive, send)
                elif scope["path"] == "/four": await partial(scope, receive, send)
                else: await dispatcher(scope, receive, send)
            """,
            "GET,HEAD /three", "GET,HEAD /four", "GET,HEAD /one", "GET,HEAD /two",
            guesses=("ws /health", "GET,POST /health", "ws /one", "ws /two", "ws /three", "ws /four", "GET /"))

    def test_bare_app(self):
        """The paths of a bare app are guesses; what its code reads there is no guess."""
        self.assert_routes(
            """
            import json
            from urllib.parse import parse_qs

            LANGUAGES = {"en": "Hello", "fr": "Bonjour"}
            async def greet(scope, receive, send):
                values = parse_qs(scope["query_string"].decode())
                return LANGUAGES[values.get("lang", ["en"])[0]]
            async def store(scope, receive, send):
                body = b""
                while True:
                    event = await receive()
                    body += event.get("body", b"")
                    if not event.get("more_body"): break
                return json.loads(body)["title"]
            ROUTES = {"/greet": greet, "/store": store}

            async def app(scope, receive, send):
                if scope["path"].startswith("/blobs/"): return
                await ROUTES[scope["path"]](scope, receive, send)
            """,
            guesses=(
                "ws /blobs/{rest} params(rest=a)", "GET,POST /blobs/{rest} params(rest=a)",
                "ws /greet query(lang?=en)", "GET,POST /greet query(lang?=en)",
                'ws /store messages({"title": "a"})', 'GET,POST /store json({"title": "a"})', "GET /"))

    def test_middleware(self):
        """A credential that middleware looks for belongs to every route behind it."""
        self.assert_routes(
            """
            from starlette.applications import Starlette
            from starlette.middleware import Middleware
            from starlette.middleware.base import BaseHTTPMiddleware
            from starlette.routing import Route

            KEYS = ("key-of-ann", "key-of-bob")
            TOKENS = {b"Bearer gate-token"}

            class Keys(BaseHTTPMiddleware):
                async def dispatch(self, request, call_next):
                    if request.headers.get("X-API-Key") in KEYS: return await call_next(request)

            class Gate:
                def __init__(self, inner): self.inner = inner
                async def __call__(self, scope, receive, send): await self.check(scope, receive, send)
                async def check(self, scope, receive, send):
                    if dict(scope["headers"]).get(b"authorization") in TOKENS:
                        await self.inner(scope, receive, send)

            def a(request): pass
            app = Gate(Starlette(routes=[Route("/a", a)], middleware=[Middleware(Keys)]))
            """,
            "GET,HEAD /a headers(X-API-Key=key-of-ann, authorization=Bearer gate-token)",
            guesses=("GET / headers(X-API-Key=key-of-ann, authorization=Bearer gate-token)",))

    def test_allowed_hosts_and_origins(self):
        """Where not every host or origin is let in, one that is belongs to each route."""
        self.assert_routes(
            """
            import django
            from django.conf import settings
            settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="x", ALLOWED_HOSTS=[".example.org"])
            django.setup()
            from channels.generic.websocket import WebsocketConsumer
            from channels.routing import ProtocolTypeRouter, URLRouter
            from channels.security.websocket import AllowedHostsOriginValidator
            from django.core.asgi import get_asgi_application
            from django.urls import path
            from starlette.applications import Starlette
            from starlette.middleware import Middleware
            from starlette.middleware.trustedhost import TrustedHostMiddleware
            from starlette.routing import Mount, Route

            def page(request): pass
            urlpatterns = [path("page", page)]
            class Talk(WebsocketConsumer): pass
            inner = ProtocolTypeRouter({
                "http": get_asgi_application(),
                "websocket": AllowedHostsOriginValidator(URLRouter([path("talk", Talk.as_asgi())]))})
            trusted = Starlette(
                routes=[Route("/x", page)],
                middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["*.example.com"])])
            app = Starlette(routes=[Mount("/in", inner), Mount("/trusted", trusted)])
            """,
            "mount /in",
            "GET /in/page headers(host=example.org)",
            "ws /in/talk headers(origin=http://example.org)",
            "mount /trusted",
            "GET,HEAD /trusted/x headers(host=example.com)")

    def test_text_commands(self):
        """A first message is made of the words that the code splits a text into."""
        self.assert_routes(
            """
            from fastapi import FastAPI, WebSocket

            SYMBOLS = ("ACME", "GLOB")
            app = FastAPI()
            @app.websocket("/watch")
            async def watch(websocket: WebSocket):
                await websocket.accept()
                event = await websocket.receive()
                command, _, symbol = (event.get("text") or "").partition(" ")
                if symbol in SYMBOLS and command in ("follow", "leave"): pass
            """,
            "ws /watch messages(follow ACME leave ACME)")

    def test_troubles(self):
        """A failure to learn is told with its framework, and the rest is there."""
        hello = self.learn("""
            import django
            from django.conf import settings
            settings.configure(ROOT_URLCONF="no.such.urls", SECRET_KEY="x")
            django.setup()
            from django.core.asgi import get_asgi_application
            from fastapi import FastAPI
            app = FastAPI()
            @app.get("/ready")
            def ready(): return {}
            app.mount("/old", get_asgi_application())
            """)
        self.assertIn("GET /ready", [said(route) for route in hello["routes"]])
        self.assertEqual(hello["troubles"], [{
            "framework": "django", "place": "/old", "kind": "ModuleNotFoundError",
            "message": "No module named 'no'"}])


if __name__ == "__main__":
    unittest.main()
