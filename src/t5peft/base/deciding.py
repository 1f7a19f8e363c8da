"""Deciding code: the digest of every definition that a training calls.

A definition counts by its syntax tree, without comments, docstrings, annotations and layout. In it

    a name of this project   stands for the definition that it names, which counts too, and a
                             constant for its value: to move, to split and to rename change nothing
    a third-party name       stands for its dotted name, whatever it was imported as
    a variable               stands for its place among the definition's; a parameter keeps its
                             name, as a caller may give it by that

Names are resolved by Python's scopes (Language Reference, 4.2.2). What is said to the user is left
out, the texts of exceptions too. What only a string names is not followed.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from t5peft.base import files, paths
from t5peft.base.errors import InputError

PACKAGE = "t5peft"
FOLDER = Path(__file__).parents[1]

TRAINING = (
    "training.jobs.prepare",
    "training.checkpoint.restore",
    "training.loop.epochs",
    "methods.table.Run",
)
"""Where the code that makes a run begins; a `Run` is only handed to it."""


def of_ours(*names: str) -> set[str]:
    """Modules and definitions of this project."""
    return {f"{PACKAGE}.{name}" for name in names}


KEPT = of_ours(
    "base.errors", "base.files", "base.machine", "base.paths", "base.deciding", "inputs.hub"
)
KEPT |= of_ours("training.trace", "runs.store")
"""How things are found and stored: what is given to these counts, they do not."""

SAID = {"print", "warnings.warn"} | of_ours("base.progress")
SAID |= of_ours("base.deciding.digest", "inputs.data.fingerprint", "inputs.tokenizers.fingerprint")
"""What speaks to the user or tells versions apart: left out, and a statement of it alone whole."""

IGNORED = {"annotation", "returns", "ctx", "kind", "simple", "type_comment", "type_params"}
"""Fields of a syntax tree that change nothing, or that an older Python does not have."""

ORDER = {"value": 0, "iter": 0, "name": 2}
"""Fields that Python evaluates before the others, which count 1, or binds after them."""

WITHIN = {"body", "elt", "key", "value", "generators"}
"""Fields that belong to the scope that a node opens."""

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
Import = ast.Import | ast.ImportFrom
Binding = Named | ast.Assign | ast.AnnAssign | ast.AugAssign | Import
Literal = ast.Constant | ast.Tuple | ast.List | ast.Dict | ast.Set | ast.UnaryOp
Literal |= ast.unaryop | ast.expr_context


class Definition(NamedTuple):
    """A function, class or constant that counts."""

    name: str  # lora.LoRALinear
    place: str  # lora.py:30
    digest: str  # of its own tree and the names of what it calls: tells which one has changed


class Code(NamedTuple):
    """Some definitions and all that they name."""

    digest: str  # SHA-256
    definitions: tuple[Definition, ...]


class Meaning(NamedTuple):
    """What a dotted name stands for."""

    kind: str  # ours, kept, said, outside or variable
    what: Any  # (module, name) of ours, else a text
    attributes: tuple[str, ...] = ()  # what is left of the dotted name


@dataclass
class Scope:
    """The names of a function, class or comprehension; a module's own are not in it."""

    module: str
    names: dict[str, str] = field(default_factory=dict)  # what each stands for; "": the module's
    imports: dict[str, str] = field(default_factory=dict)  # the dotted name that each stands for
    outer: Scope | None = None
    is_class: bool = False

    def holder(self, name: str) -> Scope | None:
        """The scope whose name this is, as it is seen from here; None: the module's or Python's."""
        here: Scope | None = self
        while here and (name not in here.names or (here.is_class and here is not self)):
            here = here.outer
        return here if here and here.names[name] else None


@cache
def code(entries: tuple[str, ...] = TRAINING) -> Code:
    """The entries and all that they call: read once, then remembered until the source changes."""
    state = hashlib.sha256(f"{entries} {sources(FOLDER)}".encode()).hexdigest()
    memo = paths.cache() / "code" / f"{state[:16]}.json"
    try:
        total, found = json.loads(memo.read_text())
        return Code(total, tuple(Definition(*each) for each in found))
    except (OSError, ValueError, TypeError):  # none yet, or damaged
        found = Reader(FOLDER).read(entries)
        with suppress(InputError):  # where nothing can be written, nothing is remembered
            files.write_json(memo, found)
        return found


@cache
def sources(folder: Path) -> str:
    """SHA-256 of all source files as they are when this process first asks."""
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        state.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return state.hexdigest()


def digest(*entries: str) -> str:
    """The digest of `code`."""
    return code(entries).digest


class Reader:
    """Follows names from definition to definition through the modules of a package."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, Path] = {}
        for path in folder.rglob("*.py"):
            parts = [PACKAGE, *path.relative_to(folder).with_suffix("").parts]
            self.files[".".join(parts).removesuffix(".__init__")] = path
        self.modules: dict[str, dict[str, list[ast.stmt]]] = {}
        self.met: list[tuple[str, str]] = []  # (module, name) in the order in which they are met
        self.constants: dict[tuple[str, str], str] = {}
        self.calls: list[int] = []  # of the present definition: places in `met` of what it names,
        self.variables: dict[str, str] = {}  # and the places of its variables

    def read(self, entries: Iterable[str]) -> Code:
        """Every definition that counts, each once."""
        for entry in entries:
            self.meet(*f"{PACKAGE}.{entry}".rsplit(".", 1))
        total, found = hashlib.sha256(), []
        for module, name in self.met:  # it grows meanwhile
            self.calls, self.variables = [], {}
            bound = self.module(module)[name]
            text = repr([self.tree(value_of(x, name) or x, Scope(module)) for x in bound])
            total.update(f"{text} {self.calls}\n".encode())
            called = [self.met[at][1] for at in self.calls]
            found.append(self.described(module, name, f"{text} {called}"))
        found += [self.described(*key, text) for key, text in self.constants.items()]
        return Code(total.hexdigest(), tuple(found))

    def described(self, module: str, name: str, text: str) -> Definition:
        """A definition as a person looks for it."""
        short = f"{module}.{name or '(import)'}".removeprefix(f"{PACKAGE}.")
        line = self.module(module)[name][0].lineno
        place = f"{self.files[module].relative_to(self.folder)}:{line}"
        return Definition(short, place, hashlib.sha256(text.encode()).hexdigest()[:8])

    def module(self, name: str) -> dict[str, list[ast.stmt]]:
        """A module's statements by what they bind; "": those that do more than bind, "*": all."""
        if name not in self.modules:
            body = ast.parse(self.files[name].read_bytes()).body
            found = self.modules[name] = {"*": [*body]}
            for statement in body:
                bound = {name for name, _ in bindings([statement])}
                if not bound or not isinstance(statement, Binding):
                    bound |= set() if is_idle(statement) else {""}
                for each in bound:
                    found.setdefault(each, []).append(statement)
        return self.modules[name]

    def meet(self, module: str, name: str) -> None:
        """The present definition names another, with which comes what its import does besides."""
        parts = module.split(".")
        around = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
        besides = [(x, "") for x in around if x in self.files and "" in self.module(x)]
        for each in ((module, name), *besides):
            if each not in self.met:
                self.met.append(each)
        self.calls.append(self.met.index((module, name)))

    # --- names ---------------------------------------------------------------------------------

    def meaning(self, node: ast.AST | None, scope: Scope) -> Meaning | None:
        """What a name, or a dotted one, stands for; None for any other expression."""
        attributes: tuple[str, ...] = ()
        while isinstance(node, ast.Attribute):
            node, attributes = node.value, (node.attr, *attributes)
        if not isinstance(node, ast.Name):
            return None
        holder = scope.holder(node.id)
        if holder is None:
            return self.in_module(scope.module, node.id, attributes)
        if node.id in holder.imports:
            return self.imported(holder.imports[node.id], scope.module, attributes)
        label = holder.names[node.id]
        return Meaning("said" if label == "said" else "variable", label, attributes)

    def in_module(self, module: str, name: str, attributes: tuple[str, ...]) -> Meaning:
        """What a module's name stands for."""
        for kind, listed in (("said", SAID), ("kept", KEPT)):
            if {module, f"{module}.{name}"} & listed:
                return Meaning(kind, kind, attributes)
        bound = self.module(module).get(name)
        if not bound:
            return outside(name, *attributes)  # Python's own
        if isinstance(bound[-1], Import):
            return self.imported(imports(bound[-1])[name], module, attributes)
        return Meaning("ours", (module, name), attributes)

    def imported(self, dotted: str, module: str, attributes: tuple[str, ...]) -> Meaning:
        """What a name stands for that a module imports; leading dots as in its statement."""
        base = module.split(".") + ["__init__"] * (self.files[module].name == "__init__.py")
        level = len(dotted) - len(dotted.lstrip("."))
        parts = [*(base[:-level] if level else []), *dotted[level:].split("."), *attributes]
        for length in range(len(parts), 0, -1):
            if (module := ".".join(parts[:length])) in self.files:
                name, *rest = parts[length:] or ["*"]  # a module as a value: all that is in it
                return self.in_module(module, name, tuple(rest))
        return outside(*parts)

    def inside(self, node: ast.AST, scope: Scope) -> Scope:
        """The scope of a function, class or comprehension; that outside for other nodes."""
        if isinstance(node, ast.ClassDef):  # its names are there once they are bound
            return Scope(scope.module, outer=scope, is_class=True)
        if not isinstance(node, Function | Comprehension):
            return scope
        inner, bound = Scope(scope.module, outer=scope), {}
        if isinstance(node, Function):
            given = [x.arg for x in ast.iter_child_nodes(node.args) if isinstance(x, ast.arg)]
            inner.names |= {name: f":{name}" for name in given}
            body = node.body if isinstance(node.body, list) else [node.body]
        else:
            body = [each.target for each in node.generators]
        for name, by in bindings(body):
            if name not in inner.names:
                bound.setdefault(name, []).append(by)
        for name, by in bound.items():
            if not isinstance(by[0], ast.Nonlocal):
                inner.names[name] = "" if isinstance(by[0], ast.Global) else "variable"
            if isinstance(by[0], Import) and len(by) == 1:
                inner.imports[name] = imports(by[0])[name]
        for name, by in bound.items():
            if all(self.speaks(getattr(each, "value", None), inner) for each in by):
                inner.names[name] = "said"
            elif inner.names.get(name) == "variable" and name not in inner.imports:
                inner.names[name] = self.variables.setdefault(name, f"{len(self.variables)}")
        return inner

    def speaks(self, node: ast.AST | None, scope: Scope) -> bool:
        """Is this a call of something that speaks to the user?"""
        called = self.meaning(node.func, scope) if isinstance(node, ast.Call) else None
        return called is not None and called.kind == "said"

    # --- trees ---------------------------------------------------------------------------------

    def tree(self, node: Any, scope: Scope) -> Any:
        """A syntax tree as plain lists, its names as what they stand for."""
        if isinstance(node, list):
            return [self.tree(each, scope) for each in self.counting(node, scope)]
        if isinstance(node, ast.AnnAssign) and node.value and not scope.is_class:
            node = ast.Assign([node.target], node.value)
        if isinstance(node, ast.Constant) or not isinstance(node, ast.AST):
            return repr(getattr(node, "value", node))
        if isinstance(node, Import):
            found = [self.imported(x, scope.module, ()) for x in imports(node).values()]
            return ["Import", *map(self.stand_in, found)]
        if isinstance(node, ast.Raise):
            raised = self.meaning(getattr(node.exc, "func", node.exc), scope)
            theirs = raised and raised.kind in ("outside", "variable")
            return ["Raise", raised.what if raised and theirs else node.exc is not None]
        if isinstance(node, ast.Name) and scope.is_class and not isinstance(node.ctx, ast.Load):
            return self.bound(node.id, scope)
        if isinstance(node, ast.Name | ast.Attribute) and (meaning := self.meaning(node, scope)):
            found = self.stand_in(meaning)
            return [found, *meaning.attributes] if meaning.attributes else found
        inner = self.inside(node, scope)
        found: list[Any] = [type(node).__name__]
        if isinstance(node, Comprehension):  # its first iterable belongs to the scope outside
            found.append(self.tree(node.generators[0].iter, scope))
        fields = ast.iter_fields(node)
        for name, value in sorted(fields, key=lambda each: ORDER.get(each[0], 1)):
            if name == "name":
                found.append(value and self.bound(value, scope))
            elif name not in IGNORED and value is not None and value != []:
                found.append([name, self.tree(value, inner if name in WITHIN else scope)])
        return found

    def bound(self, name: str, scope: Scope) -> str:
        """What stands for a name where it is bound; in a class it is an attribute from here on."""
        if scope.is_class:
            scope.names[name] = f".{name}"
        return scope.names.get(name, "")

    def stand_in(self, meaning: Meaning) -> Any:
        """What stands for a name: the value of a constant, else a star for what is met."""
        if meaning.kind != "ours":
            return [meaning.kind, meaning.what]
        module, name = meaning.what
        bound = self.module(module)[name]
        value = value_of(bound[0], name) if len(bound) == 1 else None
        if value is not None and all(isinstance(each, Literal) for each in ast.walk(value)):
            found = self.tree(value, Scope(module))
            self.constants[module, name] = repr(found)
            return found
        self.meet(module, name)
        return "*"

    def counting(self, nodes: Iterable[Any], scope: Scope) -> Iterator[Any]:
        """What decides something among statements; what goes on while something is said does."""
        for node in nodes:
            if isinstance(node, ast.With):
                items = [x for x in node.items if not self.speaks(x.context_expr, scope)]
                whole = [ast.With(items, node.body)]
                yield from whole if items else self.counting(node.body, scope)
            elif not self.is_silent(node, scope):
                yield node

    def is_silent(self, node: Any, scope: Scope) -> bool:
        """Is this a statement that decides nothing?"""
        match node:
            case ast.Global() | ast.Nonlocal():
                return True
            case ast.Import() | ast.ImportFrom():
                return imports(node).keys() <= scope.imports.keys()
            case ast.AnnAssign(value=None):
                return not scope.is_class
            case ast.Expr():
                return is_idle(node) or self.speaks(node.value, scope)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                return scope.names.get(name) == "said"
        return False


# --- syntax ------------------------------------------------------------------------------------


def outside(*parts: str) -> Meaning:
    """What another package, or Python itself, calls so."""
    name = ".".join(parts)
    return Meaning("said", "said") if name in SAID else Meaning("outside", name)


def is_idle(node: ast.AST) -> bool:
    """Is this a docstring, another text that stands alone, or a block for type checkers?"""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    held = node.value if isinstance(node, ast.Expr) else None
    return isinstance(held, ast.Constant) and isinstance(held.value, str)


def value_of(statement: ast.stmt, name: str) -> ast.expr | None:
    """What a plain assignment gives a name; None for any other statement."""
    match statement:
        case ast.Assign(targets=[ast.Name()]) | ast.AnnAssign(target=ast.Name()):
            return statement.value
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
            pairs = zip(names, values, strict=False) if len(names) == len(values) else ()
            return next((held for x, held in pairs if getattr(x, "id", "") == name), None)
    return None


def imports(statement: Import) -> dict[str, str]:
    """The dotted names that a statement imports, by the names that it gives them."""
    found = {}
    for alias in statement.names:
        if isinstance(statement, ast.ImportFrom):
            base = "." * statement.level + f"{statement.module}." * bool(statement.module)
            found[alias.asname or alias.name] = base + alias.name
        else:
            first = alias.name.partition(".")[0]
            found[alias.asname or first] = alias.name if alias.asname else first
    return found


def bindings(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, Any]]:
    """The names that statements bind in their own scope, each with what binds it."""
    todo = [*nodes][::-1]
    while todo:
        node = todo.pop()
        within: Iterable[Any] = ast.iter_child_nodes(node)
        match node:
            case ast.Name():
                within = ()
                if not isinstance(node.ctx, ast.Load):
                    yield node.id, node
            case ast.expr_context() | ast.Attribute() | ast.Call() | ast.Constant():
                pass  # most nodes, which bind nothing
            case ast.Import() | ast.ImportFrom():
                yield from ((name, node) for name in imports(node))
                within = ()
            case ast.Global() | ast.Nonlocal():
                yield from ((name, node) for name in node.names)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name, node
                within = [node.value] if node.value else ()
            case ast.withitem(optional_vars=ast.Name(id=name) as target):
                yield name, ast.Assign([target], node.context_expr)
                within = [node.context_expr]
            case ast.Lambda():
                within = ()
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                within = [each.target for each in ast.walk(node) if isinstance(each, ast.NamedExpr)]
            case ast.AST(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield name, node  # a function, class, exception or pattern
                within = () if isinstance(node, Named) else within
        todo += [*within][::-1]
