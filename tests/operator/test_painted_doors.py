"""Every key of the resource is read by some process: a key that does nothing is a lie."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from swapstats_core.spec import SwapStatsSpec

ROOT = Path(__file__).parents[2]
MODEL = "spec.py"


def keys(model: type[BaseModel], path: str = "spec") -> Iterator[tuple[str, str]]:
    """Each key's path as in a file, and its name in Python."""
    for name, field in model.model_fields.items():
        here = f"{path}.{field.alias or name}"
        part: object = field.annotation
        yield here, name
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield from keys(part, here)


def read_names() -> set[str]:
    """All attributes that the packages' modules read, and the keys that they get from a raw body; of the model's own
    module, those of its properties.
    """
    modules = list(ROOT.glob("*/src/**/*.py"))
    assert len(modules) > 100
    trees: list[ast.AST] = []
    for path in modules:
        tree = ast.parse(path.read_text())
        trees += [node for node in ast.walk(tree) if _is_property(node)] if path.name == MODEL else [tree]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    return attributes | {
        str(node.args[0].value)
        for node in nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "get"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }


def _is_property(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and any(ast.unparse(each) == "property" for each in node.decorator_list)


READ = read_names()


@pytest.mark.parametrize(("path", "name"), list(keys(SwapStatsSpec)))
def test_a_key_is_read(path: str, name: str) -> None:
    assert {name, path.rpartition(".")[2]} & READ, f"{path}: nothing reads it; let a process use it, or take it out"
