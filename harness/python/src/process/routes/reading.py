"""Finds out what an endpoint reads from a request or a message, by the syntax tree of its code."""

import ast
import inspect
import re

from .code import function_of, is_own

DEPTH = 4  # of calls that are followed
VALUES = 8  # of one name
# Endings for a prefix that the code looks for: none, a number, a range, base64 of `a` and of `a:b`, and no base64.
TAILS = ("", "a", "1", "-1", "0-", "a-b", "YQ==", "YTpi", "%%%")
is_name = re.compile(r"[\w-]*").fullmatch
JSON_CALLS = ("json", "get_json", "receive_json", "iter_json")
TEXT_CALLS = ("receive_text", "iter_text", "receive_data", "receive_bytes", "recv")
BODY_CALLS = ("body", "get_data", "stream", "read")
FORMS = ("form", "POST", "data")
FILES = ("files", "FILES")
QUERIES = ("query_params", "args", "GET")
PLACES = {**dict.fromkeys(FORMS, "form"), **dict.fromkeys(FILES, "files"), "headers": "headers",
          **dict.fromkeys(QUERIES, "query"), "cookies": "cookies", "COOKIES": "cookies",
          "path_params": "params", "view_args": "params"}
# Keys of a scope, or of what a library hands on.
KEYS = {"subprotocols": "subprotocols", "connection_params": "message", "kwargs": "params"}
GETTERS = ("get", "pop", "getlist", "getall", "get_all", "setdefault")
TEXT_METHODS = frozenset((
    "strip", "lower", "upper", "split", "encode", "startswith", "endswith", "removeprefix", "title",
    "removesuffix", "replace", "casefold", "partition", "rpartition", "isdigit", "lstrip", "rstrip"))
REQUESTS = ("request", "req", "websocket", "ws", "socket", "connection", "conn")
trees = {}


class Shape:
    """A value from a client, as far as the code shows it."""

    def __init__(self):
        self.keys = {}
        self.required = False
        self.kind = None  # "number", "text", "list", "object", "file", "time"
        self.values = []  # that it is compared with
        self.held = []  # that a constant of the app holds, where the value is looked for
        self.prefix = ""  # that the code takes away first
        self.starts = []  # prefixes that the code looks for
        self.parts = []  # parts that the code looks for
        self.separator = " "  # by which the code splits it
        self.item = None
        self.head = self.tail = None  # the first and the last part of a text that the code splits

    def key(self, name, required):
        child = self.keys.setdefault(name, Shape())
        child.required |= required
        self.kind = self.kind or "object"
        return child

    def element(self):
        self.kind = self.kind or "list"
        self.item = self.item or Shape()
        return self.item

    def is_known(self):
        return bool(self.keys or self.kind or self.values or self.held)

    def further(self):
        """Values to try beside the good one: those that the code compares it with, and some with a prefix
        or a part that the code looks for."""
        yield from self.values
        yield from self.held
        for start in self.starts:
            yield from (start + tail for tail in TAILS)
        for part in self.parts:
            yield from (part, f"a{part}", f"{part}a", f"a{part}b", f"a{part}b{part}c")

    def good(self, everything=True, name="", nth=0):
        """A value of this shape; of those that a constant holds, the one with this number."""
        if self.values or self.held:
            value = self.held[nth % len(self.held)] if self.held else self.values[0]
            return self.prefix + value if isinstance(value, str) else value
        if self.head is not None and self.tail is not None and self.tail.is_known():
            return f"{self.prefix}{self.head.good()}{self.separator}{self.tail.good()}"
        if self.keys:
            value, taken = {}, {}
            for key, shape in self.keys.items():
                if everything or shape.required:
                    # Two that are looked for in one place, as both ends of a transfer are, differ.
                    same = tuple(shape.held)
                    value[key] = shape.good(everything, key, taken.setdefault(same, 0))
                    taken[same] += 1
            return value
        if self.parts and self.kind == "text":
            return f"a{self.parts[0]}b"
        kinds = {"number": 1, "text": "a", "object": {}, "time": "2026-01-02T03:04:05"}
        if self.kind == "list":
            return [self.item.good(everything) if self.item is not None else "a"]
        return kinds.get(self.kind, "a")


class Reads:
    """The names that one endpoint reads, by place."""

    def __init__(self):
        self.places = {name: Shape() for name in (
            "json", "form", "files", "query", "headers", "cookies", "text", "message",
            "subprotocols", "params")}
        self.is_read = set()  # the places that are read at all
        self.accepts = []  # subprotocols

    def place(self, name):
        self.is_read.add(name)
        return self.places[name]


def reads_of(*endpoints, shapes=None, is_websocket=False):
    """The names that these functions and classes read; `shapes` says what arguments are, by name.

    A shape is one, or the name of a place.
    """
    reads = Reads()
    for endpoint in endpoints:
        for function in entry_functions(endpoint):
            given = {name: reads.place(shape) if isinstance(shape, str) else shape
                     for name, shape in (shapes or {}).items()}
            Reader(reads, function, given, 0, is_websocket).run()
    return reads


def entry_functions(endpoint):
    if not inspect.isclass(endpoint):
        function = function_of(endpoint)
        return [function] if function is not None else []
    found = []
    for base in endpoint.__mro__:
        for item in vars(base).values():
            function = None if inspect.isclass(item) else function_of(item)
            if function is not None and is_own(function.__code__):
                found.append(function)
    return found


def tree_of(function):
    """The syntax tree of a function, or None."""
    code = function.__code__
    if not is_own(code):
        return None
    if code.co_filename not in trees:
        try:
            with open(code.co_filename, "rb") as file:
                tree = ast.parse(file.read())
        except (OSError, SyntaxError, ValueError):
            tree = ast.Module([], [])
        trees[code.co_filename] = {
            (min([node.lineno, *(line.lineno for line in node.decorator_list)]), node.name): node
            for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    return trees[code.co_filename].get((code.co_firstlineno, code.co_name))


class Reader:
    """Goes through one function, in order, with the shapes that its variables have."""

    def __init__(self, reads, function, given, depth, is_websocket, constants=()):
        self.reads = reads
        self.function = function
        self.given = dict(given)
        self.depth = depth
        self.is_websocket = is_websocket
        self.constants = dict(constants)  # what variables hold that the app itself says
        self.result = None

    def run(self):
        tree = tree_of(self.function)
        if tree is None or self.depth > DEPTH:
            return None
        for node in tree.body:
            self.look(node)
        return self.result

    def look(self, node):
        """Takes in a node; the shape of its value, if it is one that comes from the client."""
        method = getattr(self, "look_" + type(node).__name__, None)
        if method is not None:
            return method(node)
        for child in ast.iter_child_nodes(node):
            self.look(child)
        return None

    def bind(self, target, shape):
        if isinstance(target, ast.Name):
            if shape is not None:
                self.given[target.id] = shape
            else:
                self.given.pop(target.id, None)
        elif isinstance(target, (ast.Tuple, ast.List)) and shape is not None and shape.tail is not None:
            self.bind(target.elts[0], shape.head)
            self.bind(target.elts[-1], shape.tail)
        elif isinstance(target, (ast.Tuple, ast.List)) and shape is not None:
            for inner in target.elts:
                self.bind(inner, shape.element())
        else:
            self.look(target)

    def look_Assign(self, node):
        shape = self.look(node.value)
        if isinstance(node.value, ast.Tuple) and isinstance(node.targets[0], ast.Tuple):
            pairs = zip(node.targets[0].elts, node.value.elts)
            for target, value in pairs:
                self.bind(target, self.look(value))
            return
        # A default, as in an `except`, takes nothing away from what is known.
        if not isinstance(node.value, ast.Constant):
            for target in node.targets:
                self.bind(target, shape)

    def look_AnnAssign(self, node):
        if node.value is not None:
            self.bind(node.target, self.look(node.value))

    def look_NamedExpr(self, node):
        shape = self.look(node.value)
        self.bind(node.target, shape)
        return shape

    def look_Return(self, node):
        if node.value is not None:
            self.result = self.look(node.value) or self.result

    def look_Name(self, node):
        return self.given.get(node.id)

    def look_Await(self, node):
        return self.look(node.value)

    def look_IfExp(self, node):
        self.look(node.test)
        first, second = self.look(node.body), self.look(node.orelse)
        return first if first is not None else second

    def look_BoolOp(self, node):
        shapes = [self.look(value) for value in node.values]
        return next((shape for shape in shapes if shape is not None), None)

    def look_Subscript(self, node):
        shape = self.look(node.value)
        key = node.slice.value if type(node.slice).__name__ == "Index" else node.slice
        name = self.key_of(key)
        if name == "headers" and is_scope(node.value):
            return self.reads.place(name)
        if name in KEYS:
            return self.reads.place(KEYS[name])
        if isinstance(key, ast.Slice):
            return shape
        if shape is not None and shape.tail is not None and not isinstance(name, str):
            return shape.head if name == 0 else shape.tail
        if shape is None or name is None:
            self.note_held(self.look(key), self.value_of(node.value))
            return None
        return self.noted(shape.key(name, True)) if isinstance(name, str) else shape.element()

    def look_Attribute(self, node):
        shape = self.look(node.value)
        if node.attr in ("requested_subprotocols", "subprotocols"):
            return self.reads.place("subprotocols")
        if shape is not None:
            if node.attr in ("filename", "file", "content_type"):
                shape.kind = "file"
            return None
        if not is_request(node.value):
            return None
        if node.attr in PLACES and not (node.attr == "data" and self.is_websocket):
            return self.reads.place(PLACES[node.attr])
        if node.attr == "json":
            return self.reads.place("json")
        if node.attr == "body" and not self.is_websocket:
            return self.reads.place("text")
        return None

    def look_Call(self, node):
        shape = self.look_call_of(node)
        for value in [*node.args, *(word.value for word in node.keywords)]:
            self.look(value)
        return shape

    def look_call_of(self, node):
        function = node.func
        if isinstance(function, ast.Attribute):
            return self.look_method(node, function)
        if isinstance(function, ast.Name):
            shapes = [self.look(value) for value in node.args]
            if function.id in ("int", "float") and shapes and shapes[0] is not None:
                shapes[0].kind = "number"
            elif function.id in ("str", "dict", "list") and shapes:
                return shapes[0]
            elif function.id == "isinstance" and shapes and shapes[0] is not None:
                self.note_type(shapes[0], node.args[1])
            elif function.id == "len" and shapes and shapes[0] is not None:
                shapes[0].kind = shapes[0].kind or "text"
            elif function.id == "loads":
                return self.decoded(shapes)
            elif function.id == "receive":
                return self.event()
            elif function.id in ("parse_qs", "parse_qsl"):
                return self.reads.place("query")
            else:
                return self.follow(self.function.__globals__.get(function.id), node, shapes)
        return None

    def look_method(self, node, function):
        name = function.attr
        if name == "accept":
            self.note_accepted(node)
        if name in ("loads", "model_validate_json"):
            return self.decoded([self.look(value) for value in node.args])
        if name in ("parse_qs", "parse_qsl"):
            return self.reads.place("query")
        if name == "fromisoformat" and node.args:
            shape = self.look(node.args[0])
            if shape is not None:
                shape.kind = "time"
            return None
        is_asked = is_request(function.value)
        if is_asked and name in JSON_CALLS:
            return self.reads.place("message" if self.is_websocket else "json")
        if is_asked and name in TEXT_CALLS:
            self.reads.is_read.add("text message")
            return self.reads.places["text"]
        if is_asked and name == "receive" and self.is_websocket:
            return self.event()
        if is_asked and name == "form" and not self.is_websocket:
            return self.reads.place("form")
        if is_asked and name in BODY_CALLS and not self.is_websocket:
            return self.reads.place("text")
        shape = self.look(function.value)
        if name == "get" and node.args and constant(node.args[0]) in KEYS:
            return self.reads.place(KEYS[constant(node.args[0])])
        if shape is None:
            shapes = [self.look(value) for value in node.args]
            if name in GETTERS and shapes:
                self.note_held(shapes[0], self.value_of(function.value))
            if name == "compare_digest" and len(shapes) == 2:
                for shape, other in zip(shapes, reversed(node.args)):
                    self.note_held(shape, [self.value_of(other)])
            if isinstance(function.value, ast.Name) and function.value.id == "self":
                return self.follow(self.own_method(name), node, shapes)
            return None
        return self.look_method_of(shape, name, node)

    def look_method_of(self, shape, name, node):
        key = self.key_of(node.args[0]) if node.args else None
        if name in GETTERS and isinstance(key, str):
            child = self.noted(shape.key(key, name == "pop" and len(node.args) == 1))
            return child.element() if name in ("getlist", "getall", "get_all") else child
        if name in ("items", "values", "keys"):
            shape.kind = shape.kind or "object"
            return None
        if name in ("read", "save"):
            shape.kind = "file"
        elif name in TEXT_METHODS:
            shape.kind = "text"
            if name == "removeprefix" and isinstance(key, str):
                shape.prefix = key
            starts = [key] if isinstance(key, str) else key if isinstance(key, tuple) else []
            if name == "startswith":
                shape.starts = list(dict.fromkeys([*shape.starts, *starts]))[:VALUES]
            if name in ("split", "partition"):
                shape.head, shape.tail = shape.head or Shape(), shape.tail or Shape()
                shape.separator = key if isinstance(key, str) and key else " "
            return shape
        elif name == "decode":
            return shape
        return None

    def event(self):
        """An event of ASGI: its text is a message."""
        event = Shape()
        event.keys = dict.fromkeys(("text", "bytes", "body"), self.reads.places["text"])
        if self.is_websocket:
            self.reads.is_read.add("text message")
        return event

    def noted(self, shape):
        """Notes that the body is read, if a shape is that."""
        if shape is self.reads.places["text"] and not self.is_websocket:
            self.reads.is_read.add("text")
        return shape

    def decoded(self, shapes):
        """The JSON that a text from the client holds."""
        if not shapes or shapes[0] is None:
            return None
        if shapes[0] is self.reads.places["text"]:
            return self.reads.place("message" if self.is_websocket else "json")
        return shapes[0]

    def follow(self, value, node, shapes):
        """Goes through a function of the app that is given something of the client's."""
        function = function_of(value) if value is not None and not inspect.isclass(value) else None
        if function is None or not is_own(function.__code__):
            return None
        names = function.__code__.co_varnames[:function.__code__.co_argcount]
        if isinstance(node.func, ast.Attribute):
            names = names[1:]
        said = {name: self.value_of(value) for name, value in zip(names, node.args)}
        said = {name: value for name, value in said.items() if isinstance(value, str)}
        given = {name: shape for name, shape in zip(names, shapes) if shape is not None}
        for word in node.keywords:
            shape = self.look(word.value)
            if word.arg and shape is not None:
                given[word.arg] = shape
        takes_request = any(is_request(value) or is_scope(value) for value in node.args)
        if not given and not takes_request and not said and self.depth > 0:
            return None
        return Reader(self.reads, function, given, self.depth + 1, self.is_websocket, said).run()

    def own_method(self, name):
        """The method of the class that this function is in."""
        path = self.function.__qualname__.split(".")[:-1]
        found = self.function.__globals__.get(path[0]) if len(path) == 1 else None
        return getattr(found, name, None) if found is not None else None

    def note_type(self, shape, node):
        names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
        for name, kind in (("dict", "object"), ("list", "list"), ("str", "text"), ("int", "number"),
                           ("float", "number")):
            if name in names:
                shape.kind = shape.kind or kind
                return

    def note_accepted(self, node):
        for word in node.keywords:
            name = constant(word.value)
            if word.arg in ("subprotocol", "subprotocols") and isinstance(name, str):
                self.reads.accepts.append(name)

    def look_Compare(self, node):
        sides = [node.left, *node.comparators]
        shapes = [self.look(side) for side in sides]
        for operator, left, right, first, second in zip(
                node.ops, sides, sides[1:], shapes, shapes[1:]):
            if isinstance(operator, (ast.In, ast.NotIn)) and second is not None:
                named = self.value_of(left)
                for name in named if isinstance(named, (list, tuple)) else [named]:
                    if isinstance(name, str) and not is_name(name) and self.may_be_text(second):
                        second.kind = second.kind or "text"
                        second.parts = list(dict.fromkeys([*second.parts, name]))[:VALUES]
                    elif isinstance(name, str):
                        second.key(name, False)
                continue
            for shape, other in ((first, right), (second, left)):
                if shape is not None:
                    self.note_values(shape, operator, other)

    def may_be_text(self, shape):
        """Whether nothing shows that it has keys. Every place has keys, but for the text of a request."""
        places = (place for name, place in self.reads.places.items() if name != "text")
        return not shape.keys and shape.kind in (None, "text") and all(shape is not place for place in places)

    def note_values(self, shape, operator, other):
        if isinstance(operator, (ast.Lt, ast.Gt, ast.LtE, ast.GtE)):
            shape.kind = shape.kind or "number"
            return
        values = [constant(value) for value in getattr(other, "elts", [other])]
        for value in values:
            if isinstance(value, str) and value and value not in shape.values:
                shape.values = [*shape.values, value][:VALUES]
        held = self.value_of(other) if not isinstance(other, ast.Constant) else None
        self.note_held(shape, [held] if isinstance(held, str) else held)

    def note_held(self, shape, held):
        """Notes texts and numbers in a constant of the app where a value of the client's is looked for."""
        if shape is None or not isinstance(held, (dict, list, tuple, set, frozenset)):
            return
        values = sorted(held, key=str) if isinstance(held, (set, frozenset)) else list(held)
        values = [value.decode("latin-1") if type(value) is bytes else value for value in values]
        known = [value for value in values if type(value) in (str, int) and value != ""]
        shape.held = list(dict.fromkeys([*shape.held, *known]))[:VALUES]

    def key_of(self, node):
        """The text or number that an expression always is, or None."""
        value = self.value_of(node)
        return value if isinstance(value, (str, int)) else constant(node)

    def value_of(self, node):
        """The value of an expression that names a constant of the app, or None."""
        if isinstance(node, ast.Constant):
            return constant(node)
        if isinstance(node, ast.Name):
            if node.id in self.given:
                return None
            return self.constants.get(node.id, self.function.__globals__.get(node.id))
        if isinstance(node, ast.Attribute):
            holder = self.value_of(node.value)
            return None if holder is None else inspect.getattr_static(holder, node.attr, None)
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            return [self.value_of(inner) for inner in node.elts]
        if isinstance(node, ast.JoinedStr):
            parts = [self.value_of(getattr(part, "value", part)) if not isinstance(part, ast.Constant)
                     else part.value for part in node.values]
            return "".join(parts) if all(isinstance(part, str) for part in parts) else None
        return None

    def look_AugAssign(self, node):
        shape = self.look(node.value)
        if isinstance(node.target, ast.Name) and shape is not None:
            self.given.setdefault(node.target.id, shape)
        else:
            self.look(node.target)

    def look_BinOp(self, node):
        first, second = self.look(node.left), self.look(node.right)
        for shape, other in ((first, node.right), (second, node.left)):
            if shape is not None and isinstance(constant(other), (int, float)):
                shape.kind = shape.kind or "number"
            elif shape is not None and isinstance(constant(other), str):
                shape.kind = shape.kind or "text"

    def look_For(self, node):
        shape = self.look(node.iter)
        is_text = shape is self.reads.places["text"] or shape in (
            self.reads.places["message"], self.reads.places["json"]) and isinstance(node, ast.AsyncFor)
        if shape is not None:
            self.bind(node.target, shape if is_text else shape.element())
        else:
            self.bind_constant(node)
        for child in [*node.body, *node.orelse]:
            self.look(child)

    look_AsyncFor = look_For

    def bind_constant(self, node):
        """Remembers what a loop goes through, if that is a constant of the app."""
        source, method = node.iter, ""
        if isinstance(source, ast.Call) and isinstance(source.func, ast.Attribute):
            source, method = source.func.value, source.func.attr
        held = self.value_of(source)
        targets = getattr(node.target, "elts", [node.target])
        if isinstance(held, dict) and isinstance(targets[0], ast.Name):
            self.constants[targets[0].id] = list(held.values() if method == "values" else held)
        elif isinstance(held, (list, tuple, set, frozenset)) and isinstance(node.target, ast.Name):
            self.constants[node.target.id] = held

    def look_With(self, node):
        for item in node.items:
            shape = self.look(item.context_expr)
            if item.optional_vars is not None:
                self.bind(item.optional_vars, shape)
        for child in node.body:
            self.look(child)

    look_AsyncWith = look_With

    def look_Match(self, node):
        shape = self.look(node.subject)
        for case in node.cases:
            self.look_pattern(case.pattern, shape)
            for child in [*([case.guard] if case.guard else []), *case.body]:
                self.look(child)

    def look_pattern(self, pattern, shape):
        if shape is None:
            return
        kind = type(pattern).__name__
        if kind == "MatchValue" and isinstance(constant(pattern.value), str):
            self.note_values(shape, ast.Eq(), pattern.value)
        elif kind == "MatchOr":
            for inner in pattern.patterns:
                self.look_pattern(inner, shape)
        elif kind == "MatchMapping":
            for key, inner in zip(pattern.keys, pattern.patterns):
                if isinstance(constant(key), str):
                    child = shape.key(constant(key), True)
                    self.look_pattern(inner, child)
        elif kind == "MatchAs":
            if pattern.pattern is not None:
                self.look_pattern(pattern.pattern, shape)
            if pattern.name is not None:
                self.given[pattern.name] = shape

    def look_FunctionDef(self, node):
        for child in node.body:
            self.look(child)

    look_AsyncFunctionDef = look_FunctionDef


def constant(node):
    value = node.value if isinstance(node, ast.Constant) else None
    return value.decode("latin-1") if isinstance(value, bytes) else value


def is_scope(node):
    """Whether an expression is named like a scope."""
    return getattr(node, "id", None) == "scope" or getattr(node, "attr", None) == "scope"


def is_request(node):
    """Whether an expression is named like a request or a connection."""
    if isinstance(node, ast.Attribute):
        return node.attr in REQUESTS
    return isinstance(node, ast.Name) and (
        node.id in REQUESTS or node.id.endswith(("request", "websocket", "socket", "_ws")))
