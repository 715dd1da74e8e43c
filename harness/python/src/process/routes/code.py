"""Words from the code of an app: texts, paths, subprotocols; and the names that it asks for."""

import dis
import inspect
import os
import re
import sys
import types

WORDS = 48  # of one endpoint
NUMBERS = 16  # of one endpoint
FUNCTIONS = 64  # that one endpoint leads to
DEPTH = 4  # calls from an endpoint to a function that it leads to
ITEMS = 32  # of one container
is_path = re.compile(r"/[A-Za-z0-9_./-]*").fullmatch
is_word = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,23}").fullmatch
# RFC 6455 section 4.1: a subprotocol is a token (RFC 9110 section 5.6.2).
is_subprotocol = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}").fullmatch
LIBRARIES = os.path.dirname(os.__file__) + os.sep


def is_own(code):
    """Whether code is the app's, and no library's."""
    return is_own_file(code.co_filename)


def is_own_file(name):
    """Whether a file is the app's, and no library's."""
    return not (name.startswith((LIBRARIES, "<")) or "site-packages" in name.split(os.sep))


def words_of(*values, more=()):
    """The words in the code of an endpoint, and in what it calls in the app."""
    own = [value for value in values if any(is_own(found.__code__) for found in functions_of(value))]
    texts = [*texts_of(*own), *more]
    for value in followed(values):
        texts += texts_of(value)
    return list(dict.fromkeys(filter(is_word, texts)))[:WORDS]


def numbers_of(*values):
    """The whole numbers in the code of an endpoint, and in what it calls in the app; without -1, 0 and 1."""
    functions = [found for value in values for found in functions_of(value) if is_own(found.__code__)]
    functions += [found for found in followed(values) if inspect.isfunction(found)]
    codes = list(dict.fromkeys(code for function in functions for code in codes_of(function.__code__)))
    found = [number for code in codes for number in numbers_in(code)]
    found += [value for function in functions for value in globals_of(function)]
    return list(dict.fromkeys(
        value for value in found if type(value) is int and abs(value) > 1 and abs(value) < 1 << 63))[:NUMBERS]


def numbers_in(code):
    """The constants of code that it loads one by one; those within its tuples, too."""
    for step in dis.get_instructions(code):
        # CPython 3.14 loads small integers without an entry in `co_consts`.
        if step.opname in ("LOAD_CONST", "LOAD_SMALL_INT", "RETURN_CONST"):
            yield from step.argval if isinstance(step.argval, (tuple, frozenset)) else [step.argval]


def function_of(value):
    """The plain function behind a callable, or None."""
    for _ in range(10):
        if isinstance(value, (types.MethodType, staticmethod, classmethod)):
            value = value.__func__
        elif hasattr(value, "__wrapped__") and not inspect.isclass(value):
            value = value.__wrapped__
        elif not inspect.isfunction(value) and callable(getattr(value, "func", None)):
            value = value.func  # a partial, or a wrapper like it
        else:
            break
    if inspect.isfunction(value):
        return value
    call = None if inspect.isclass(value) else getattr(type(value), "__call__", None)
    return call if inspect.isfunction(call) else None


def functions_of(value):
    """The functions of a class or callable, with those of its bases in the app."""
    if not inspect.isclass(value):
        function = function_of(value)
        return [] if function is None else [function]
    found = []
    for base in value.__mro__:
        for item in vars(base).values():
            item = getattr(item, "fget", None) or item
            function = None if inspect.isclass(item) else function_of(item)
            if function is not None and is_own(function.__code__):
                found.append(function)
    return found


def codes_of(code):
    """A code object with those inside it."""
    yield code
    for const in code.co_consts:
        if inspect.iscode(const):
            yield from codes_of(const)


def global_names(code):
    """The names from outside that code uses, in order, without those of attributes."""
    used = [step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
    return list(dict.fromkeys(used))


def globals_of(function):
    """The values of the names from outside that a function uses."""
    for code in codes_of(function.__code__):
        for name in global_names(code):
            if name in function.__globals__:
                yield function.__globals__[name]
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            pass  # it is empty


def followed(values):
    """Yields what these lead to in the app: functions, the methods of classes, and containers."""
    todo = [(function, 0) for value in values for function in functions_of(value)]
    seen, count = {id(function) for function, _ in todo}, 0
    while todo and count < FUNCTIONS:
        function, depth = todo.pop(0)
        count += 1
        if depth == DEPTH or not is_own(function.__code__):
            continue
        for value in globals_of(function):
            if id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, (dict, list, tuple, set, frozenset)):
                yield value
                inner = list(value.values() if isinstance(value, dict) else value)[:ITEMS]
            else:
                inner = [value]
            for one in inner:
                if inspect.isfunction(one) or inspect.isclass(one):
                    functions = [found for found in functions_of(one) if is_own(found.__code__)]
                    todo += [(found, depth + 1) for found in functions]
                    yield from functions


def texts_of(*values):
    """The texts that stand in the code of functions and classes, and in containers, in order."""
    found, seen = [], set()

    def visit(value):
        if isinstance(value, (dict, list, tuple, set, frozenset)):
            items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else list(value)
            found.extend(item for item in items[:ITEMS] if isinstance(item, str))
            if isinstance(value, dict):
                found.extend(item for item in list(value.values())[:ITEMS] if isinstance(item, str))
            return
        value = inspect.unwrap(value) if callable(value) else value
        if inspect.isclass(value):
            for item in vars(value).values():
                visit(getattr(item, "__func__", item))
        elif inspect.ismethod(value):
            visit(value.__func__)
        elif inspect.isfunction(value):
            read(value.__code__)

    def read(code):
        if code in seen:
            return
        seen.add(code)
        is_first = True
        for const in code.co_consts:
            if inspect.iscode(const):
                read(const)
            # The first one may be the docstring.
            for text in const if isinstance(const, (tuple, frozenset)) else (const,):
                text = text.decode("latin-1") if isinstance(text, bytes) else text
                if isinstance(text, str) and not (is_first and " " in text):
                    found.append(text)
            is_first = False

    for value in values:
        visit(value)
    return found


def module_of(app):
    """The module of a bare app."""
    function = inspect.unwrap(app) if inspect.isroutine(app) else type(app).__call__
    return sys.modules[function.__module__]


def module_texts(app):
    """The texts in the module of a bare app."""
    module = module_of(app)
    items = [(name, value) for name, value in vars(module).items() if not name.startswith("__")]
    own = [value for _, value in items if getattr(value, "__module__", None) == module.__name__]
    held = [value for _, value in items if isinstance(value, (dict, list, tuple, set, frozenset))]
    return texts_of(*own, *held)


def handler_of(app, path):
    """The function that a table in the module of a bare app has for a path, or the app itself."""
    try:
        held = vars(module_of(app)).values()
    except (AttributeError, KeyError):
        held = ()
    for value in held:
        if isinstance(value, dict) and inspect.isroutine(value.get(path)):
            return value[path]
    return app
