class Connection:
    """One call of the application, as its server saw it."""

    def __init__(self, scope, receives, sends):
        self.scope, self.receives, self.sends = scope, list(receives), sends
        self.sent, self.moved = [], asyncio.Event()
        self.raised, self.is_late, self.start = None, False, 0.0
        self.is_told_gone = self.is_left = False  # By send(), by receive().

    async def receive(self):
        """The next event, at its second and after as many sends as there were before it."""
        if self.receives:
            second, count, event = self.receives.pop(0)
            await self.until(lambda: len(self.sent) >= count or self.is_over())
            await asyncio.sleep(self.start + second - asyncio.get_running_loop().time())
            if isinstance(event, BaseException):
                raise event
            self.is_left |= event["type"].endswith(".disconnect")
            return event
        if NOBODY_LEAVES:
            await asyncio.Event().wait()
        if self.scope["type"] == "http":
            await self.until(self.is_over)
        self.is_left = True
        if self.scope["type"] == "http":
            return {"type": "http.disconnect"}
        return {"type": "websocket.disconnect", "code": 1006, "reason": ""}

    async def until(self, condition):
        while not condition():
            self.moved.clear()
            await self.moved.wait()

    def is_over(self):
        """Whether the application has said its last word."""
        last = self.sent[-1] if self.sent else {}
        is_body = str(last.get("type")).endswith("http.response.body")
        return last.get("type") == "websocket.close" or is_body and not last.get("more_body")

    async def send(self, event):
        self.sent.append(dict(event))
        self.moved.set()
        second, error = self.sends.get(len(self.sent), (0, None))
        await asyncio.sleep(second)
        if error is not None:
            self.is_told_gone |= isinstance(error, OSError)
            raise error

    async def run(self, app):
        self.start = asyncio.get_running_loop().time()
        call = asyncio.ensure_future(app(self.scope, self.receive, self.send))
        await asyncio.wait([call], timeout=LIMIT)
        self.is_late = not call.done()
        if self.is_late:
            call.cancel()
            await asyncio.wait([call], timeout=1)
            return
        error = asyncio.CancelledError() if call.cancelled() else call.exception()
        # Servers take back what they raised themselves; frameworks have names of their own for a client that is gone.
        given = any(error is raised for _, raised in self.sends.values())
        is_word = type(error).__name__ in ("WebSocketDisconnect", "ClientDisconnect")
        self.raised = None if given or is_word and self.is_told_gone else error


def load():
    for name, value in ENVIRONMENT.items():
        os.environ[name] = value
    if str(DIRECTORY) not in sys.path:
        sys.path.insert(0, str(DIRECTORY))
    module, _, attribute = APP.partition(":")
    app = importlib.import_module(module)
    for part in attribute.split("."):
        app = getattr(app, part)
    return app() if FACTORY else app


async def play():
    """Starts the application, makes the connections one after the other, and stops it."""
    app = load()
    state, started, stopping = {}, asyncio.Event(), asyncio.Event()
    told = [{"type": "lifespan.startup"}]

    async def receive():
        if told:
            return told.pop()
        await stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def send(event):
        started.set()

    async def live():
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
        try:
            await app(scope, receive, send)
        except Exception:
            pass  # An application need not have a lifespan.
        started.set()

    lifespan = asyncio.ensure_future(live())
    await asyncio.wait_for(started.wait(), LIMIT)
    connections = []
    for scope, receives, sends in CONNECTIONS:
        scope = dict(scope, state=dict(state)) if "state" in scope else dict(scope)
        connections.append(Connection(scope, receives, sends))
        await connections[-1].run(app)
    stopping.set()
    await asyncio.wait([lifespan], timeout=LIMIT)
    lifespan.cancel()
    return connections


def connections():
    """What became of the connections."""
    here = os.getcwd()
    os.chdir(DIRECTORY)
    try:
        return asyncio.run(play())
    finally:
        os.chdir(here)
