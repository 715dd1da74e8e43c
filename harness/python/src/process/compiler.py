# Compiles the program on standard input for this kind of Python, and writes its code.
import _frozen_importlib_external, marshal, sys

code = marshal.dumps(compile(sys.stdin.buffer.read(), "<string>", "exec"))
sys.stdout.buffer.write(_frozen_importlib_external.MAGIC_NUMBER + code)
