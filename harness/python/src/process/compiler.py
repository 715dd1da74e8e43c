# Compiles the parts of the program, by their names on standard input, for this kind of Python, and writes their code.
import _frozen_importlib_external, marshal, sys

parts = marshal.loads(sys.stdin.buffer.read())
code = marshal.dumps({name: compile(source, "<string>", "exec") for name, source in parts.items()})
sys.stdout.buffer.write(_frozen_importlib_external.MAGIC_NUMBER + code)
