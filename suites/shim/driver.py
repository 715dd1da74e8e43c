"""Drives `harness/python/src/process/shim.py` over its pipes, for its tests."""

import marshal
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHIM = os.path.join(ROOT, "harness", "python", "src", "process", "shim.py")


class Shim:
    """One shim process."""

    def __init__(self, folder, app, python=sys.executable, env=None, **settings):
        environ = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        environ.update(env or {})
        self.process = subprocess.Popen(
            [python, SHIM], cwd=folder, env=environ,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.now = 0
        self.raw = []
        self.keepalives = 0
        self.errors = ""
        self.write({"app": app, "factory": False, "path": [str(folder)], "clock": "virtual",
                    "seed": 1, "log_level": 20, **settings})
        self.hello = self.read()

    kept = []  # the events about calls that are over
    loop = []  # whether the app kept the loop to itself, from change to change

    def write(self, message):
        body = marshal.dumps(message, 2)
        data = len(body).to_bytes(4, "little") + body
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read(self):
        """Reads the next answer, and counts the signs of life before it."""
        stream = self.process.stdout
        while True:
            size = stream.read(4)
            if len(size) < 4:
                raise EOFError(self.process.stderr.read().decode())
            body = stream.read(int.from_bytes(size, "little"))
            answer = marshal.loads(body)
            if answer is not None:
                self.raw.append(body)
                return answer
            self.keepalives += 1

    def batch(self, *commands, at=None):
        """Sends commands; returns (next timer, events)."""
        if at is not None:
            self.now = at
        self.write((self.now, list(commands)))
        answer = self.read()
        # Python's garbage collector decides when a call is kept or freed: tests check these apart.
        self.kept = self.kept + [event for event in answer[1] if event[0] in ("kept", "freed")]
        # Tests check apart, too, when the app blocks the loop.
        self.loop = self.loop + [event[0] for event in answer[1] if event[0] in ("held", "free")]
        return answer[0], [event for event in answer[1]
                           if event[0] not in ("kept", "freed", "held", "free")]

    def events(self, *commands, at=None):
        return self.batch(*commands, at=at)[1]

    def stop(self):
        """Stops the shim; returns (answer, exit code, stderr)."""
        answer = self.batch(("stop",))
        return (answer,) + self.end()

    def end(self):
        """Closes the pipes; returns (exit code, stderr)."""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        if not self.process.stderr.closed:
            self.errors = self.process.stderr.read().decode()
            self.process.stdout.close()
            self.process.stderr.close()
        return self.process.wait(10), self.errors


def websocket_scope(path="/ws", query=b""):
    return {
        "type": "websocket", "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1", "scheme": "ws", "path": path, "raw_path": path.encode(),
        "query_string": query, "root_path": "", "headers": [[b"host", b"testserver"]],
        "client": ("127.0.0.1", 50000), "server": ("testserver", 80), "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }


def http_scope(path="/", method="GET"):
    scope = websocket_scope(path)
    del scope["subprotocols"], scope["extensions"]
    return {**scope, "type": "http", "method": method, "scheme": "http"}
