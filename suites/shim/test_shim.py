"""Tests of the harness's part in an interpreter, which run it as a process.

`python3 -m unittest test_shim` here; what needs a framework is skipped where that is not installed.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest

from driver import SHIM, Shim, http_scope, websocket_scope

SECOND = 10**9
UPTIME = 1_000_000  # seconds, of the virtual monotonic clock at the start
HAS_STARLETTE = importlib.util.find_spec("starlette") is not None
HAS_FASTAPI = importlib.util.find_spec("fastapi") is not None
HAS_MULTIPART = importlib.util.find_spec("python_multipart") is not None
HAS_ASGIREF = importlib.util.find_spec("asgiref") is not None
CONNECT = {"type": "websocket.connect"}


def unnoticed(events):
    """The events without evidence of handled exceptions, and without the harness's own bookkeeping."""
    return [event for event in events if event[0] not in ("handled", "kept", "freed")]


class ShimCase(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        # A test that hangs would hang for ever in a read.
        signal.signal(signal.SIGALRM, lambda *_: self.fail("too slow"))
        signal.alarm(20)
        self.addCleanup(signal.alarm, 0)
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = os.path.realpath(holder.name)
        self.shims = []

    def tearDown(self):
        for shim in self.shims:
            if shim.process.poll() is None:
                shim.process.kill()
            shim.end()

    def write(self, name, source):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(textwrap.dedent(source))
        return path

    def start(self, source=None, app="main:app", **settings):
        if source is not None:
            self.write("main.py", source)
        shim = Shim(self.folder, app, **settings)
        self.shims.append(shim)
        return shim

    def run_app(self, source, **settings):
        shim = self.start(source, **settings)
        self.assertTrue(shim.hello["ok"], shim.hello)
        return shim

    def follow(self, shim, *commands, at=0):
        """All events, and the time at the end, where the harness comes back for every timer."""
        timer, events = shim.batch(*commands, at=at)
        while timer is not None:
            timer, more = shim.batch(at=timer)
            events += more
        return events, shim.now

    def refused(self, kind, source=None, app="main:app", **settings):
        shim = self.start(source, app, **settings)
        self.assertEqual((shim.hello["ok"], shim.hello.get("kind")), (False, kind), shim.hello)
        self.assertNotIn("shim.py", shim.hello["traceback"])
        self.assertNotIn("importlib", shim.hello["traceback"])
        self.assertEqual(shim.end()[0], 0)
        return shim.hello


class Loading(ShimCase):
    def test_reply(self):
        shim = self.run_app("async def app(scope, receive, send): pass")
        self.assertEqual(shim.hello["python"], sys.version.split()[0])
        self.assertEqual(shim.hello["pid"], shim.process.pid)
        self.assertIsNone(shim.hello["framework"])
        self.assertEqual(shim.hello["routes"], [])
        self.assertEqual("starlette" in shim.hello["versions"], HAS_STARLETTE)

    def test_module_not_found(self):
        self.write("service.py", "")
        reply = self.refused("module-not-found", app="servise:app")
        self.assertEqual(reply["near"][0], "service")
        self.assertEqual(reply["searched"][0], self.folder)
        self.assertNotIn(os.path.dirname(SHIM), reply["searched"])
        self.assertIn("servise", reply["message"])

    def test_module_of_package_not_found(self):
        self.write("pkg/__init__.py", "")
        self.write("pkg/main.py", "")
        reply = self.refused("module-not-found", app="pkg.mian:app")
        self.assertEqual(reply["near"], ["pkg.main"])
        self.refused("module-not-found", app="nopkg.main:app")

    def test_file_name_given(self):
        reply = self.refused("module-not-found", "app = 1", app="main.py:app")
        self.assertEqual(reply["near"][0], "main")

    def test_other_module_missing(self):
        reply = self.refused("import-error", "import surely_not_here")
        self.assertIn("surely_not_here", reply["message"])
        self.assertIn(sys.executable, reply["message"])
        self.assertIn("main.py", reply["traceback"])

    def test_import_error(self):
        reply = self.refused("import-error", "x = 1 / 0")
        self.assertIn("ZeroDivisionError: division by zero", reply["message"])
        self.assertTrue(reply["traceback"].startswith("Traceback"))
        reply = self.refused("import-error", "def broken(:")
        self.assertIn("SyntaxError", reply["message"])

    def test_environment_variable(self):
        reply = self.refused("import-error", "import os\nkey = os.environ['RELAPSE_KEY']")
        self.assertIn("--env RELAPSE_KEY=VALUE", reply["message"])
        reply = self.refused("import-error", "{}['RELAPSE_KEY']")
        self.assertNotIn("--env", reply["message"])

    def test_exited(self):
        reply = self.refused("exited", "import sys; sys.exit(3)")
        self.assertIn("3", reply["message"])

    def test_no_attribute(self):
        reply = self.refused("no-attribute", "application = print", app="main:aplication")
        self.assertEqual(reply["near"], ["application"])
        self.refused("no-attribute", "", app="main")
        self.refused("no-attribute", "class a: pass", app="main:a.b")

    def test_dotted_attribute(self):
        shim = self.start("class holder:\n    async def app(scope, receive, send): pass",
                          app="main:holder.app")
        self.assertTrue(shim.hello["ok"])

    def test_not_callable(self):
        self.assertIn("int", self.refused("not-callable", "app = 3")["message"])

    def test_factory(self):
        source = """
            def app(debug=False, a=1, b=2):
                async def inner(scope, receive, send): print("inner")
                return inner
            """
        self.refused("factory-needed", source)
        shim = self.run_app(source, factory=True)
        self.assertEqual(shim.events(("call", 1, http_scope())), [("returned", 1)])

    def test_factory_failed(self):
        reply = self.refused("factory-failed", "def app(): raise ValueError('no config')",
                             factory=True)
        self.assertIn("ValueError: no config", reply["message"])
        self.assertIn("in app", reply["traceback"])
        self.refused("not-callable", "async def app(): pass", factory=True)
        self.refused("not-callable", "def app(): pass", factory=True)
        self.refused("exited", "def app(): raise SystemExit(1)", factory=True)

    def test_star_arguments_are_no_factory(self):
        shim = self.run_app("async def real(scope, receive, send): pass\n"
                            "def app(*args): return real(*args)")
        self.assertEqual(shim.events(("call", 1, http_scope())), [("returned", 1)])

    def test_asgi2_class(self):
        shim = self.run_app("""
            class app:
                def __init__(self, scope):
                    self.scope = scope
                async def __call__(self, receive, send):
                    await send({"type": self.scope["type"]})
            """)
        self.assertEqual(shim.events(("call", 1, http_scope())), [("send", 1, {"type": "http"})])

    def test_asgi2_function(self):
        shim = self.run_app("""
            def app(scope):
                async def instance(receive, send):
                    await send({"type": scope["type"]})
                return instance
            """)
        self.assertEqual(shim.events(("call", 1, http_scope())), [("send", 1, {"type": "http"})])

    def test_callable_object(self):
        shim = self.run_app("""
            class App:
                async def __call__(self, scope, receive, send):
                    await send({"type": "x"})
            app = App()
            """)
        self.assertEqual(shim.events(("call", 1, http_scope())), [("send", 1, {"type": "x"})])

    def test_import_in_running_loop(self):
        shim = self.run_app("""
            import asyncio
            lock = asyncio.Lock()
            task = asyncio.get_running_loop().create_task(asyncio.sleep(1, "early"))
            async def app(scope, receive, send):
                async with lock:
                    await send({"type": await task})
            """)
        timer, events = shim.batch(("call", 1, http_scope()))
        self.assertEqual((timer, events), (SECOND, []))
        self.assertEqual(shim.events(at=timer), [("send", 1, {"type": "early"})])

    def test_seed(self):
        source = """
            import random
            value = random.random()
            async def app(scope, receive, send): await send({"type": value})
            """
        values = {repr(self.run_app(source, seed=7).events(("call", 1, {"type": "x"})))
                  for _ in range(2)}
        self.assertEqual(len(values), 1)

    @unittest.skipUnless(HAS_FASTAPI, "needs fastapi")
    def test_routes(self):
        shim = self.run_app("""
            from typing import Optional
            from fastapi import APIRouter, Depends, FastAPI, Header, WebSocket
            from starlette.middleware.cors import CORSMiddleware
            from starlette.routing import Mount, Route
            from starlette.applications import Starlette

            def token(x_token: str = Header()): pass
            inner = APIRouter(prefix="/a")
            @inner.websocket("/ws/{room}")
            async def ws(w: WebSocket, room: int, q: str, page: Optional[int] = None,
                         t=Depends(token)): pass
            @inner.post("/items", name="add")
            def add(limit: int = 3): pass
            outer = APIRouter()
            outer.include_router(inner, prefix="/v1")
            api = FastAPI()
            api.include_router(outer, prefix="/api")
            api.mount("/sub", Starlette(routes=[Mount("/deep", routes=[Route("/x", add)])]), "sub")
            app = CORSMiddleware(api)
            """)
        self.assertTrue(shim.hello["ok"])
        self.assertEqual(shim.hello["framework"], "starlette")
        routes = {route["path"]: route for route in shim.hello["routes"]}
        self.assertEqual(routes["/sub"]["kind"], "mount")
        self.assertEqual(routes["/sub/deep/x"]["methods"], ["GET", "HEAD"])
        self.assertEqual(routes["/api/v1/a/items"]["methods"], ["POST"])
        self.assertEqual(routes["/api/v1/a/items"]["query"],
                         [{"name": "limit", "required": False, "type": "int", "good": "3", "others": []}])
        ws = routes["/api/v1/a/ws/{room}"]
        self.assertEqual((ws["kind"], ws["name"], ws["methods"]), ("websocket", "ws", []))
        self.assertEqual(
            ws["query"][0], {"name": "q", "required": True, "type": "str", "good": "a", "others": []})
        self.assertEqual((ws["query"][1]["name"], ws["query"][1]["required"]), ("page", False))
        self.assertEqual(
            ws["headers"], [{"name": "x-token", "required": True, "type": "str", "good": "a", "others": []}])
        self.assertEqual(ws["params"],
                         [{"name": "room", "required": True, "type": "int", "good": "1", "others": []}])

    @unittest.skipUnless(HAS_FASTAPI, "needs fastapi")
    def test_examples(self):
        shim = self.run_app("""
            import enum, uuid
            from typing import Annotated, Optional
            from fastapi import Body, Cookie, Depends, FastAPI, Query
            from pydantic import BaseModel, Field

            class Kind(str, enum.Enum):
                small = "small"
                large = "large"
            class Part(BaseModel):
                size: int = Field(ge=5)
                kind: Kind
            class Order(BaseModel):
                name: str = Field(min_length=3)
                parts: list[Part]
                note: Optional[str] = None
            def session(visit: str = Cookie()): return {"user_id": visit}
            app = FastAPI()
            @app.put("/orders/{order}")
            async def put(order: uuid.UUID, body: Order, page: Annotated[int, Query(gt=2)],
                          user=Depends(session)):
                return user["user_id"], "colour", page % 97 == 13, page > 44
            @app.post("/two")
            def two(a: int = Body(), b: str = Body()): pass
            """)
        routes = {route["path"]: route for route in shim.hello["routes"]}
        put = routes["/orders/{order}"]
        self.assertEqual([p["good"] for p in put["params"] + put["query"] + put["cookies"]],
                         ["12345678-1234-4234-8234-123456789abc", "3", "a"])
        self.assertEqual(json.loads(put["body"]),
                         {"name": "aaa", "parts": [{"size": 6, "kind": "small"}]})
        self.assertEqual(put["words"], ["user_id", "colour"])
        self.assertEqual((put["numbers"], routes["/two"]["numbers"]), ([97, 13, 44], []))
        self.assertEqual((routes["/two"]["body"], routes["/two"]["content_type"]),
                         ('{"a": 1, "b": "a"}', "application/json"))

    @unittest.skipUnless(HAS_FASTAPI and HAS_MULTIPART, "needs fastapi and python-multipart")
    def test_bodies(self):
        shim = self.run_app("""
            from typing import List, Optional
            from fastapi import Body, FastAPI, File, Form, UploadFile
            from pydantic import BaseModel

            class Node(BaseModel):
                name: str
                size: int = 3
                note: Optional[str] = None
                children: Optional[List["Node"]] = None
            app = FastAPI()
            @app.post("/node")
            def node(node: Node): pass
            @app.post("/two")
            def two(a: int = Body(), b: str = Body("c")): pass
            @app.post("/form")
            def form(name: str = Form(), size: int = Form(7)): pass
            @app.post("/file")
            def file(file: UploadFile, name: str = Form("a b"), more: Optional[UploadFile] = None): pass
            """)
        routes = {route["path"]: route for route in shim.hello["routes"]}
        self.assertEqual(json.loads(routes["/node"]["body"]), {"name": "a"})
        # What would lead back to itself is left out.
        self.assertEqual(json.loads(routes["/node"]["full_body"]), {"name": "a", "size": 3, "note": "a"})
        self.assertEqual([json.loads(routes["/two"][key]) for key in ("body", "full_body")],
                         [{"a": 1}, {"a": 1, "b": "c"}])
        self.assertEqual([routes["/form"][key] for key in ("content_type", "body", "full_body")],
                         ["application/x-www-form-urlencoded", "name=a", "name=a&size=7"])
        self.assertEqual(routes["/file"]["content_type"],
                         "multipart/form-data; boundary=relapse-form-boundary")
        part = ("--relapse-form-boundary\r\nContent-Disposition: form-data; name=\"file\"; "
                "filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\na\r\n")
        self.assertEqual(routes["/file"]["body"], part + "--relapse-form-boundary--\r\n")
        full = routes["/file"]["full_body"]
        self.assertEqual(full.count("--relapse-form-boundary\r\n"), 3, full)
        self.assertIn('name="name"\r\n\r\na b\r\n', full)
        self.assertIn('name="more"; filename="a.txt"', full)

    def test_documented_bodies(self):
        shim = self.run_app("""
            class App:
                def openapi(self):
                    text, file = {"type": "string"}, {"type": "string", "format": "binary"}
                    schema = {"type": "object", "required": ["file"],
                              "properties": {"file": {"type": "array", "items": file}, "name": text}}
                    content = {"multipart/form-data": {"schema": {"$ref": "#/components/schemas/Form"}}}
                    return {"paths": {"/file": {"post": {"requestBody": {"content": content}}}},
                            "components": {"schemas": {"Form": schema}}}
                async def __call__(self, scope, receive, send): pass
            app = App()
            """)
        route = shim.hello["routes"][0]
        self.assertEqual(route["content_type"], "multipart/form-data; boundary=relapse-form-boundary")
        self.assertIn('name="file"; filename="a.txt"', route["body"])
        self.assertNotIn('name="name"', route["body"])
        self.assertIn('name="name"\r\n\r\na\r\n', route["full_body"])

    def test_documented_routes(self):
        shim = self.run_app("""
            class App:
                def openapi(self):
                    size = {"name": "size", "in": "query", "required": True,
                            "schema": {"type": "integer", "minimum": 9}}
                    return {"paths": {"/boxes/{box}": {
                        "parameters": [{"name": "box", "in": "path", "schema": {"enum": ["x"]}}],
                        "get": {"parameters": [size]}, "summary": "boxes"}}}
                async def __call__(self, scope, receive, send): pass
            app = App()
            """)
        [route] = shim.hello["routes"]
        self.assertEqual((route["path"], route["methods"]), ("/boxes/{box}", ["GET"]))
        self.assertEqual([p["good"] for p in route["query"] + route["params"]], ["10", "x"])

    def test_guesses(self):
        shim = self.run_app("""
            async def app(scope, receive, send):
                if scope["path"] == "/ws": await talk(send)
            async def talk(send): await send({"type": "welcome", "n": (b"lobby",)})
            """)
        self.assertEqual(shim.hello["routes"], [])
        ws, http, root = shim.hello["guesses"]
        self.assertEqual((ws["path"], ws["kind"], http["kind"]), ("/ws", "websocket", "http"))
        self.assertEqual((root["path"], root["methods"]), ("/", ["GET"]))
        self.assertEqual(set(ws["words"]), {"path", "type", "welcome", "n", "lobby"})

    def test_odd_routes(self):
        shim = self.run_app("""
            class Bad:
                @property
                def path(self): raise RuntimeError("no path")
            class App:
                routes = [Bad(), 3, None]
                async def __call__(self, scope, receive, send): pass
            class Worse:
                @property
                def routes(self): raise RuntimeError("no routes")
                async def __call__(self, scope, receive, send): pass
            app, worse = App(), Worse()
            """)
        self.assertEqual(shim.hello["routes"], [])
        told = [(trouble["framework"], trouble["kind"], trouble["message"])
                for trouble in shim.hello["troubles"]]
        self.assertEqual(told, [("starlette", "RuntimeError", "no path"),
                                ("starlette", "TypeError", "int has no path"),
                                ("starlette", "TypeError", "NoneType has no path")])
        worse = self.start(app="main:worse").hello
        self.assertTrue(worse["ok"])
        self.assertEqual({trouble["message"] for trouble in worse["troubles"]}, {"no routes"})

    def test_parts_are_hidden(self):
        """The app finds no module of ours, neither while it is loaded nor later."""
        shim = self.run_app("""
            import importlib.util, sys
            def ours(): return [name for name in sys.modules if "relapse_routes" in name]
            found = [ours(), importlib.util.find_spec("relapse_routes")]
            class App:
                routes = []
                async def __call__(self, scope, receive, send):
                    await send({"type": "x", "found": found + [
                        ours(), importlib.util.find_spec("relapse_routes")]})
            app = App()
            """)
        [event] = shim.events(("call", 1, http_scope()))
        self.assertEqual(event[2]["found"], [[], None, [], None])


class Conversation(ShimCase):
    def test_receive_and_send(self):
        shim = self.run_app("""
            async def app(scope, receive, send):
                event = await receive()
                await send({"type": "echo", "got": event, "path": scope["path"]})
                await receive()
            """)
        self.assertEqual(shim.batch(("call", 7, http_scope("/p"))), (None, [("receive", 7)]))
        self.assertEqual(shim.events(("give", 7, CONNECT)),
                         [("send", 7, {"type": "echo", "got": CONNECT, "path": "/p"})])
        self.assertEqual(shim.events(), [])
        self.assertEqual(shim.events(("give", 7, CONNECT)), [])
        self.assertEqual(shim.events(("sent", 7)), [("receive", 7), ("returned", 7)])
        self.assertEqual(shim.events(("sent", 7), ("give", 9, {})), [])

    def test_oldest_first(self):
        shim = self.run_app("""
            import asyncio
            async def app(scope, receive, send):
                async def one(n):
                    event = await receive()
                    await send({"type": n, "got": event["n"]})
                await asyncio.gather(one(1), one(2), one(3))
            """)
        self.assertEqual(shim.events(("call", 1, http_scope())), [("receive", 1)] * 3)
        self.assertEqual(shim.events(("give", 1, {"n": 1}), ("give", 1, {"n": 2})),
                         [("send", 1, {"type": 1, "got": 1}), ("send", 1, {"type": 2, "got": 2})])
        self.assertEqual(shim.events(("give", 1, {"n": 3}), ("sent", 1), ("sent", 1)),
                         [("send", 1, {"type": 3, "got": 3})])
        self.assertEqual(shim.events(("sent", 1)), [("returned", 1)])

    def test_cancelled_receive_loses_nothing(self):
        shim = self.run_app("""
            import asyncio
            async def app(scope, receive, send):
                try:
                    await asyncio.wait_for(receive(), 5)
                except asyncio.TimeoutError:
                    await send({"type": "timeout"})
                task = asyncio.ensure_future(receive())
                await send({"type": "two"})
                task.cancel()     # together with the event
                try:
                    await task
                except asyncio.CancelledError:
                    pass
                await send(await receive())
            """)
        self.assertEqual(shim.batch(("call", 1, http_scope())), (5 * SECOND, [("receive", 1)]))
        self.assertEqual(shim.events(at=5 * SECOND), [("withdrawn", 1), ("send", 1, {"type": "timeout"})])
        events = shim.events(("sent", 1))
        self.assertEqual(events[0][:3], ("handled", 1, "TimeoutError"))
        self.assertEqual(events[1:], [("send", 1, {"type": "two"}), ("receive", 1)])
        self.assertEqual(shim.events(("sent", 1), ("give", 1, {"n": 1}), ("give", 1, {"n": 2})),
                         [("receive", 1), ("send", 1, {"n": 1})])

    def test_raise(self):
        shim = self.run_app("""
            import asyncio
            async def app(scope, receive, send):
                for action in (receive, lambda: send({"type": "x"})):
                    while True:
                        try:
                            event = await action()
                            if event is None or event["type"] == "next": break
                        except BaseException as e:
                            print(type(e).__mro__[:2], e)
                            await receive() if action is not receive else None
                            kinds = [c.__name__ for c in type(e).__mro__[:2]]
                            import logging; logging.info("%s %s", kinds, e)
            """)
        shim.events(("call", 1, http_scope()))

        def raised(name, message="m"):
            return shim.events(("raise", 1, "receive", name, message))[0][4]

        self.assertEqual(raised("OSError"), "['OSError', 'Exception'] m")
        self.assertEqual(raised("ConnectionResetError"),
                         "['ConnectionResetError', 'ConnectionError'] m")
        self.assertEqual(raised("ClientDisconnected", ""), "['ClientDisconnected', 'OSError'] ")
        self.assertTrue(raised("CancelledError").startswith("['CancelledError'"))
        self.assertEqual(raised("Whatever"), "['RuntimeError', 'Exception'] Whatever: m")
        self.assertEqual(raised("StopIteration"), "['RuntimeError', 'Exception'] StopIteration: m")
        self.assertEqual(raised("UnicodeDecodeError"),
                         "['RuntimeError', 'Exception'] UnicodeDecodeError: m")
        self.assertEqual(raised("print"), "['RuntimeError', 'Exception'] print: m")
        self.assertEqual(shim.events(("give", 1, {"type": "next"}))[0][0], "send")
        self.assertEqual(shim.events(("raise", 1, "send", "OSError", "gone")), [("receive", 1)])
        self.assertEqual(shim.events(("give", 1, {}))[0][4], "['OSError', 'Exception'] gone")
        self.assertEqual(shim.events(("sent", 1)), [("returned", 1)])

    def test_raise_before_receive(self):
        shim = self.run_app("""
            async def app(scope, receive, send):
                await send({"type": "x"})
                await receive()
            """)
        shim.events(("call", 1, http_scope()))
        events = shim.events(("raise", 1, "receive", "OSError", "gone"), ("sent", 1))
        self.assertEqual(events[1][:4], ("raised", 1, "OSError", "gone"))

    def test_credit(self):
        shim = self.run_app("""
            async def app(scope, receive, send):
                await send({"type": "websocket.accept"})
                for text in ("0123456789", "é", b"0123456789", "x" * 80, "0123456789"):
                    await send({"type": "websocket.send", "text" if type(text) is str else "bytes": text})
                await send({"type": "websocket.close"})
            """)
        shim.events(("call", 1, websocket_scope()))
        # What need not be ASCII may be refused, so that its send waits.
        events = shim.events(("sent", 1), ("credit", 1, 100))
        self.assertEqual([event[0] for event in events], ["sent", "send"])
        # 24 of 100 bytes are for the first; the next does not fit into what is left.
        events = shim.events(("sent", 1), ("credit", 1, 100))
        self.assertEqual([event[0] for event in events], ["sent", "send"])
        self.assertEqual(events[1][2]["text"], "x" * 80)
        # The credit is over.
        self.assertEqual([event[0] for event in shim.events(("sent", 1))], ["send"])
        self.assertEqual(shim.events(("sent", 1))[0][2], {"type": "websocket.close"})
        self.assertEqual(shim.events(("sent", 1)), [("returned", 1)])

    def test_credit_is_for_messages(self):
        shim = self.run_app("""
            async def app(scope, receive, send):
                for event in ({"type": "websocket.send"}, {"type": "websocket.send", "text": 1},
                              {"type": "websocket.send", "text": "a", "bytes": b"b"},
                              {"type": "websocket.send", "text": None, "bytes": b"b"},
                              {"type": "http.response.body", "body": b""}, "websocket.send"):
                    await send(event)
            """)
        shim.events(("call", 1, websocket_scope()), ("credit", 1, 1000))
        for _ in range(5):
            events = shim.events(("sent", 1), ("credit", 1, 1000))
            self.assertEqual([event[0] for event in events], ["send"])
        self.assertEqual(shim.events(("sent", 1)), [("returned", 1)])

    def test_endless_sends_on_credit(self):
        shim = self.run_app("""
            async def app(scope, receive, send):
                while True:
                    await send({"type": "websocket.send", "text": ""})
            """)
        events = shim.events(("call", 1, websocket_scope()), ("credit", 1, 14000))
        self.assertEqual([event[0] for event in events], ["sent"] * 1000 + ["send"])
        self.assertEqual(shim.events(("cancel", 1))[0][:3], ("raised", 1, "CancelledError"))

    def test_cancel_and_forget(self):
        shim = self.run_app("""
            import logging
            async def app(scope, receive, send):
                try:
                    await receive()
                finally:
                    logging.warning("bye")
            """)
        shim.events(("call", 1, http_scope()), ("call", 2, http_scope()))
        self.assertEqual([event[:4] for event in shim.events(("cancel", 1))],
                         [("withdrawn", 1), ("log", 1, 30, "root"), ("raised", 1, "CancelledError", "")])
        self.assertEqual(shim.events(("forget", 2)), [])
        self.assertEqual(shim.events(("cancel", 2)), [("withdrawn", 2)])

    def test_cancel_at_once(self):
        shim = self.run_app("async def app(scope, receive, send): await receive()")
        events = shim.events(("call", 1, http_scope()), ("cancel", 1))
        self.assertEqual([event[0] for event in events], ["receive", "withdrawn", "raised"])
        events = shim.events(("call", 2, http_scope()), ("give", 2, {}), ("cancel", 2))
        self.assertEqual(events, [("receive", 2), ("returned", 2)])

    def test_kept_call_sends(self):
        shim = self.run_app("""
            kept = []
            async def app(scope, receive, send):
                kept.append(send)
                if len(kept) == 2:
                    await kept[0]({"late": True})
                    kept.clear()
            """)
        self.assertEqual(shim.events(("call", 1, http_scope())), [("returned", 1)])
        self.assertEqual(shim.kept, [("kept", 1)])
        self.assertEqual(shim.events(("call", 2, http_scope())), [("send", 1, {"late": True})])
        raised = shim.events(("raise", 1, "send", "h11._util.LocalProtocolError", "no"))
        self.assertEqual(raised[0][:4], ("raised", 2, "h11._util.LocalProtocolError", "no"))

    def test_call_that_nothing_holds(self):
        shim = self.run_app("""
            import gc
            gc.disable()
            async def app(scope, receive, send):
                try:
                    scope["state"]
                except KeyError:
                    await send({})
                if scope["path"] == "/raise":
                    raise ValueError
            """)
        for ident, path in enumerate(("/return", "/raise"), 1):
            shim.events(("call", ident, http_scope(path)))
            self.assertIn(shim.events(("sent", ident))[-1][0], ("returned", "raised"))
        self.assertEqual(shim.kept, [])

    def test_forgotten_call_asks_on(self):
        shim = self.run_app("""
            async def app(scope, receive, send):
                await send({})
                await (send({}) if scope["path"] == "/s" else receive())
            """)
        shim.events(("call", 1, http_scope("/s")), ("call", 2, http_scope("/r")))
        self.assertEqual(shim.events(("forget", 1), ("forget", 2), ("sent", 1), ("sent", 2)),
                         [("send", 1, {}), ("receive", 2)])
        self.assertEqual(shim.batch(("cancel", 1), ("cancel", 2)), (None, [("withdrawn", 2)]))
        self.assertEqual(shim.kept[:2], [("kept", 1), ("kept", 2)])

    def test_state(self):
        shim = self.run_app("""
            async def app(scope, receive, send):
                if scope["type"] == "lifespan":
                    scope["state"]["db"] = "pool"
                    await send({"type": "lifespan.startup.complete"})
                else:
                    state = scope["state"]
                    state["mine"] = scope["path"]
                    await send({"type": "state", "state": state})
            """)
        shim.events(("call", 0, {"type": "lifespan", "state": {}}))
        for ident, path in enumerate(("/a", "/b"), 1):
            scope = {**http_scope(path), "state": {"given": ident}}
            self.assertEqual(
                shim.events(("call", ident, scope))[0][2]["state"],
                {"db": "pool", "given": ident, "mine": path})
        events = shim.events(("call", 3, http_scope()))
        self.assertEqual(events[0][:4], ("raised", 3, "KeyError", "'state'"))

    def test_raised(self):
        path = self.write("helper.py", "def fail(text):\n    raise KeyError(text)\n")
        shim = self.run_app("""
            import helper
            async def app(scope, receive, send):
                await receive()
                helper.fail(repr(object()) + "x" * 3000)
            """)
        shim.events(("call", 1, http_scope()))
        (event,) = shim.events(("give", 1, {}))
        kind, ident, name, message, frames, module = event
        self.assertEqual((kind, ident, name, module), ("raised", 1, "KeyError", "builtins"))
        self.assertEqual(len(message), 2000)
        self.assertIn("<object object at 0x…>", message)
        self.assertEqual(frames, [(os.path.join(self.folder, "main.py"), 5, "app"),
                                  (path, 2, "fail")])

    def test_numbers_of_the_system_are_hidden(self):
        shim = self.run_app("""
            import os, threading
            here = os.getpid()
            async def app(scope, receive, send):
                thread, parent = threading.get_native_id(), os.getppid()
                if scope["path"] == "/short":
                    os.getpid = lambda: 12
                    raise ValueError("12 rows: process 12, 'pid': 12, [12], rapid 12, worker 13")
                raise ValueError(f"pid {here} (thread id: {thread}), parent={parent}, worker 13")
            """)
        messages = [shim.events(("call", ident, http_scope(path)))[0][3]
                    for ident, path in enumerate(("/long", "/short"), 1)]
        self.assertEqual(messages, [
            "pid … (thread id: …), parent=…, worker 13",
            "12 rows: process …, 'pid': …, [12], rapid 12, worker 13"])

    def test_types_of_exceptions_have_any_attributes(self):
        shim = self.run_app("""
            class Odd(Exception):
                server_name = None
                __module__ = 7
            async def app(scope, receive, send):
                raise Odd("late")
            """)
        event = shim.events(("call", 1, http_scope("/")))[0]
        self.assertEqual(event[2:4], ("Odd", "late"))

    def test_raised_special(self):
        shim = self.run_app("""
            import sys
            class Odd(Exception):
                def __str__(self): raise RuntimeError
            def deep(n):
                if n: deep(n - 1)
                raise ValueError("deep")
            async def app(scope, receive, send):
                path = scope["path"]
                if path == "/odd": raise Odd()
                if path == "/exit": sys.exit(4)
                if path == "/int": raise KeyboardInterrupt
                if path == "/deep": deep(40)
                if path == "/group":
                    raise BaseExceptionGroup("g", [ExceptionGroup("h", [ValueError("leaf")])])
                if path == "/two":
                    raise ExceptionGroup("g", [ValueError("1"), ValueError("2")])
            """)

        def raised(path):
            (event,) = shim.events(("call", path, http_scope(path)))
            return event

        self.assertEqual(raised("/odd")[2:4] + raised("/odd")[5:], ("Odd", "", "main"))
        self.assertEqual(raised("/exit")[2:4], ("SystemExit", "4"))
        self.assertEqual(raised("/int")[2:4], ("KeyboardInterrupt", ""))
        self.assertEqual([frame[2] for frame in raised("/deep")[4]], ["deep"] * 20)
        if sys.version_info >= (3, 11):
            self.assertEqual(raised("/group")[2:4], ("ValueError", "leaf"))
            self.assertEqual(raised("/two")[2:4], ("ExceptionGroup", "g (2 sub-exceptions)"))
        self.assertEqual(raised("/fine"), ("returned", "/fine"))

    def test_app_that_is_not_async(self):
        shim = self.run_app("class App:\n    def __call__(self, a, b, c): pass\napp = App()")
        (event,) = shim.events(("call", 1, http_scope()))
        self.assertEqual(event[:3] + event[4:5], ("raised", 1, "TypeError", []))

    def test_exit_in_a_child_task(self):
        shim = self.run_app("""
            import asyncio, sys
            async def child(): sys.exit(3)
            async def app(scope, receive, send):
                task = asyncio.create_task(child())
                await receive()
                await send({"type": "still here"})
            """)
        events = shim.events(("call", 1, http_scope()))
        self.assertEqual(events[0], ("receive", 1))
        self.assertEqual(events[1][:4], ("unhandled", None, "SystemExit", "3"))
        self.assertEqual(shim.events(("give", 1, {})), [("send", 1, {"type": "still here"})])

    def test_left(self):
        shim = self.run_app("""
            import asyncio
            async def child(): await asyncio.sleep(60)
            async def app(scope, receive, send):
                tasks = [asyncio.create_task(child()) for _ in range(12)]
                tasks.append(asyncio.create_task(asyncio.sleep(0)))
                tasks[3].cancel()
                if scope["path"] == "/tidy":
                    for task in tasks: task.cancel()
            """)
        timer, events = shim.batch(("call", 1, http_scope()))
        self.assertEqual(events[0], ("returned", 1))
        self.assertEqual(events[1][:2], ("left", 1))
        names = events[1][2]
        self.assertEqual(len(names), 11)
        self.assertEqual(names, sorted(names, key=lambda name: int(name.split("-")[1])))
        self.assertEqual(timer, 60 * SECOND)
        self.assertEqual(shim.events(("call", 2, http_scope("/tidy"))), [("returned", 2)])
        self.assertEqual(shim.batch(at=60 * SECOND), (None, []))

    def test_odd_values(self):
        shim = self.run_app("""
            import collections, enum
            class Kind(str, enum.Enum):
                SEND = "websocket.send"
            class Number(enum.IntEnum):
                ONE = 1
            class Text(str): pass
            class Data(bytes): pass
            class Float(float): pass
            class Bad:
                def __repr__(self): raise SystemExit
            class Liar:
                __class__ = str
                def __repr__(self): return "liar"
            Pair = collections.namedtuple("Pair", "a b")
            loop = []; loop.append(loop); loop.append(loop)
            deep = []
            for _ in range(100): deep = [deep]
            event = collections.OrderedDict(
                type=Kind.SEND, text=bytearray(b"x"), view=memoryview(b"x"), one=Number.ONE,
                data=Data(b"d"), real=Float(0.5), pair=Pair(Text("t"), None), bad=Bad(),
                liar=Liar(), some={1}, thing=object, loop=loop, big=1 << 80, deep=deep, gone=...,
                headers=[(b"a", bytearray(b"b"))], flag=True, odd="\\ud800")
            event[Text("key")] = {Number.ONE: 1, frozenset((1,)): 2}
            async def app(scope, receive, send):
                await send({"nested": event} if scope["path"] == "/nested" else event)
                await send(bytearray(b"not even a dict"))
            """)
        (event,) = shim.events(("call", 1, http_scope()))
        got = event[2]
        deep = got.pop("deep")
        for _ in range(40):
            (deep,) = deep
        self.assertEqual(got.pop("view")[:2], ("unmarshallable", "memoryview"))
        self.assertEqual(got, {
            "type": "websocket.send", "text": ("unmarshallable", "bytearray", "bytearray(b'x')"),
            "one": 1, "data": b"d", "real": 0.5, "pair": ("t", None),
            "bad": ("unmarshallable", "Bad", ""), "liar": ("unmarshallable", "Liar", "liar"),
            "some": ("unmarshallable", "set", "{1}"),
            "thing": ("unmarshallable", "type", "<class 'object'>"),
            "loop": [("unmarshallable", "list", "[[...], [...]]")] * 2, "big": 1 << 80,
            "gone": ("unmarshallable", "ellipsis", "Ellipsis"), "flag": True, "odd": "\ud800",
            "headers": [(b"a", ("unmarshallable", "bytearray", "bytearray(b'b')"))],
            "key": {1: 1, ("unmarshallable", "frozenset", "frozenset({1})"): 2}})
        self.assertIs(type(got["type"]), str)
        self.assertIs(got["flag"], True)
        self.assertEqual(shim.events(("sent", 1))[0][2][:2], ("unmarshallable", "bytearray"))
        (event,) = shim.events(("call", 2, http_scope("/nested")))
        self.assertEqual(event[2]["nested"]["type"], "websocket.send")

    def test_large_event(self):
        shim = self.run_app("""
            async def app(scope, receive, send):
                await send({"type": "big", "bytes": (await receive())["bytes"]})
            """)
        shim.events(("call", 1, http_scope()))
        data = bytes(range(256)) * 20000
        self.assertEqual(shim.events(("give", 1, {"bytes": data}))[0][2]["bytes"], data)


class Logging(ShimCase):
    def test_attribution(self):
        shim = self.run_app("""
            import asyncio, logging
            log = logging.getLogger("app.x")
            async def child(n):
                await asyncio.sleep(1)
                log.info("child of %s", n)
            async def app(scope, receive, send):
                n = scope["path"]
                log.info("start %s", n)
                await receive()
                task = asyncio.create_task(child(n))
                log.debug("never seen")
                await task
                log.error("end %s %r", n, object())
            logging.warning("import")
            """)
        events = shim.events(("call", 1, http_scope("/1")), ("call", 2, http_scope("/2")))
        self.assertEqual(events, [
            ("log", None, 30, "root", "import", None, None),
            ("log", 1, 20, "app.x", "start /1", None, None), ("receive", 1),
            ("log", 2, 20, "app.x", "start /2", None, None), ("receive", 2)])
        self.assertEqual(shim.batch(("give", 2, {}), ("give", 1, {})), (SECOND, []))
        self.assertEqual(shim.events(at=SECOND), [
            ("log", 2, 20, "app.x", "child of /2", None, None),
            ("log", 1, 20, "app.x", "child of /1", None, None),
            ("log", 2, 40, "app.x", "end /2 <object object at 0x…>", None, None), ("returned", 2),
            ("log", 1, 40, "app.x", "end /1 <object object at 0x…>", None, None), ("returned", 1)])

    def test_exception_and_warning(self):
        shim = self.run_app("""
            import logging, warnings
            async def app(scope, receive, send):
                try:
                    await send({})
                except OSError:
                    logging.exception("failed")
                warnings.warn("old thing", UserWarning)
                logging.info("%d %d", "wrong")
            """)
        shim.events(("call", 1, http_scope()))
        events = shim.events(("raise", 1, "send", "OSError", "gone"))
        self.assertEqual(events[0][:5], ("log", 1, 40, "root", "failed: OSError: gone"))
        self.assertTrue(events[0][5].startswith("Traceback"))
        self.assertIn("OSError: gone", events[0][5])
        self.assertNotIn("shim.py", events[0][5])
        self.assertEqual(events[1][1:4], (1, 30, "py.warnings"))
        self.assertIn("UserWarning: old thing", events[1][4])
        self.assertEqual(events[2][4], "%d %d")

    def test_own_configuration(self):
        shim = self.run_app("""
            import logging, logging.config
            async def app(scope, receive, send):
                if scope["type"] == "lifespan":
                    logging.config.dictConfig({"version": 1, "root": {"level": "ERROR"}})
                logging.info("here")
            logging.basicConfig(force=True, format="own %(message)s")
            logging.error("import")
            """)
        self.assertEqual(shim.events(("call", 1, http_scope()))[0][4], "here")
        shim.events(("call", 2, {"type": "lifespan"}))
        self.assertEqual(shim.events(("call", 3, http_scope()))[0][4], "here")
        self.assertIn("own import", shim.stop()[2])

    def test_level(self):
        shim = self.run_app("""
            import logging
            logging.getLogger().setLevel(logging.DEBUG)
            async def app(scope, receive, send):
                logging.info("i"); logging.warning("w")
            """, log_level=30)
        self.assertEqual([event[0] for event in shim.events(("call", 1, http_scope()))],
                         ["log", "returned"])

    def test_unhandled(self):
        shim = self.run_app("""
            import asyncio
            async def child(): raise ValueError("lost")
            async def app(scope, receive, send):
                asyncio.create_task(child())
                await receive()
                asyncio.get_running_loop().call_soon(lambda: 1 / 0)
                await receive()
            """)
        events = shim.events(("call", 1, http_scope()))
        self.assertEqual(events[0], ("receive", 1))
        self.assertEqual(events[1][:4], ("unhandled", 1, "ValueError", "lost"))
        self.assertEqual(events[1][4], [(os.path.join(self.folder, "main.py"), 3, "child")])
        events = shim.events(("give", 1, {}))
        self.assertEqual(events[1][:4], ("unhandled", 1, "ZeroDivisionError", "division by zero"))

    def told(self, shim, *commands, at=0):
        """The kinds, the calls and the messages of exceptions that are left to the runtime."""
        events, _ = self.follow(shim, *commands, at=at)
        kinds = ("unhandled", "in_thread", "ignored", "unretrieved", "retrieved")
        return [event[:-1] if event[0] != "retrieved" else event for event in events if event[0] in kinds]

    def test_handler_of_the_app(self):
        """A loop's handler that the app sets hides nothing, and may know what is no error."""
        shim = self.run_app("""
            import asyncio
            class HTTPException(Exception): pass
            def flow(): raise HTTPException("refused")
            async def app(scope, receive, send):
                loop = asyncio.get_running_loop()
                loop.set_exception_handler(lambda loop, context: None)
                loop.call_soon(lambda: 1 / 0)
                loop.call_soon(flow)
                loop.call_exception_handler({"message": "known"})
                await asyncio.sleep(0)
                loop.set_exception_handler(lambda loop, context: {}["handler"])
                loop.call_soon(lambda: 1 / 0)
                await asyncio.sleep(0)
            """)
        division = ("unhandled", 1, "ZeroDivisionError", "division by zero")
        self.assertEqual(self.told(shim, ("call", 1, http_scope())),
                         [division, division, ("unhandled", 1, "KeyError", "'handler'")])

    def test_unretrieved_task(self):
        """A task that is kept after it failed is told, and told again when its exception is asked for."""
        shim = self.run_app("""
            import asyncio
            kept = []
            async def child(): raise ValueError("lost")
            async def app(scope, receive, send):
                if scope["path"] == "/ask":
                    kept[0].exception()
                elif scope["path"] == "/group":
                    await asyncio.gather(child(), child(), return_exceptions=True)
                else:
                    kept.append(asyncio.create_task(child()))
                await asyncio.sleep(1)
            """)
        self.assertEqual(self.told(shim, ("call", 1, http_scope())),
                         [("unretrieved", 1, 1, "ValueError", "lost")])
        self.assertEqual(self.told(shim, ("call", 2, http_scope("/group")), at=SECOND), [])
        self.assertEqual(self.told(shim, ("call", 3, http_scope("/ask")), at=2 * SECOND), [("retrieved", 1)])

    def test_unretrieved_job(self):
        shim = self.run_app("""
            import asyncio
            from concurrent.futures import ThreadPoolExecutor, wait
            pool, kept = ThreadPoolExecutor(2), []
            def fail(): raise ValueError("lost")
            async def app(scope, receive, send):
                if scope["path"] == "/keep":
                    kept.append(pool.submit(fail))
                elif scope["path"] == "/ask":
                    kept.pop().exception()
                elif scope["path"] == "/drop":
                    wait([pool.submit(fail)])
                elif scope["path"] == "/await":
                    await asyncio.gather(asyncio.get_running_loop().run_in_executor(pool, fail), return_exceptions=True)
                else:
                    task = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(pool, fail))
                    task.cancel()
                await asyncio.sleep(1)
            """)
        for number, (path, expected) in enumerate((
                ("/keep", [("unretrieved", 1, 1, "ValueError", "lost")]),
                ("/ask", [("retrieved", 1)]),
                ("/await", []),
                ("/cancel", []),
                ("/drop", [("unretrieved", 2, 5, "ValueError", "lost")])), 1):
            with self.subTest(path):
                call = ("call", number, http_scope(path))
                self.assertEqual(self.told(shim, call, at=number * SECOND), expected)

    def test_exceptions_in_threads(self):
        """A thread runs in the call that starts it, whatever hook the app has."""
        shim = self.run_app("""
            import asyncio, logging, threading
            threading.excepthook = lambda args: None
            def fail():
                logging.warning("works")
                raise ValueError("lost")
            def handle():
                try: fail()
                except ValueError: pass
            async def app(scope, receive, send):
                for work in fail, handle:
                    thread = threading.Thread(target=work)
                    thread.start()
                    thread.join()
                    assert "run" not in vars(thread)
            """)
        events = shim.events(("call", 1, http_scope()))
        self.assertEqual([event[:4] for event in events if event[0] == "in_thread"],
                         [("in_thread", 1, "ValueError", "lost")])
        self.assertEqual([event[1] for event in events if event[0] == "log"], [1, 1])
        self.assertIn(("returned", 1), events)

    def test_exceptions_of_finalizers(self):
        """They are told even if the app puts its own hook in the place; those of libraries are not."""
        shim = self.run_app("""
            import sys
            before = sys.unraisablehook
            sys.unraisablehook = lambda args: before(args)
            class Work:
                def __del__(self): raise ValueError("lost")
            names = {}
            exec("class Lib:\\n def __del__(self): 1 / 0", names)
            async def app(scope, receive, send):
                Work()
                names["Lib"]()
            """)
        for number in 1, 2:
            self.assertEqual(self.told(shim, ("call", number, http_scope())), [("ignored", number, "ValueError", "lost")])

    def test_timers_of_calls(self):
        """The harness may ask when the next timer is due that a call has started."""
        shim = self.run_app("""
            import asyncio, threading
            class HTTPException(Exception): pass
            def flow(): raise HTTPException("gone")
            async def beat():
                while True: await asyncio.sleep(0.5)
            beats = []
            async def app(scope, receive, send):
                loop = asyncio.get_running_loop()
                if scope["type"] == "lifespan":
                    beats.append(asyncio.create_task(beat()))
                    await loop.create_future()
                loop.call_later(1, lambda: 1 / 0)
                loop.call_later(2, flow)
                threading.Timer(3, int).start()
                loop.call_later(0.1, int).cancel()
            """)
        shim.batch(("call", 1, {"type": "lifespan"}))
        shim.batch(("call", 2, http_scope()))
        due = []
        for _ in range(4):
            (due_now,) = [event[1] for event in shim.events(("timers", 2)) if event[0] == "due"]
            due.append(due_now)
            events, timer = [], 0
            while due_now is not None and timer is not None and timer <= due_now:
                timer, more = shim.batch(at=max(timer, shim.now))
                events += more
            told = [event[2] for event in events if event[0] == "unhandled"]
            self.assertEqual(told, ["ZeroDivisionError"] if due_now == SECOND else [])
        self.assertEqual(due, [SECOND, 2 * SECOND, 3 * SECOND, None])
        self.assertEqual([event for event in shim.events(("timers", 3)) if event[0] == "due"], [("due", None)])

    def test_unhandled_without_exception(self):
        shim = self.run_app("""
            import asyncio, gc
            async def child(): await asyncio.get_running_loop().create_future()
            async def app(scope, receive, send):
                asyncio.create_task(child(), name="lost")
                await asyncio.sleep(0)
                gc.collect()
            """)
        event = shim.events(("call", 1, http_scope()))[0]
        message = "Task was destroyed but it is pending! (lost)"
        self.assertEqual(event, ("unhandled", 1, "", message, []))

    def test_shared_state(self):
        """A class that holds what its code takes for an instance's own tells that, and no other does."""
        self.write("visitors.py", """
            class Visitor:
                basket, seen, known, parts = [], {}, set(), []
                there: "ClassVar" = []

                def __init__(self, name):
                    self.name = name
                    self.parts = []

                def put(self, text):
                    self.basket.append(text)
                    self.seen[text] = object()
                    self.known.add(text)
                    self.parts.append(text)
                    self.there.append(text)

            def all_known(): return Visitor.known
            """)
        shim = self.run_app("""
            from visitors import Visitor
            kept = {}
            async def app(scope, receive, send):
                name, _, text = scope["path"][1:].partition("/")
                visitor = Visitor(name)
                if name != "request": visitor = kept.setdefault(name, visitor)
                if text: visitor.put(text)
                visitor.basket, visitor.seen, visitor.known, visitor.there
            """)

        def told(ident, path, *seed):
            events = shim.events(*seed, ("call", ident, http_scope(path)))
            return [event[4] for event in events if event[0] == "log"]

        first = ("seed", 1, 0)
        self.assertEqual(told(1, "/ann/apple", first), [])
        self.assertEqual(told(2, "/ann", ("seed", 2, 1)), [])
        share = 'all instances share Visitor.basket: ["apple"]'
        self.assertEqual(told(3, "/ben", ("seed", 3, 2)), [share])
        # An object that lives for one request only has no state of its own.
        self.assertEqual(told(31, "/request/melon", ("seed", 3, 3)), [share])
        self.assertEqual(told(32, "/ben", ("seed", 3, 4)), [])
        # State that an earlier case left counts as a start value, and nothing is told.
        self.assertEqual(told(4, "/ben", first), [])
        self.assertEqual(told(5, "/ann/pear", ("seed", 5, 1)), [])
        self.assertEqual(told(6, "/ben", ("seed", 6, 2)), ['all instances share Visitor.basket: ["apple", "melon", "pear"]'])


class Handled(ShimCase):
    """Exceptions of the app's own code that stay in the call."""

    def handled(self, body, *commands, scope=None):
        """What is told of exceptions, and what the call does, in order; a place is a line."""
        shim = self.run_app(body)
        events = shim.events(("call", 1, scope or http_scope()))
        for command in commands:
            events += shim.events(command)
        told = []
        for event in events:
            if event[0] in ("handled", "raised"):
                own = [line for file, line, _ in event[4] if file.startswith(self.folder)]
                told.append((event[0], event[2], event[3], own[-1]))
            elif event[0] in ("send", "returned"):
                told.append(event[0])
        return told

    def test_in_the_handler_and_behind_it(self):
        told = self.handled("""
            async def app(scope, receive, send):
                try:
                    {}["a"]
                except KeyError:
                    await send({"type": "x"})
                try:
                    [][1]
                except IndexError:
                    pass
                await send({"type": "x"})
            """, ("sent", 1), ("sent", 1))
        key, index = ("handled", "KeyError", "'a'", 4), ("handled", "IndexError", "list index out of range", 8)
        self.assertEqual(told, ["send", key, index, "send", "returned"])

    def test_escaped_is_not_handled(self):
        told = self.handled("""
            async def app(scope, receive, send):
                try:
                    {}["a"]
                except KeyError as exc:
                    await send({"type": "x"})  # as a framework answers before it raises again
                    raise exc
            """, ("sent", 1))
        self.assertEqual(told, ["send", ("raised", "KeyError", "'a'", 4)])

    def test_replaced(self):
        told = self.handled("""
            async def app(scope, receive, send):
                try:
                    {}["a"]
                except KeyError:
                    await send({"type": "x"})
                    raise RuntimeError("b")
            """, ("sent", 1))
        self.assertEqual(told, ["send", ("handled", "KeyError", "'a'", 4), ("raised", "RuntimeError", "b", 7)])

    def test_flow_and_libraries_are_not_told(self):
        told = self.handled("""
            import asyncio, json, re
            class WebSocketDisconnect(Exception): pass
            class HTTPException(Exception): pass
            def numbers():
                yield 1
                return 2
            async def items():
                yield 1
            async def app(scope, receive, send):
                list(numbers())
                next(iter([]), None)
                async for item in items(): pass
                getattr(app, "nothing", None)
                re.compile("(a|b)*")          # raises and handles inside of the library
                json.loads("[1, 2]")
                for kind in (WebSocketDisconnect, HTTPException, StopIteration, asyncio.CancelledError):
                    try: raise kind()
                    except BaseException: pass
                task = asyncio.ensure_future(asyncio.sleep(100))
                await asyncio.sleep(0)
                task.cancel()
                try: await task
                except asyncio.CancelledError: pass
                try: await receive()
                except OSError: pass          # what the server gave
                await send({"type": "x"})
            """, ("raise", 1, "receive", "ConnectionResetError", "gone"), ("sent", 1))
        self.assertEqual(told, ["send", "returned"])

    def test_library_that_raises_into_own_code(self):
        told = self.handled("""
            import json
            async def app(scope, receive, send):
                try:
                    json.loads("{")
                except ValueError:
                    pass
                await send({"type": "x"})
            """, ("sent", 1))
        self.assertEqual([entry[1::2] for entry in told[:1]], [("JSONDecodeError", 5)])

    def test_each_place_once(self):
        told = self.handled("""
            async def app(scope, receive, send):
                for n in range(100):
                    try:
                        raise ValueError(n)
                    except ValueError:
                        pass
                    if n % 10 == 0:
                        await send({"type": "x"})
            """, *[("sent", 1)] * 10)
        self.assertEqual([entry for entry in told if entry != "send"],
                         [("handled", "ValueError", "0", 5), "returned"])

    def test_thread(self):
        told = self.handled("""
            import asyncio
            def work():
                try:
                    int("x")
                except ValueError:
                    return 0
            async def app(scope, receive, send):
                await asyncio.to_thread(work)
                await send({"type": "x"})
            """, ("sent", 1))
        self.assertEqual([entry[1::2] for entry in told[:1]], [("ValueError", 5)])

    def test_swallowed_without_a_handler(self):
        """Only sys.monitoring sees these."""
        told = self.handled("""
            import asyncio, contextlib
            async def fails(): raise LookupError("b")
            async def app(scope, receive, send):
                with contextlib.suppress(KeyError):
                    {}["a"]
                await asyncio.gather(fails(), return_exceptions=True)
                await send({"type": "x"})
            """, ("sent", 1))
        seen = [("handled", "KeyError", "'a'", 6), ("handled", "LookupError", "b", 3)]
        self.assertEqual(told, [*(seen if sys.version_info >= (3, 12) else ()), "send", "returned"])

    def test_logged_by_a_library(self):
        self.write("site-packages/framework.py", """
            import logging
            def answer():
                try:
                    raise OSError("disk")
                except OSError:
                    logging.getLogger("framework").exception("request failed")
            """)
        told = self.handled("""
            import os, sys
            sys.path.append(os.path.abspath("site-packages"))
            import framework
            async def app(scope, receive, send):
                framework.answer()
                await send({"type": "x"})
            """, ("sent", 1))
        self.assertEqual(told, [("handled", "OSError", "disk", 5), "send", "returned"])

    def test_code_is_as_it_was(self):
        """Before Python 3.12 handlers are rewritten; lines, docstrings and errors stay."""
        shim = self.run_app('''
            """About."""
            import traceback
            def fail():
                """A docstring."""
                try:
                    1 / 0
                except ZeroDivisionError:
                    return traceback.format_exc().count(", line 7")
            async def app(scope, receive, send):
                await send({"doc": __doc__, "own": fail.__doc__, "count": fail()})
            ''')
        ((kind, _, event),) = shim.events(("call", 1, http_scope()))[-1:]
        self.assertEqual(event, {"doc": "About.", "own": "A docstring.", "count": 1})


class Time(ShimCase):
    def test_sleep(self):
        shim = self.run_app("""
            import asyncio
            async def app(scope, receive, send):
                loop = asyncio.get_running_loop()
                await asyncio.sleep(90)
                await send({"now": loop.time()})
                try:
                    await asyncio.wait_for(receive(), 0.5)
                except asyncio.TimeoutError:
                    await send({"now": loop.time()})
            """)
        started = time.monotonic()
        self.assertEqual(shim.batch(("call", 1, http_scope())), (90 * SECOND, []))
        self.assertEqual(shim.batch(at=89 * SECOND), (90 * SECOND, []))
        self.assertEqual(shim.events(at=90 * SECOND), [("send", 1, {"now": UPTIME + 90.0})])
        timer, events = shim.batch(("sent", 1), at=100 * SECOND)
        self.assertEqual((timer, events), (100 * SECOND + SECOND // 2, [("receive", 1)]))
        self.assertEqual(shim.events(at=timer), [("withdrawn", 1), ("send", 1, {"now": UPTIME + 100.5})])
        self.assertLess(time.monotonic() - started, 5)

    def test_no_drift(self):
        shim = self.run_app("""
            import asyncio
            async def app(scope, receive, send):
                loop = asyncio.get_running_loop()
                while True:
                    end = loop.time() + 0.1
                    await asyncio.sleep(0.1)
                    assert loop.time() >= end
            """)
        timer, _ = shim.batch(("call", 1, http_scope()))
        for step in range(1, 2000):
            self.assertEqual(timer, step * SECOND // 10)
            timer, events = shim.batch(at=timer)
            self.assertEqual(events, [])

    def test_odd_deadlines(self):
        shim = self.run_app("""
            import asyncio
            async def app(scope, receive, send):
                loop = asyncio.get_running_loop()
                for delay in (1e-9, 1e-10, 1.23456789012345e-3, 0.1 + 0.2, 1 / 3, 1e8, 1 / 3):
                    end = loop.time() + delay
                    while loop.time() < end:      # as anyio's deadlines do
                        done = loop.create_future()
                        loop.call_at(end, done.set_result, None)
                        await done
                loop.call_later(float("inf"), print)
                loop.call_later(1e10, print)
                await send({"type": "done"})
            """)
        timer, events = shim.batch(("call", 1, http_scope()))
        turns = 0
        while not events:
            turns += 1
            self.assertLess(turns, 20)
            self.assertGreater(timer, shim.now)
            timer, events = shim.batch(at=timer)
        self.assertIsNone(timer)

    def test_clock_never_goes_back(self):
        shim = self.run_app("""
            import asyncio
            async def app(scope, receive, send):
                await send({"now": asyncio.get_running_loop().time()})
            """)
        shim.events(at=5 * SECOND)
        self.assertEqual(shim.events(("call", 1, http_scope()), at=SECOND)[0][2], {"now": UPTIME + 5.0})

    def test_cancelled_timers(self):
        shim = self.run_app("""
            import asyncio
            async def app(scope, receive, send):
                loop = asyncio.get_running_loop()
                handles = [loop.call_later(n, print) for n in range(1, 500)]
                await receive()
                for handle in handles[:-1]: handle.cancel()
                await receive()
                handles[-1].cancel()
            """)
        self.assertEqual(shim.batch(("call", 1, http_scope()))[0], SECOND)
        self.assertEqual(shim.batch(("give", 1, {}))[0], 499 * SECOND)
        self.assertEqual(shim.batch(("give", 1, {})), (None, [("returned", 1)]))


class Clocks(ShimCase):
    def test_every_clock(self):
        shim = self.run_app("""
            import asyncio, datetime as module, logging, time
            from datetime import date, datetime, timedelta, timezone
            from time import monotonic, monotonic_ns, perf_counter, perf_counter_ns, time as now
            from time import time_ns, strftime, gmtime, localtime, ctime, asctime
            def look():
                record = logging.LogRecord("", 0, "", 0, "", (), None)
                local = [datetime.now(), datetime.today(), module.datetime.now(), datetime.fromtimestamp(now()),
                         datetime.strptime(ctime(), "%c"), datetime.strptime(asctime(), "%c"),
                         datetime.strptime(strftime("%c"), "%c"), datetime(*localtime()[:6])]
                utc = [datetime.utcnow(), datetime.now(timezone.utc).replace(tzinfo=None),
                       datetime(*gmtime()[:6])]
                epoch = [now(), time.time(), time_ns() / 1e9, time.clock_gettime(time.CLOCK_REALTIME),
                         record.created]
                steady = [monotonic(), time.monotonic(), monotonic_ns() / 1e9, perf_counter(),
                          perf_counter_ns() / 1e9, time.clock_gettime(time.CLOCK_MONOTONIC),
                          time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1e9,
                          asyncio.get_running_loop().time()]
                return local, utc, epoch, steady, date.today()
            async def app(scope, receive, send):
                before = look()
                await asyncio.sleep(172800.5)    # two days
                passed = []
                for then, value in zip(sum(before[:4], []), sum(look()[:4], [])):
                    took = value - then
                    passed.append(took.total_seconds() if isinstance(took, timedelta) else took)
                await send({"passed": passed, "days": (date.today() - before[4]).days,
                            "epoch": look()[2][0]})
            """, epoch=1_700_000_000 * SECOND)
        timer, events = shim.batch(("call", 1, http_scope()))
        self.assertEqual((timer, events), (172800 * SECOND + SECOND // 2, []))
        ((_, _, seen),) = shim.events(at=timer)
        self.assertEqual(len(seen["passed"]), 24)
        for passed in seen["passed"]:
            self.assertLess(abs(passed - 172800.5), 0.6, seen)    # some tell whole seconds
        self.assertEqual((seen["days"], seen["epoch"]), (2, 1_700_172_800.5))

    def test_types_stay_what_they_are(self):
        """Breaks where `datetime` is replaced by another class, and `time.time` by a function."""
        shim = self.run_app("""
            import asyncio, copy, datetime, json, logging, pickle, time
            class Own(datetime.datetime):
                pass
            class Formatter(logging.Formatter):
                converter = time.gmtime
            class Timer:
                clock = time.monotonic
            async def app(scope, receive, send):
                now, own = datetime.datetime.now(), Own.now(datetime.timezone.utc)
                record = logging.makeLogRecord({"created": 0.0, "msecs": 0})
                await send({
                    "same": type(now) is datetime.datetime and type(own) is Own,
                    "kinds": isinstance(now, datetime.date) and not isinstance(now, Own),
                    "pickled": pickle.loads(pickle.dumps(now)) == copy.deepcopy(now) == now,
                    "functions": [pickle.loads(pickle.dumps(f))() > 0 for f in (time.time, time.monotonic)],
                    "formatted": Formatter("%(asctime)s").format(record),
                    "held": Timer().clock() == time.monotonic(),
                    "zone": str(own.tzinfo),
                    "base": datetime.datetime.__subclasses__() == [Own],
                })
                for bad in (lambda: datetime.datetime.now(3), lambda: time.sleep(-1), lambda: time.sleep("a")):
                    try:
                        bad()
                    except (TypeError, ValueError) as exc:
                        await send({"type": type(exc).__name__})
            """)
        events = shim.events(("call", 1, http_scope()))
        for _ in range(3):
            events += shim.events(("sent", 1))
        self.assertEqual([event[2] for event in unnoticed(events)], [
            {"same": True, "kinds": True, "pickled": True, "functions": [True, True],
             "formatted": "1970-01-01 00:00:00,000", "held": True, "zone": "UTC", "base": True},
            {"type": "TypeError"}, {"type": "ValueError"}, {"type": "TypeError"}])

    def test_polling(self):
        for clock in ("time.monotonic", "time.time", "time.perf_counter",
                      "lambda: datetime.datetime.now().timestamp()"):
            shim = self.run_app(f"""
                import asyncio, datetime, time
                clock = {clock}
                async def app(scope, receive, send):
                    start = clock()
                    while clock() - start < 1.0:
                        await asyncio.sleep(0.05)
                    await send({{}})
                """)
            events, now = self.follow(shim, ("call", 1, http_scope()))
            with self.subTest(clock):
                self.assertEqual(events, [("send", 1, {})])
                self.assertLess(abs(now / SECOND - 1.0), 0.051)

    def test_polling_without_rest(self):
        """A loop that only asks the clock ends, too, as late as it wants or a little later."""
        for body, kind in (("pass", "blocked"), ("await asyncio.sleep(0)", None)):
            shim = self.run_app(f"""
                import asyncio, time
                async def app(scope, receive, send):
                    end = time.monotonic() + 3
                    while time.monotonic() < end:
                        {body}
                    await send({{}})
                """)
            started = time.monotonic()
            events, now = self.follow(shim, ("call", 1, http_scope()))
            with self.subTest(body):
                self.assertLess(time.monotonic() - started, 5)
                self.assertTrue(3 * SECOND <= now < 3.1 * SECOND, now)
                self.assertEqual([event[0] for event in events], [kind, "send"] if kind else ["send"])
                if kind:
                    self.assertEqual(events[0][1:3], (1, 30))
                    self.assertTrue(2.9 * SECOND < events[0][3] < 3.1 * SECOND, events)

    def test_many_looks_at_the_clock_cost_nothing(self):
        shim = self.run_app("""
            import time
            async def app(scope, receive, send):
                for _ in range(90_000): time.time()
                await send({"took": time.monotonic()})
            """)
        self.assertEqual(shim.batch(("call", 1, http_scope())),
                         (None, [("send", 1, {"took": UPTIME})]))

    def events_within(self, turns, shim):
        """The first events of a call, which come within so many turns of the harness."""
        timer, events = shim.batch(("call", 1, http_scope()))
        while not events:
            turns -= 1
            self.assertGreater(turns, 0)
            timer, events = shim.batch(at=timer)
        return events

    def test_endless_turns_let_time_pass(self):
        shim = self.run_app("""
            import asyncio
            async def spin():
                while True: await asyncio.sleep(0)
            async def app(scope, receive, send):
                task = asyncio.create_task(spin())
                await asyncio.sleep(0.5)
                await asyncio.to_thread(int)
                await send({})
                task.cancel()
            """)
        events = self.events_within(100, shim)
        self.assertEqual(events, [("send", 1, {})])
        self.assertTrue(SECOND // 2 <= shim.now < SECOND, shim.now)

    def test_endless_turns_take_longer_steps(self):
        """An hour of them takes no minute, and timers of the app come at their times nevertheless."""
        shim = self.run_app("""
            import asyncio, time
            async def app(scope, receive, send):
                loop, seen = asyncio.get_running_loop(), []
                start = loop.time()
                for seconds in (0.125, 100.5, 3600):
                    loop.call_later(seconds, lambda: seen.append(loop.time() - start))
                while len(seen) < 3: await asyncio.sleep(0)
                await send({"seen": seen})
            """)
        events = self.events_within(4000, shim)
        self.assertEqual(events, [("send", 1, {"seen": [0.125, 100.5, 3600.0]})])

    def test_sleep_blocks_the_loop(self):
        shim = self.run_app("""
            import asyncio, logging, time
            def scrub():
                time.sleep(45)
            async def app(scope, receive, send):
                if scope["path"] == "/quick":
                    return await send({"at": time.monotonic()})
                await receive()
                scrub()
                await send({"at": time.monotonic()})
            """)
        started = time.monotonic()
        shim.events(("call", 1, http_scope()))
        self.assertEqual(shim.batch(("give", 1, {})), (45 * SECOND, []))
        # Another call comes meanwhile, and waits for the loop as everything does.
        self.assertEqual(shim.batch(("call", 2, http_scope("/quick")), at=10 * SECOND),
                         (45 * SECOND, []))
        main = os.path.join(self.folder, "main.py")
        timer, events = shim.batch(at=45 * SECOND)
        self.assertEqual(events[0][:4], ("blocked", 1, 40, 45 * SECOND))
        self.assertEqual(events[0][4][-2:], [(main, 9, "app"), (main, 4, "scrub")])
        self.assertEqual(events[1:], [("send", 1, {"at": UPTIME + 45.0}),
                                      ("send", 2, {"at": UPTIME + 45.0})])
        self.assertLess(time.monotonic() - started, 5)

    def test_a_blocked_loop_is_told(self):
        """The loop is held while the app keeps it, and free for a turn where it lets go of it."""
        shim = self.run_app("""
            import asyncio, time
            async def app(scope, receive, send):
                await asyncio.sleep(1)
                for _ in range(3):
                    time.sleep(2)
                    time.sleep(2)
                    await asyncio.sleep(0)
            """)
        self.assertEqual(shim.batch(("call", 1, http_scope())), (SECOND, []))
        self.assertEqual(shim.loop, [])
        self.assertEqual(shim.batch(at=SECOND), (3 * SECOND, []))
        self.assertEqual(shim.loop, ["held"])
        self.assertEqual(shim.batch(at=3 * SECOND), (5 * SECOND, []))
        self.assertEqual(shim.loop, ["held"])
        self.follow(shim, at=5 * SECOND)
        self.assertEqual(shim.loop, 3 * ["held", "free"])

    def test_many_short_sleeps_block_the_loop(self):
        for count, level in ((1, None), (5, 30), (300, 40)):
            shim = self.run_app(f"""
                import time
                async def app(scope, receive, send):
                    for _ in range({count}): time.sleep(0.0625)
                """, blocked_limit=2 * SECOND)
            events, now = self.follow(shim, ("call", 1, http_scope()))
            self.assertEqual(now, count * SECOND // 16)
            blocked = [event[:4] for event in events if event[0] == "blocked"]
            self.assertEqual(blocked, [("blocked", 1, level, now)] if level else [])
            self.assertEqual(events[-1], ("returned", 1))

    def test_stuck(self):
        """A loop that is blocked for much longer than the limit, or for ever, is reported at the limit."""
        for body in ("time.sleep(1000)", "threading.Event().wait()", "threading.Event().wait(500)",
                     "concurrent.futures.Future().result()"):
            shim = self.run_app(f"""
                import concurrent.futures, threading, time
                async def app(scope, receive, send):
                    {body}
                """, blocked_limit=4 * SECOND)
            with self.subTest(body):
                self.assertEqual(shim.batch(("call", 1, http_scope())), (4 * SECOND, []))
                _, ((kind, blocked, frames),) = shim.batch(at=4 * SECOND)
                self.assertEqual((kind, blocked), ("stuck", 4 * SECOND))
                self.assertIn((os.path.join(self.folder, "main.py"), 4, "app"), frames)

    def test_import(self):
        """While the app is imported, sleeps are real and the clock goes on by as much."""
        shim = self.run_app("""
            import queue, threading, time
            start, inbox, seen = time.monotonic(), queue.Queue(), []
            time.sleep(0.1)
            try:
                inbox.get(timeout=0.1)
            except queue.Empty:
                seen.append("empty")
            thread = threading.Thread(target=lambda: (time.sleep(0.1), seen.append("slept")))
            thread.start()
            thread.join()
            took = time.monotonic() - start
            async def app(scope, receive, send):
                time.sleep(1)
                await send({"took": took, "seen": seen, "now": time.monotonic() - start})
            """)
        events, now = self.follow(shim, ("call", 1, http_scope()))
        self.assertEqual(now, SECOND)
        seen = events[-1][2]
        self.assertEqual(seen["seen"], ["empty", "slept"])
        self.assertLess(abs(seen["took"] - 0.3), 1e-6)
        self.assertLess(abs(seen["now"] - 1.3), 1e-6)

    def test_child_processes_have_real_clocks(self):
        shim = self.run_app("""
            import concurrent.futures, multiprocessing, subprocess, sys, time
            def child(queue, before):
                time.sleep(0.05)
                queue.put((time.monotonic() - before, time.time()))
            async def app(scope, receive, send):
                fork = multiprocessing.get_context("fork")
                queue = fork.Queue()
                process = fork.Process(target=child, args=(queue, time.monotonic()))
                process.start()
                slept, wall = queue.get(timeout=10)
                process.join(timeout=10)
                try:
                    subprocess.run([sys.executable, "-c", "import time; time.sleep(9)"], timeout=0.1)
                except subprocess.TimeoutExpired:
                    await send({"slept": slept, "drift": abs(wall - time.time())})
                with concurrent.futures.ProcessPoolExecutor(1, mp_context=fork) as pool:
                    await send({"type": pool.submit(max, 1, 2).result(timeout=10)})
            """)
        ((_, _, seen),) = shim.events(("call", 1, http_scope()))
        self.assertTrue(0.05 <= seen["slept"] < 5 and seen["drift"] < 5, seen)
        timer, events = shim.batch(("sent", 1))
        self.assertEqual((timer, unnoticed(events)), (None, [("send", 1, {"type": 2})]))
        self.assertEqual(shim.events(("sent", 1)), [("returned", 1)])

    def test_another_loop_keeps_real_time(self):
        shim = self.run_app("""
            import asyncio
            def work():
                async def inner():
                    await asyncio.sleep(0.05)
                    return 7
                return asyncio.run(inner())
            async def app(scope, receive, send):
                await send({"got": await asyncio.to_thread(work)})
            """)
        self.assertEqual(shim.batch(("call", 1, http_scope())), (None, [("send", 1, {"got": 7})]))


class VirtualThreads(ShimCase):
    """Work in threads, on virtual time."""

    def test_sleeps(self):
        for work in ("asyncio.to_thread(work, 45)", "loop.run_in_executor(None, work, 45)",
                     "loop.run_in_executor(pool, work, 45)",
                     "asyncio.wrap_future(pool.submit(work, 45))"):
            shim = self.run_app(f"""
                import asyncio, concurrent.futures, time
                pool = concurrent.futures.ThreadPoolExecutor(2)
                def work(seconds):
                    start = time.time()
                    for _ in range(int(seconds)): time.sleep(1)
                    return time.time() - start
                async def app(scope, receive, send):
                    loop = asyncio.get_running_loop()
                    await send({{"took": await {work}}})
                """)
            started = time.monotonic()
            with self.subTest(work):
                self.assertEqual(self.follow(shim, ("call", 1, http_scope())),
                                 ([("send", 1, {"took": 45.0})], 45 * SECOND))
                self.assertLess(time.monotonic() - started, 5)

    def test_waits(self):
        """Waits with a time-out end by what they wait for or by their time, in virtual time."""
        shim = self.run_app("""
            import asyncio, concurrent.futures, queue, threading, time
            def work(loop):
                found, start = [], time.monotonic()
                def tell(value):
                    found.append((value, round(time.monotonic() - start, 3)))
                event, inbox = threading.Event(), queue.Queue()
                tell(event.wait(2))
                loop.call_soon_threadsafe(loop.call_later, 3, event.set)
                tell(event.wait(100))
                try:
                    inbox.get(timeout=4)
                except queue.Empty:
                    tell("empty")
                threading.Timer(5, inbox.put, ["sent"]).start()
                tell(inbox.get(timeout=100))
                slow = concurrent.futures.ThreadPoolExecutor(1).submit(time.sleep, 60)
                try:
                    slow.result(timeout=6)
                except concurrent.futures.TimeoutError:
                    tell("late")
                tell(len(concurrent.futures.wait([slow], timeout=7).done))
                thread = threading.Thread(target=time.sleep, args=(8,))
                thread.start()
                thread.join(timeout=4)
                tell(thread.is_alive())
                thread.join()
                tell(threading.Semaphore(0).acquire(timeout=9))
                asyncio.run_coroutine_threadsafe(asyncio.sleep(10), loop).result(timeout=90)
                tell("slept")
                return found
            async def app(scope, receive, send):
                await send({"found": await asyncio.to_thread(work, asyncio.get_running_loop())})
            """)
        events, now = self.follow(shim, ("call", 1, http_scope()))
        self.assertEqual(unnoticed(events)[0][2]["found"], [
            (False, 2.0), (True, 5.0), ("empty", 9.0), ("sent", 14.0), ("late", 20.0), (0, 27.0),
            (True, 31.0), (False, 44.0), ("slept", 54.0)])
        self.assertEqual([event for event in events if event[0] == "note"], [])

    def test_own_thread(self):
        """A thread that the app started itself sleeps on virtual time, and is waited for."""
        shim = self.run_app("""
            import asyncio, threading, time
            async def app(scope, receive, send):
                loop, done = asyncio.get_running_loop(), asyncio.Event()
                def beat():
                    for _ in range(10):
                        time.sleep(1)
                    loop.call_soon_threadsafe(done.set)
                threading.Thread(target=beat).start()
                await asyncio.wait_for(done.wait(), 10.5)
                await send({})
            """)
        self.assertEqual(self.follow(shim, ("call", 1, http_scope())),
                         ([("send", 1, {})], 10 * SECOND))

    def test_a_lock_held_in_a_sleep(self):
        """One that waits for a lock does not keep the one awake that has it."""
        shim = self.run_app("""
            import asyncio, threading, time
            lock = threading.Lock()
            def work():
                with lock:
                    time.sleep(30)
                return time.monotonic()
            async def app(scope, receive, send):
                await send({"at": await asyncio.gather(asyncio.to_thread(work), asyncio.to_thread(work))})
            """)
        self.assertEqual(self.follow(shim, ("call", 1, http_scope())),
                         ([("send", 1, {"at": [UPTIME + 30.0, UPTIME + 60.0]})], 60 * SECOND))

    def test_the_loop_waits_for_a_thread(self):
        """A loop that waits for a thread is blocked for as long as that sleeps."""
        for wait in ("pool.submit(time.sleep, 5).result()", "join(5)", "time.sleep(5)",
                     "event_after(5).wait()"):
            shim = self.run_app(f"""
                import concurrent.futures, threading, time
                pool = concurrent.futures.ThreadPoolExecutor(1)
                def join(seconds):
                    thread = threading.Thread(target=time.sleep, args=(seconds,))
                    thread.start()
                    thread.join()
                def event_after(seconds):
                    event = threading.Event()
                    threading.Timer(seconds, event.set).start()
                    return event
                async def app(scope, receive, send):
                    {wait}
                    await send({{"at": time.monotonic()}})
                """)
            with self.subTest(wait):
                events, now = self.follow(shim, ("call", 1, http_scope()))
                self.assertEqual([event[:1] + event[2:4] for event in events], [
                    ("blocked", 30, 5 * SECOND), ("send", {"at": UPTIME + 5.0})])

    def test_real_work_is_waited_for(self):
        """Work that takes real time costs no virtual time, and gives signs of life meanwhile."""
        shim = self.run_app("""
            import asyncio, select, time
            def work():
                select.select([], [], [], 2.5)
                return time.monotonic()
            async def app(scope, receive, send):
                await send({"at": await asyncio.wait_for(asyncio.to_thread(work), 1)})
            """, blocked_limit=SECOND)
        self.assertEqual(shim.batch(("call", 1, http_scope())),
                         (None, [("send", 1, {"at": UPTIME})]))
        self.assertTrue(5 <= shim.keepalives <= 10, shim.keepalives)

    def test_work_without_end_is_noted(self):
        shim = self.run_app("""
            import asyncio, socket
            ours, theirs = socket.socketpair()
            def hang():
                ours.recv(1)
            async def app(scope, receive, send):
                try:
                    await asyncio.wait_for(asyncio.to_thread(hang), 10)
                except asyncio.TimeoutError:
                    await send({})
            """, blocked_limit=SECOND // 2)
        timer, events = shim.batch(("call", 1, http_scope()))
        self.assertEqual(timer, 10 * SECOND)
        self.assertEqual(events, [("note", "work in a thread takes more than 1.5 s",
                                   f"{self.folder}/main.py:5 in hang")])
        started = time.monotonic()
        self.assertEqual(shim.events(at=timer), [("send", 1, {})])
        self.assertLess(time.monotonic() - started, 1)

    def test_polling_in_a_thread(self):
        shim = self.run_app("""
            import asyncio, time
            def poll():
                end = time.time() + 2
                while time.time() < end: pass
            async def app(scope, receive, send):
                await asyncio.to_thread(poll)
                await send({})
            """)
        events, now = self.follow(shim, ("call", 1, http_scope()))
        self.assertEqual(events, [("send", 1, {})])
        self.assertTrue(2 * SECOND <= now < 2.1 * SECOND, now)

    def test_threads_repeat(self):
        """Threads that would race go one after the other, in every run in the same order."""
        source = """
            import asyncio, logging, os, select, threading, time
            shared = []
            def work(name, pauses):
                for pause in pauses:
                    logging.info("%s %s", name, len(shared))
                    shared.append(name)
                    select.select([], [], [], os.urandom(1)[0] / 50_000)    # really, and by chance
                    time.sleep(pause)
                return name
            async def app(scope, receive, send):
                own = [threading.Thread(target=work, args=(f"own {n}", (1, 1))) for n in range(3)]
                for thread in own: thread.start()
                async def job(n):
                    await send({"done": await asyncio.to_thread(work, n, (1, 0.5, 0.5)), "at": time.time()})
                await asyncio.gather(*map(job, range(6)))
            """
        def run():
            shim = self.run_app(source, epoch=0)
            timer, _ = shim.batch(("call", 1, http_scope()))
            while timer is not None:
                timer, _ = shim.batch(*[("sent", 1)] * 6, at=timer)
            return shim.raw[1:]

        first = run()
        self.assertEqual(str(first).count("own 2 "), 2)
        for _ in range(4):
            self.assertEqual(run(), first)

    def test_joined_worker(self):
        """No time passes while a pool's thread ends that another thread waits for."""
        shim = self.run_app("""
            import asyncio, concurrent.futures, select, threading

            class Slow:
                '''Takes a real while to tell a thread that it is to end.'''
                def __init__(self, queue): self.queue = queue
                def __getattr__(self, name): return getattr(self.queue, name)
                def get(self, block=True):
                    item = self.queue.get(block)
                    if item is None: select.select([], [], [], 0.2)
                    return item

            async def app(scope, receive, send):
                pool = concurrent.futures.ThreadPoolExecutor(1)
                pool._work_queue = Slow(pool._work_queue)
                await asyncio.wrap_future(pool.submit(int))
                over = concurrent.futures.Future()
                def end():
                    pool.shutdown()
                    over.set_result(None)
                threading.Thread(target=end).start()
                asyncio.get_running_loop().call_later(60, int)
                await asyncio.wrap_future(over)
            """)
        self.assertEqual(shim.events(("call", 1, http_scope())), [("returned", 1)])


class Threads(ShimCase):
    def test_to_thread(self):
        shim = self.run_app("""
            import asyncio, logging, select
            def wait(seconds):
                select.select([], [], [], seconds)    # in the system
            def work(n):
                wait(0.05)
                logging.info("worked %s", n)
                return n
            async def app(scope, receive, send):
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(None, wait, 0.02)
                await asyncio.wait_for(asyncio.to_thread(work, 1), 0.001)
                await asyncio.gather(*(loop.run_in_executor(None, wait, 0.02) for _ in "12"))
                await send({"now": loop.time()})
            """)
        events = shim.events(("call", 1, http_scope()))
        self.assertEqual(events, [("log", 1, 20, "root", "worked 1", None, None),
                                  ("send", 1, {"now": UPTIME})])

    def test_abandoned_job(self):
        shim = self.run_app("""
            import asyncio, logging, select
            def work():
                select.select([], [], [], 0.2)
                logging.info("worked")
            async def app(scope, receive, send):
                asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
                await asyncio.to_thread(work)
            """)
        events = shim.events(("call", 1, http_scope()))
        self.assertEqual([event[0] for event in events], ["raised", "log"])

    def test_process_pool(self):
        shim = self.run_app("""
            import asyncio, concurrent.futures
            async def app(scope, receive, send):
                with concurrent.futures.ProcessPoolExecutor(1) as pool:
                    loop = asyncio.get_running_loop()
                    await send({"type": await loop.run_in_executor(pool, max, 1, 2)})
            """)
        self.assertEqual(shim.events(("call", 1, http_scope())), [("send", 1, {"type": 2})])
        self.assertEqual(shim.events(("sent", 1)), [("returned", 1)])

    def test_thread_that_waits_for_the_loop(self):
        shim = self.run_app("""
            import asyncio
            from concurrent.futures import ThreadPoolExecutor
            pool = ThreadPoolExecutor(1)
            async def app(scope, receive, send):
                loop = asyncio.get_running_loop()
                def work():
                    asyncio.run_coroutine_threadsafe(asyncio.sleep(30), loop).result()
                jobs = [loop.run_in_executor(pool, work) for _ in "12"]
                await asyncio.gather(*jobs)
                await send({"now": loop.time()})
            """)
        self.assertEqual(shim.batch(("call", 1, http_scope())), (30 * SECOND, []))
        self.assertEqual(shim.batch(at=30 * SECOND), (60 * SECOND, []))
        self.assertEqual(shim.events(at=60 * SECOND), [("send", 1, {"now": UPTIME + 60.0})])

    @unittest.skipUnless(HAS_ASGIREF, "needs asgiref")
    def test_asgiref(self):
        shim = self.run_app("""
            import asyncio, time
            from asgiref.sync import async_to_sync, sync_to_async
            def deep():
                time.sleep(1)
                async_to_sync(asyncio.sleep)(7)
            async def middle():
                await sync_to_async(deep)()
                await asyncio.sleep(3)
            def outer():
                async_to_sync(middle)()
            async def app(scope, receive, send):
                await sync_to_async(outer)()
                await send({"now": asyncio.get_running_loop().time()})
            """)
        commands, start = [("call", 1, http_scope())], 0
        for timer in (SECOND, 8 * SECOND):
            self.assertEqual(shim.batch(*commands, at=start), (timer, []))
            commands, start = (), timer
        self.assertEqual(shim.batch(at=8 * SECOND), (11 * SECOND, []))
        self.assertEqual(shim.events(at=11 * SECOND), [("send", 1, {"now": UPTIME + 11.0})])

    def test_notes(self):
        shim = self.run_app("""
            import asyncio, socket, threading
            pairs = []
            server = socket.create_server(("127.0.0.1", 0))
            async def app(scope, receive, send):
                for name in ("mine", "yours"):    # they wait in the system, for nothing
                    pairs.append(socket.socketpair())
                    threading.Thread(target=pairs[-1][0].recv, args=(1,), name=name).start()
                reader, writer = await asyncio.open_connection(*server.getsockname())
                await send({"fd": writer.get_extra_info("socket").fileno(),
                            "name": server.getsockname()})
            """)
        events = shim.events(("call", 1, http_scope()))
        for _ in range(100):    # the connection is real I/O
            if any(event[0] == "send" for event in events):
                break
            events += shim.events()
        details = next(event[2] for event in events if event[0] == "send")
        own = "a thread of the app's own is running"
        self.assertEqual([event for event in events if event[0] == "note"], [
            ("note", own, "mine"), ("note", own, "yours"),
            ("note", "the app waits on", f"a socket (fd {details['fd']}, {details['name']})")])
        self.assertEqual(shim.events(), [])

    @unittest.skipUnless(HAS_STARLETTE, "needs starlette")
    def test_starlette_sync_endpoint(self):
        shim = self.run_app("""
            import time, anyio, anyio.from_thread
            async def now():
                return str(anyio.current_time())
            from starlette.applications import Starlette
            from starlette.responses import PlainTextResponse
            from starlette.routing import Route, WebSocketRoute
            def sync(request):
                time.sleep(0.05)
                return PlainTextResponse(anyio.from_thread.run(now))
            def waits(request):
                anyio.from_thread.run(anyio.sleep, 5)
                return PlainTextResponse(anyio.from_thread.run(now))
            async def ws(socket):
                await socket.accept()
                async for text in socket.iter_text():
                    await socket.send_text(text.upper())
            app = Starlette(routes=[Route("/sync", sync), Route("/waits", waits),
                                    WebSocketRoute("/ws", ws)])
            """)
        self.assertEqual(shim.hello["framework"], "starlette")
        for ident in range(40):
            self.assertEqual(shim.batch(("call", ident, http_scope("/sync")), at=ident * SECOND),
                             (ident * SECOND + SECOND // 20, []))
            events = shim.events(at=ident * SECOND + SECOND // 20)
            self.assertEqual(events[-1][2]["status"], 200, events)
            (event,) = shim.events(("sent", ident))
            self.assertEqual(event[2]["body"], str(UPTIME + ident + 0.05).encode())
            self.assertEqual(shim.events(("sent", ident)), [("returned", ident)])
        self.assertEqual(shim.batch(("call", "w", http_scope("/waits")), at=40 * SECOND),
                         (45 * SECOND, []))
        self.assertEqual(shim.events(at=45 * SECOND)[0][2]["status"], 200)
        self.assertEqual(shim.events(("sent", "w"))[0][2]["body"], b"1000045.0")
        self.assertEqual(shim.events(("call", 99, websocket_scope())), [("receive", 99)])
        shim.events(("give", 99, CONNECT))
        shim.events(("sent", 99))
        (event,) = shim.events(("give", 99, {"type": "websocket.receive", "text": "abc"}))
        self.assertEqual(event[2], {"type": "websocket.send", "text": "ABC"})
        shim.events(("sent", 99))
        events = shim.events(("give", 99, {"type": "websocket.disconnect", "code": 1000}))
        self.assertEqual(events, [("returned", 99)])
        self.assertEqual(shim.stop()[1], 0)

    @unittest.skipUnless(HAS_STARLETTE, "needs starlette")
    def test_concurrent_sync_endpoints(self):
        shim = self.run_app("""
            import select
            from starlette.applications import Starlette
            from starlette.responses import PlainTextResponse
            from starlette.routing import Route
            def sync(request):
                select.select([], [], [], 0.02)
                return PlainTextResponse("x")
            app = Starlette(routes=[Route("/", sync)])
            """)
        started = time.monotonic()
        idents = list(range(50))
        events = shim.events(*(("call", ident, http_scope()) for ident in idents))
        self.assertEqual(sorted(event[1] for event in events), idents)
        self.assertLess(time.monotonic() - started, 5)


class RealClock(ShimCase):
    def drain(self, shim, count):
        """Reads answers until `count` events have come."""
        events = []
        while len(events) < count:
            events += shim.read()[1]
        return events

    def test_no_credit_on_the_real_clock(self):
        shim = self.run_app("""
            async def app(scope, receive, send):
                await receive()
                await send({"type": "websocket.send", "text": "a"})
            """, clock="real")
        events = shim.events(("call", 1, websocket_scope()), ("give", 1, {}), ("credit", 1, 1000))
        self.assertEqual([event[0] for event in events], ["receive", "send"])

    def test_real(self):
        shim = self.run_app("""
            import asyncio, threading, time
            async def app(scope, receive, send):
                await receive()
                started = time.monotonic()
                loop = asyncio.get_running_loop()
                await asyncio.sleep(0.05)
                done = asyncio.Event()
                def work():
                    time.sleep(0.05)
                    loop.call_soon_threadsafe(done.set)
                threading.Thread(target=work).start()
                await done.wait()
                await send({"took": time.monotonic() - started})
            """, clock="real")
        self.assertEqual(shim.batch(("call", 1, http_scope())), (None, [("receive", 1)]))
        timer, events = shim.batch(("give", 1, {}))
        self.assertEqual(events, [])
        self.assertLess(abs(timer / 1e9 - time.monotonic()), 1)
        (event,) = self.drain(shim, 1)
        self.assertTrue(0.1 <= event[2]["took"] < 1, event)
        shim.write((0, [("sent", 1)]))
        shim.write((0, []))
        self.assertEqual(unnoticed(self.drain(shim, 1)), [("returned", 1)])
        shim.write((0, [("stop",)]))
        answer = shim.read()
        while shim.process.poll() is None and answer != (None, []):
            answer = shim.read()
        self.assertEqual(shim.end()[0], 0)

    def test_command_while_it_works(self):
        shim = self.run_app("""
            import asyncio
            async def app(scope, receive, send):
                while True:
                    await asyncio.sleep(0)
            """, clock="real")
        shim.write((0, [("call", 1, http_scope())]))
        time.sleep(0.05)
        shim.write((0, [("cancel", 1)]))
        self.assertEqual(self.drain(shim, 1)[0][:3], ("raised", 1, "CancelledError"))


class Process(ShimCase):
    def test_output_goes_to_stderr(self):
        shim = self.run_app("""
            import os, sys
            print("at import")
            async def app(scope, receive, send):
                print("printed"); os.write(1, b"raw\\n"); os.system("echo child")
                sys.stdin.close()
                try:
                    os.close(0)
                except OSError:
                    pass
                await receive()
            """)
        shim.events(("call", 1, http_scope()))
        self.assertEqual(shim.events(("give", 1, {})), [("returned", 1)])
        answer, code, errors = shim.stop()
        self.assertEqual((answer, code), ((None, []), 0))
        self.assertEqual(errors.split("\n")[:4], ["at import", "printed", "raw", "child"])

    def test_stop(self):
        shim = self.run_app("""
            import asyncio, atexit, threading, time
            atexit.register(print, "at exit")
            async def app(scope, receive, send):
                threading.Thread(target=time.sleep, args=(60,)).start()
                try:
                    await asyncio.sleep(1000)
                finally:
                    print("cleaned up")
                    await asyncio.sleep(1000)
            """)
        shim.events(("call", 1, http_scope()))
        started = time.monotonic()
        answer, code, errors = shim.stop()
        self.assertEqual((answer, code), ((None, []), 0))
        self.assertEqual(errors, "cleaned up\nat exit\n")
        self.assertLess(time.monotonic() - started, 2)

    def test_harness_gone(self):
        shim = self.run_app("async def app(scope, receive, send): await receive()")
        shim.events(("call", 1, http_scope()))
        self.assertEqual(shim.end(), (0, ""))

    def test_fatal(self):
        shim = self.run_app("async def app(scope, receive, send): await receive()")
        shim.events(("call", 1, http_scope()))
        timer, events = shim.batch(("nonsense", 1))
        self.assertEqual((timer, events[0][0], len(events)), (None, "fatal", 1))
        self.assertIn("nonsense", events[0][1])
        self.assertEqual(shim.end()[0], 70)

    def test_signals(self):
        shim = self.run_app("""
            import _thread
            lock = _thread.allocate_lock()
            lock.acquire()
            async def app(scope, receive, send): lock.acquire(True, 0.5)
            """)
        shim.process.send_signal(signal.SIGINT)
        shim.write((0, [("call", 1, http_scope())]))
        time.sleep(0.2)
        shim.process.send_signal(signal.SIGUSR1)
        self.assertEqual(unnoticed(shim.read()[1]), [("returned", 1)])
        errors = shim.stop()[2]
        self.assertIn("main.py\", line 5 in app", errors)

    def test_fork(self):
        shim = self.run_app("""
            import os, time
            async def app(scope, receive, send):
                if os.fork() == 0:
                    if os.fork() == 0:
                        time.sleep(1)
                    os._exit(0)
                os.wait()
            """)
        self.assertEqual(shim.events(("call", 1, http_scope())), [("returned", 1)])
        shim.process.kill()
        started = time.monotonic()
        with self.assertRaises(EOFError):
            shim.process.stderr.close()
            shim.process.stderr = open(os.devnull, "rb")
            shim.read()
        self.assertLess(time.monotonic() - started, 0.8)

    def test_deterministic(self):
        source = """
            import asyncio, logging, random
            async def child(n, send):
                await asyncio.sleep(random.random())
                logging.info("%r %s %s", object(), n, {"a", "b", "c"})
                await send({"n": n, "task": asyncio.current_task().get_name()})
            async def app(scope, receive, send):
                tasks = [asyncio.create_task(child(n, send)) for n in range(5)]
                await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
                raise RuntimeError(f"{object()}")
            """

        def run():
            shim = self.run_app(source)
            timer, events = shim.batch(("call", 1, http_scope()), ("call", 2, http_scope()))
            while timer is not None:
                timer, _ = shim.batch(("sent", 1), ("sent", 2), at=timer)
            return shim.raw[1:]

        first, second = run(), run()
        self.assertEqual(first, second)
        self.assertGreater(len(first), 10)

    def test_old_python(self):
        for version in ("3.7", "3.8"):
            python = next(iter(__import__("glob").glob(
                os.path.expanduser(f"~/.pyenv/versions/{version}*/bin/python"))), None)
            if python is None:
                continue
            with self.subTest(version):
                reply = self.refused("python-too-old", "", python=python)
                self.assertIn(version, reply["message"])

    def test_run_from_a_string(self):
        """The harness passes the parts of the program through the loader instead of files."""
        self.write("main.py", "async def app(scope, receive, send): raise ValueError")
        sources = {}
        folder = os.path.dirname(SHIM)
        inner = [f"routes/{name}" for name in os.listdir(f"{folder}/routes") if name.endswith(".py")]
        modules = [name for name in os.listdir(folder) if name.endswith(".py")]
        for name in (*modules, *inner):
            with open(os.path.join(folder, name)) as file:
                sources[name] = file.read()
        process = subprocess.Popen([sys.executable, "-c", sources["loader.py"]], cwd=self.folder,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        shim = Shim.__new__(Shim)
        shim.process, shim.raw, shim.now = process, [], 0
        process.stderr = open(os.devnull)
        shim.write({"title": b"", "magic": b"", "code": b"", "sources": sources})
        shim.write({"app": "main:app", "path": [self.folder]})
        self.assertTrue(shim.read()["ok"])
        frames = shim.events(("call", 1, http_scope()))[0][4]
        self.assertEqual([frame[2] for frame in frames], ["app"])
        process.stdin.close()
        process.stdout.close()
        process.stderr.close()
        self.assertEqual(process.wait(), 0)


if __name__ == "__main__":
    unittest.main()
