"""Tells which blocks of the app's own code each call reaches.

A block is the body of a function, and in a function the body of a branch, a loop, an `except` or a `case`.  The modules of
the app are compiled with a counter at the start of each block.  Lines keep their numbers, so tracebacks are as before.
"""

import ast

BLOCKS = 20000  # are counted at most, of all modules; further modules are not counted
SETS = 4096  # are numbered at most; further ones are told with all their blocks each time


class Coverage:
    COUNTER = "__relapse_reaches__"  # the name of `reaches` in the app's code

    def __init__(self, events, current_call):
        self.events = events
        self.count = 0  # of blocks
        self.sets = {}  # the number of each set of blocks that a call has reached

        def reaches(block):
            call = current_call.get()
            if call is not None:
                call.reached.add(block)

        self.reaches = reaches

    def add_counters(self, tree, path):
        """Puts a counter in front of each block of a module, and tells of the blocks."""
        blocks = list(find_blocks(tree))
        if self.count + len(blocks) > BLOCKS:
            return
        told = []
        for number, (body, function) in enumerate(blocks, self.count):
            at = 1 if body is function.body and is_docstring(body[0]) else 0
            first = body[min(at, len(body) - 1)]
            told.append((first.lineno, max(map(last_line, body)), function.name, function.lineno))
            counter = ast.Expr(ast.Call(ast.Name(self.COUNTER, ast.Load()), [ast.Constant(number)], []))
            for new in ast.walk(counter):
                ast.copy_location(new, first)
            body.insert(at, counter)
        self.events.append(("blocks", self.count, path, told))
        self.count += len(blocks)

    def tell(self, call):
        """Tells of the blocks that a call has reached: by the number of their set, and the set when it is new."""
        if not call.reached:
            return
        reached = frozenset(call.reached)
        call.reached.clear()
        number = self.sets.get(reached)
        if number is not None:
            self.events.append(("reached", call.id, number))
            return
        number = len(self.sets)
        if number < SETS:
            self.sets[reached] = number
        self.events.append(("reached", call.id, number, sorted(reached)))


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, getattr(ast, "match_case", ast.If))


def find_blocks(tree):
    """The blocks of a module, each with the function that it is in."""
    todo = [(tree, None)]
    while todo:
        node, function = todo.pop()
        if isinstance(node, FUNCTIONS):
            function = node
        for field, value in ast.iter_fields(node):
            if function is not None and is_block(node, field, value):
                yield value, function
            children = value if isinstance(value, list) else [value]
            todo.extend((child, function) for child in children if isinstance(child, ast.AST))


def is_block(node, field, value):
    """Whether a field holds statements that are reached on their own, rather than with those around them."""
    if not (isinstance(value, list) and value and isinstance(value[0], ast.stmt)):
        return False
    return field == "orelse" or field == "body" and isinstance(node, FUNCTIONS + BRANCHES)


def is_docstring(statement):
    return (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            and isinstance(statement.value.value, str))


def last_line(statement):
    return getattr(statement, "end_lineno", None) or statement.lineno
