"""State that a class holds for all of its instances, although its code changes it through `self` only."""

import ast
import itertools
import json
import sys
import weakref
from collections import Counter, OrderedDict, defaultdict, deque

from .code import is_own_file

CONTAINERS = (list, dict, set, deque, Counter, OrderedDict, defaultdict)
CHANGES = frozenset((
    "add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "move_to_end", "pop",
    "popitem", "popleft", "remove", "setdefault", "subtract", "update"))
ITEMS = 64  # of a container that are looked at
DEPTH = 3  # of containers in one


def guard(tell):
    """Has each such attribute of the app tell when one instance sees what another one changed.

    `tell(call, title, texts)` is given the texts in the attribute, as JSON; `tell.call()` is what runs at the
    moment, and `tell.case()` the number of the case.
    """
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if not isinstance(name, str) or not name.endswith(".py") or not is_own_file(name):
            continue
        try:
            with open(name, "rb") as file:
                tree = ast.parse(file.read())
        except (OSError, SyntaxError, ValueError):
            continue
        for kind, attribute in shared_attributes(tree, module):
            try:
                setattr(kind, attribute, Shared(vars(kind)[attribute], f"{kind.__name__}.{attribute}", tell))
            except (AttributeError, TypeError):
                pass  # its metaclass does not want that


def shared_attributes(tree, module):
    """The classes of a module with the names of such attributes."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    names = {node.name for node in classes}
    for node in classes:
        kind = vars(module).get(node.name)
        if not isinstance(kind, type) or kind.__module__ != module.__name__ or not kind.__weakrefoffset__:
            continue
        changed = {name for method in node.body for name in changed_by(method)}
        for name in sorted(changed):
            if type(vars(kind).get(name)) in CONTAINERS and not is_meant_for_all(tree, node, name, names):
                yield kind, name


def changed_by(method):
    """The attributes of `self` that a method changes in place."""
    if not isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return
    for node in ast.walk(method):
        held = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
            held = node.func.value
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
            held = node.value
        while isinstance(held, ast.Subscript):
            held = held.value
        if isinstance(held, ast.Attribute) and is_named(held.value, "self"):
            yield held.attr


def is_meant_for_all(tree, own, name, classes):
    """Whether the code says that an attribute is the class's, or gives an instance one of its own."""
    for node in ast.walk(own):
        if isinstance(node, ast.AnnAssign) and is_named(node.target, name) and "ClassVar" in ast.dump(node.annotation):
            return True
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or node.attr != name:
            continue
        holder = node.value
        is_of_class = isinstance(holder, ast.Name) and holder.id in {*classes, "cls"} or (
            isinstance(holder, ast.Attribute) and holder.attr == "__class__") or (
            isinstance(holder, ast.Call) and is_named(holder.func, "type"))
        if is_of_class or not isinstance(node.ctx, ast.Load):
            return True
    return False


def is_named(node, name):
    return isinstance(node, ast.Name) and node.id == name


class Access:
    """One use of the attribute through an instance."""

    def __init__(self, instance, call, tell):
        self.instance = weakref.ref(instance)
        self.call = call and weakref.ref(call)
        self.case = tell.case()
        self.is_in_session = getattr(call, "kind", None) == "websocket"

    def outlasts(self):
        """Whether the instance lives longer than one request, so that its state is its own."""
        call = self.call and self.call()
        return self.instance() is not None and (self.is_in_session or call is None or call.task is None)


class Shared:
    """Stands for the attribute in the class."""

    def __init__(self, value, title, tell):
        self.value = value
        self.title = title
        self.tell = tell
        self.contents = contents_of(value)
        self.last = None  # access
        self.change = None  # the access through which it was changed last
        self.told = None  # last

    def __get__(self, instance, owner=None):
        if instance is not None:
            self.look(instance)
        return self.value

    def look(self, instance):
        call, contents = self.tell.call(), contents_of(self.value)
        if contents != self.contents:
            self.contents, self.change = contents, self.last
        change = self.change
        if (call is not None and contents is not None and change is not None
                and change.case == self.tell.case()
                and change.instance() is not instance and change.outlasts()):
            told = (call.id, contents)
            if told != self.told:
                self.told = told
                texts = [value for value in contents[1] if isinstance(value, str)]
                self.tell(call, self.title, json.dumps(texts, ensure_ascii=False))
        self.last = Access(instance, call, self.tell)


def contents_of(value):
    """How much a container holds, and its first plain values; None if it holds anything else."""
    found = []
    try:
        return (len(value), tuple(found)) if put_plain(value, found, 0) else None
    except RuntimeError:
        return None  # another thread changes it


def put_plain(value, found, depth):
    if isinstance(value, (str, int, float, bytes, type(None))):
        found.append(value)
        return True
    if not isinstance(value, (*CONTAINERS, tuple, frozenset)) or depth > DEPTH:
        return False
    inner = itertools.chain.from_iterable(value.items()) if isinstance(value, dict) else value
    return all(put_plain(item, found, depth + 1) for item in itertools.islice(inner, ITEMS) if len(found) < ITEMS)
