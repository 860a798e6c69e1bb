"""Which keys of the resource the packages' code reads: by the types of the objects that it reads them from, and by the
paths that it goes in a raw body.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import get_annotations
from pathlib import Path
from typing import Final

from mypy import build
from mypy.main import process_options
from mypy.nodes import Expression, MemberExpr, NameExpr
from mypy.types import Instance, Type, UnionType, get_proper_type
from pydantic import BaseModel

from swapstats_core import spec

ROOT: Final = Path(__file__).parents[2]
_MODEL: Final = spec.__name__


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the model: its path in a file, and the class and the field that must be read for it."""

    path: str
    owner: str
    field: str


@dataclass(frozen=True, slots=True)
class Reads:
    """What is read: (class, field) of the model, and paths of raw bodies as in ``spec.deletionPolicy``."""

    fields: frozenset[tuple[str, str]]
    paths: frozenset[str]

    def __contains__(self, key: Key) -> bool:
        return (key.owner, key.field) in self.fields or key.path in self.paths


def keys(model: type[BaseModel], path: str = "spec") -> Iterator[Key]:
    """All keys of a model."""
    for name, field in model.model_fields.items():
        part: object = field.annotation
        key = Key(f"{path}.{field.alias or name}", _declaring(model, name), name)
        yield key
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield from keys(part, key.path)


def _declaring(model: type[BaseModel], name: str) -> str:
    return next(base.__name__ for base in model.__mro__ if name in get_annotations(base))


def reads() -> Reads:
    """Everything that the packages read. The model's validators read for nobody, and its properties for those who read
    them.
    """
    folders = sorted(str(path) for path in ROOT.glob("*/src"))
    # Without the libraries, of which nothing is asked, it takes seconds.
    files, options = process_options(["--no-incremental", "--follow-imports=skip", "--cache-dir=/dev/null", *folders])
    options.export_types = True
    result = build.build(files, options)
    assert len(result.graph) > 100
    outside, by_property = set(), []
    for node in result.types:
        if not isinstance(node, MemberExpr):
            continue
        found = {(owner, node.name) for owner in _models(result.types.get(node.expr))}
        root = _root(node)
        if not (isinstance(root, NameExpr) and root.name == "self" and set(_models(result.types.get(root)))):
            outside |= found
        elif (reader := _property_at(node.line)) is not None:
            by_property.append((reader, found))
    for reader, found in by_property:
        if reader in outside:
            outside |= found
    return Reads(frozenset(outside), frozenset(_raw_paths()))


def _root(node: Expression) -> Expression:
    """What ``a.b.c`` begins with."""
    while isinstance(node, MemberExpr):
        node = node.expr
    return node


def _models(kind: Type | None) -> Iterator[str]:
    """The model's classes among what an expression may be."""
    proper = get_proper_type(kind)
    for item in proper.items if isinstance(proper, UnionType) else [proper]:
        instance = get_proper_type(item)
        if isinstance(instance, Instance):
            yield from (base.name for base in instance.type.mro if base.module_name == _MODEL)


def _property_at(line: int) -> tuple[str, str] | None:
    """The property of the model, with its class, that has this line."""
    classes = [node for node in ast.parse(Path(spec.__file__).read_text()).body if isinstance(node, ast.ClassDef)]
    for of_class in classes:
        for node in of_class.body:
            if isinstance(node, ast.FunctionDef) and node.lineno <= line <= (node.end_lineno or node.lineno):
                is_property = any(ast.unparse(each) == "property" for each in node.decorator_list)
                return (of_class.name, node.name) if is_property else None
    return None


def _raw_paths() -> Iterator[str]:
    """``body["spec"]["api"].get("resources")`` is ``spec.api.resources``."""
    for path in ROOT.glob("*/src/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            steps = tuple(_steps(node))
            if "spec" in steps:
                yield ".".join(steps[steps.index("spec") :])


def _steps(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Subscript(value=holder, slice=ast.Constant(value=str(step)), ctx=ast.Load()):
            yield from (*_steps(holder), step)
        case ast.Call(func=ast.Attribute(value=holder, attr="get"), args=[ast.Constant(value=str(step)), *_]):
            yield from (*_steps(holder), step)
        case _:
            return
