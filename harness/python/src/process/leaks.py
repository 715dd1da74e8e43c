"""Looks for what an app keeps of clients that are gone.

Something is kept of a client if its call is over, and a task that was started in it runs on, or a
variable of the app's own modules leads to the call, or to a queue or a lock that was made in it.
An entry without content, under a name from the path of a WebSocket that is over, is kept, too.

It is told only where there is as much for each of several clients: what is kept of one may be the
latest, or belong to all.  Requests that can make something, as POST can, do not count as clients.

The shim runs this once the app is loaded, with its own names.
"""

import asyncio
import functools
import gc
import itertools
import logging
import re
import sys
import types
import weakref
from collections import deque
from urllib.parse import unquote

LEAST = 3  # clients of which something is kept; the harness has the same number
OBJECTS = 50_000  # that are followed from the app's variables, at most
CALLS = 4096  # whose requests are remembered
MADE = 4096  # objects that are remembered without a look at who is still there
AWAITS = 20  # coroutines that a task is in, one waiting for the next
KEYS = 1000  # of a dictionary that had them before any client came
WAYS = 3  # walks for one look, each without the variables that led to few
FRUITLESS = 8  # looks in a row whose walks led to nothing, after which only some are made
SOME = 64  # every so many
LOCKS = (asyncio.Queue, asyncio.Event, asyncio.Lock, asyncio.Condition, asyncio.Semaphore)
CONTAINERS = (dict, list, tuple, set, frozenset, deque)
ATOMS = (
    str, bytes, int, float, bool, complex, type(None), types.ModuleType, types.CodeType,
    types.BuiltinFunctionType, types.GetSetDescriptorType, types.MemberDescriptorType,
    types.WrapperDescriptorType, types.MethodDescriptorType, weakref.ReferenceType,
    re.Pattern, logging.Logger, logging.Handler)


class Leftovers:
    """What calls made, and the walk from the app's variables to what is left of it."""

    def __init__(self, session, own, current_call):
        self.session = session
        self.own = own
        self.asked = {}  # by the number of each call: the method, and the path
        self.made = []  # (number of a call, reference to what was made in it)
        self.known = None  # the keys of the app's dictionaries before any client came
        self.modules = (0, ())  # how many modules there were, and those of the app's own
        self.fruitless = 0
        self.walks = 0
        for kind in LOCKS:
            self.mark(kind, current_call)

    def mark(self, kind, current_call):
        """Lets objects of a type be remembered with the call that they are made in."""
        make, made = kind.__init__, self.made

        @functools.wraps(make)
        def marked(self_of_kind, *args, **options):
            call = current_call.get()
            if call is not None:
                if len(made) >= MADE:
                    made[:] = [(number, ref) for number, ref in made if ref() is not None][-MADE // 2:]
                made.append((call.id, weakref.ref(self_of_kind)))
            make(self_of_kind, *args, **options)

        kind.__init__ = marked

    def begin(self, number, scope):
        """A call begins."""
        kind = scope.get("type")
        if kind not in ("http", "websocket"):
            return
        if self.known is None:
            self.known = {}
            for module, name, entries in self.own_dicts():
                self.known[module.__name__, name] = frozenset(list(entries)[:KEYS])
        if len(self.asked) >= CALLS:
            for old in list(self.asked)[:CALLS // 2]:
                del self.asked[old]
        method = "WEBSOCKET" if kind == "websocket" else scope.get("method")
        self.asked[number] = (method, scope.get("path"))

    def look(self, first):
        """Tells what is kept of the calls from this number on."""
        session = self.session
        over = {number for number, (method, _) in itertools.takewhile(
                    lambda item: item[0] >= first, reversed(self.asked.items()))
                if number not in session.calls and method in ("WEBSOCKET", "GET")}
        if len(over) < LEAST:
            return
        found = [("empty", *rest) for rest in self.empty_entries(over)]
        if len(self.left(over)) >= LEAST:
            gc.collect()
            of_tasks = [("task", *rest) for rest in self.tasks(over)]
            found += of_tasks
            # A task that runs on keeps the other objects of its call alive: only the task is told.
            over.difference_update(*(numbers for *_, numbers in of_tasks))
            found += [("objects", *rest) for rest in self.objects(over)]
        session.events.extend(("leftover", *rest) for rest in sorted(found))

    def left(self, over):
        """Of which of these calls anything is there: a task, the call itself, or what was made in it."""
        # A garbage collection removes calls from the dictionary while it is read, so a copy is read.
        found = {number for number, ref in self.session.kept.copy().items() if ref() is not None}
        found.update(number for number, ref in self.made if ref() is not None)
        found.update(call.id for call, _ in self.running())
        return found & over

    def running(self):
        """The tasks that calls started, with the calls."""
        for task in asyncio.all_tasks(self.session.loop):
            call = getattr(task, "lockstep_call", None)
            if call is not None and task is not call.task:
                yield call, task

    # -- tasks

    def tasks(self, over):
        """The app's own coroutines that run in tasks of several calls."""
        found = {}
        for call, task in self.running():
            code = self.own_code(task.get_coro()) if call.id in over else None
            if code is not None:
                name = getattr(code, "co_qualname", code.co_name).replace("<locals>.", "")
                place = (code.co_filename, code.co_firstlineno, code.co_name)
                found.setdefault((name, place), set()).add(call.id)
        for (name, place), numbers in found.items():
            if len(numbers) >= LEAST:
                yield name, [place], sorted(numbers)

    def own_code(self, coroutine):
        """The code of the outermost coroutine of the app's own that waits in this one."""
        for _ in range(AWAITS):
            for prefix in ("cr", "gi", "ag"):
                code = getattr(coroutine, f"{prefix}_code", None)
                if code is not None:
                    break
            else:
                return None
            if self.own.has(code.co_filename):
                return code
            coroutine = getattr(coroutine, f"{prefix}_await" if prefix != "gi" else "gi_yieldfrom", None)
        return None

    # -- entries without content

    def empty_entries(self, over):
        """The dictionaries with an entry without content for each of several WebSockets' paths."""
        names = {}
        for number in over:
            method, path = self.asked[number]
            if method == "WEBSOCKET" and isinstance(path, str):
                for segment in path.split("/"):
                    names.setdefault(unquote(segment), number)
        for module, name, entries in self.own_dicts():
            known = self.known.get((module.__name__, name), ())
            numbers = {}
            for segment, number in names.items():
                for key in (segment, int(segment)) if segment.isdecimal() and len(segment) < 20 else (segment,):
                    if key not in known and is_empty(dict.get(entries, key)):
                        numbers[key] = number
            if len(numbers) >= LEAST:
                yield name, self.place(module, name), sorted(numbers.values())

    def own_modules(self):
        if self.modules[0] != len(sys.modules):
            modules = [module for module in list(sys.modules.values()) if type(module) is types.ModuleType]
            self.modules = (len(sys.modules), [module for module in modules if self.is_file_own(module)])
        return self.modules[1]

    def is_file_own(self, module):
        file = getattr(module, "__file__", None)
        return isinstance(file, str) and self.own.has(file)

    def own_dicts(self):
        """The app's own dictionaries: in variables, and in attributes of what these hold."""
        for module in self.own_modules():
            for name, value in list(vars(module).items()):
                if name.startswith("__"):
                    continue
                if issubclass(type(value), dict):
                    yield module, name, value
                elif self.is_own(value if issubclass(type(value), type) else type(value)):
                    for attribute, inner in list(attributes_of(value).items()):
                        if issubclass(type(inner), dict):
                            yield module, f"{name}.{attribute}", inner

    def is_own(self, kind):
        """Whether a class is the app's own."""
        name = getattr(kind, "__module__", None)
        return isinstance(name, str) and self.is_file_own(sys.modules.get(name))

    # -- objects

    def objects(self, over):
        """The variables that lead to something of several calls."""
        targets = {}
        for number, ref in [*self.session.kept.copy().items(), *self.made]:
            target = ref()
            if target is not None and number in over:
                targets[id(target)] = (number, target)
        if len({number for number, _ in targets.values()}) < LEAST:
            return
        self.walks += 1
        if self.fruitless >= FRUITLESS and self.walks % SOME:
            return
        found, passed = {}, set()
        for _ in range(WAYS):
            for number, (module, name) in self.walk(targets, passed):
                found.setdefault((module.__name__, name), (module, set()))[1].add(number)
            # A variable with the latest client hides another one with all of them.
            few = {(module, name.partition(".")[0]) for (module, name), (_, numbers) in found.items()
                   if len(numbers) < LEAST}
            if few <= passed:
                break
            passed |= few
        found = {key: value for key, value in found.items() if len(value[1]) >= LEAST}
        self.fruitless = 0 if found else self.fruitless + 1
        for (_, name), (module, numbers) in found.items():
            yield name, self.place(module, name), sorted(numbers)

    def walk(self, targets, passed):
        """Goes from the app's variables, but for those that are passed over, along all references, the
        nearest first; the targets that it comes to, with the variable."""
        session = self.session
        seen = {id(vars(module)) for module in list(sys.modules.values()) if isinstance(module, types.ModuleType)}
        for value in (session, session.loop, session.events, session.calls, session.selector, self):
            seen.update((id(value), id(getattr(value, "__dict__", None))))
        queue, parents = deque(), {}
        for module in self.own_modules():
            for name, value in list(vars(module).items()):
                is_passed = name.startswith("__") or (module.__name__, name) in passed
                if not is_passed and id(value) not in seen:
                    seen.add(id(value))
                    parents[id(value)] = ((module, name), value)
                    queue.append(value)
        count = 0
        while queue and count < OBJECTS:
            value = queue.popleft()
            count += 1
            if id(value) in targets:
                yield targets[id(value)][0], name_of(value, parents)
                continue
            for inner in self.referents(value):
                if id(inner) not in seen and not issubclass(type(inner), ATOMS):
                    seen.add(id(inner))
                    parents[id(inner)] = (value, inner)
                    queue.append(inner)

    def referents(self, value):
        kind = type(value)
        if issubclass(kind, ATOMS):
            return ()
        if issubclass(kind, type):
            return list(vars(value).values()) if self.is_own(value) else ()
        if kind is types.FunctionType:
            # Not its globals, which are everything.
            return (value.__closure__, value.__defaults__, value.__kwdefaults__, value.__dict__)
        return gc.get_referents(value)

    def place(self, module, name):
        """Where a variable or an attribute gets its first value, as a list of at most one frame."""
        last = re.escape(name.rpartition(".")[2])
        is_assigned = re.compile(rf"\s*((self|cls)\.)?{last}\s*(:[^=]+)?=[^=]").match
        try:
            with open(module.__file__, encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    if is_assigned(line):
                        return [(module.__file__, number, "<module>")]
        except (OSError, ValueError):
            pass
        return []


def is_empty(value):
    return issubclass(type(value), CONTAINERS) and not issubclass(type(value), tuple) and not len(value)


def attributes_of(value):
    """The attributes of an object or a class that stand in its own dictionary."""
    try:
        attributes = vars(value)
    except Exception:
        return {}
    return attributes if issubclass(type(attributes), (dict, types.MappingProxyType)) else {}


def name_of(value, parents):
    """The variable that the walk came from, with the attributes up to the first container."""
    path = [value]
    parent, _ = parents[id(value)]
    while type(parent) is not tuple or id(parent) in parents:
        path.append(parent)
        parent, _ = parents[id(parent)]
    module, name = parent
    path.reverse()
    holder = None
    for outer, inner in zip(path, path[1:]):
        if holder is None:
            if issubclass(type(outer), CONTAINERS):
                break
            attributes = attributes_of(outer)
            if attributes is inner:
                holder = attributes
                continue
        else:
            attributes, holder = holder, None
        attribute = next((key for key, item in list(attributes.items()) if item is inner), None)
        if not isinstance(attribute, str):
            break
        name += f".{attribute}"
    return module, name
