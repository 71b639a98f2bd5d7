"""No code of ours reads or writes a pickle, nor anything that hides one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import clearmargin

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {("torch", "load"), ("torch", "save"), ("pd", "read_pickle"), ("jit", "load")}
METHODS = {"to_pickle", "read_pickle"}


def pickles(code: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Import(names=names):
                found += [name.name for name in names if name.name.partition(".")[0] in MODULES]
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in MODULES:
                found.append(module)
            case ast.ImportFrom(module="torch", names=names):
                found += [f"torch.{name.name}" for name in names if name.name in ("load", "save")]
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if (owner, name) in CALLS:
                found.append(f"{owner}.{name}")
            case ast.Attribute(attr=name) if name in METHODS:
                found.append(name)
            case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                found.append("allow_pickle=True")
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import joblib as j",
        "from pickle import loads",
        "from torch import load",
        "torch.load(path, weights_only=True)",
        "torch.save(model, path)",
        "frame.to_pickle(path)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_search_finds_them(code: str) -> None:
    assert pickles(code)


def test_there_are_none() -> None:
    root = Path(clearmargin.__file__).parent
    files = sorted(root.rglob("*.py"))
    assert len(files) > 40
    assert {str(file.relative_to(root)): found for file in files if (found := pickles(file.read_text("utf-8")))} == {}
