# Loads the program that the harness sends first: the sources of its parts, and their code if this kind of Python compiled it before.
import _frozen_importlib_external, marshal, os


def take(count):
    data = b""
    while len(data) < count:
        piece = os.read(0, count - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data


def show(title):
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        with open("/proc/self/mem", "r+b", 0) as memory:
            memory.seek(start)
            memory.write(title[: end - start - 1].ljust(end - start, b"\0"))
        with open("/proc/self/comm", "wb", 0) as name:
            name.write(b"relapse")
    except (IndexError, OSError, ValueError):
        pass


program = marshal.loads(take(int.from_bytes(take(4), "little")))
show(program["title"])
parts = program["sources"]
if program["magic"] == _frozen_importlib_external.MAGIC_NUMBER:
    parts = marshal.loads(program["code"])
del take, show, program
exec(parts["shim.py"])
