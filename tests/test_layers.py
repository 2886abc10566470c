"""Who may import whom, read from the files without importing anything.

The table is the rule; LAYOUT.md gives the reasons. A module that is not in the table is
a violation too, so that no file joins the package without a place in it.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

BASE = ("errors", "_compat", "_typing")

# Layer (file or folder of privjax/) -> what it may import of privjax, itself aside;
# from the bottom up. "core.markers" admits that module alone; "__init__" is the package
# itself, as in `import privjax` or `from privjax import FixedPoint`.
LAYERS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "_typing": (),
    "_compat": ("errors", "_typing"),
    "datasets": ("errors",),
    "accounting": ("errors",),
    "prg": BASE,
    "random": (*BASE, "prg"),
    "core": (*BASE, "prg"),
    "protocols": (*BASE, "prg", "core.markers"),
    "passes": (*BASE, "prg", "core", "protocols"),
    "runtimes": (*BASE, "prg", "core", "protocols"),
    "preprocessing": (*BASE, "prg", "core", "protocols", "runtimes"),
    "aggregation": (*BASE, "prg", "core", "protocols", "passes"),
}
LAYERS["transforms"] = tuple(LAYERS)
LAYERS["dp"] = tuple(LAYERS)
LAYERS["fl"] = tuple(LAYERS)
LAYERS["operators"] = tuple(LAYERS)
LAYERS["__init__"] = tuple(LAYERS)
_SURFACE = (
    "__init__",
    "errors",
    "random",
    "datasets",
    "transforms",
    "dp",
    "fl",
    "operators",
)
LAYERS["demo"] = _SURFACE
LAYERS["cli"] = (*_SURFACE, "demo")
LAYERS["__main__"] = ("cli",)

# Folders of protocols/ that serve every protocol. Every other one is a protocol, and no
# protocol imports another.
SHARED_BY_PROTOCOLS = ("functions",)

# Third-party modules that only some layers may import.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "flax": ("demo",),
    "optax": ("demo", "dp", "fl", "transforms"),
    "dp_accounting": ("accounting",),
    "cryptography": ("preprocessing", "aggregation"),
}

# Optional extras: imported inside the function that needs them, never at import.
OPTIONAL = ("matplotlib", "flwr", "nbclient", "nbformat", "ipykernel")

# Folders beside the package where only the ban on `jax._src` holds.
AROUND = ("tests", "examples", "notebooks", "benchmarks")


class Import(NamedTuple):
    name: str  # dotted, absolute: `from a.b import c` is "a.b.c"
    line: int
    in_function: bool
    for_types: bool  # under `if TYPE_CHECKING:`


def imports(tree: ast.Module, module: Sequence[str]) -> Iterator[Import]:
    """Every import statement of a file; `module` is the file's package, as parts."""

    def walk(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(alias.name, node.lineno, in_function, for_types)
            case ast.ImportFrom(module=source, names=names, level=level):
                base = [*module[: len(module) + 1 - level]] if level else []
                base += [source] if source else []
                for alias in names:
                    name = ".".join([*base, alias.name])
                    yield Import(name, node.lineno, in_function, for_types)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                in_function = True
            case ast.If(
                test=ast.Name("TYPE_CHECKING") | ast.Attribute(_, "TYPE_CHECKING")
            ):
                for_types = True
        for child in ast.iter_child_nodes(node):
            yield from walk(child, in_function, for_types)

    yield from walk(tree, False, False)


def within(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in prefixes)


def reaches_into_jax(tree: ast.Module, found: Sequence[Import]) -> Iterator[int]:
    """Lines that import or spell out `jax._src`."""
    yield from (i.line for i in found if within(i.name, ("jax._src", "jaxlib._src")))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "_src":
            yield node.lineno


def runs_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from runs_at_import(child)


def protocol_of(parts: Sequence[str]) -> str | None:
    """The protocol whose folder a module of the package is in, given without suffix."""
    match parts:
        case ["protocols", folder, _, *_] if folder not in SHARED_BY_PROTOCOLS:
            return folder
    return None


def internal_violation(parts: list[str], target: str, folders: set[str]) -> str | None:
    """Why a module, given by its parts below privjax/, may not import `target`."""
    layer = parts[0]
    public = target.split(".")[0] not in LAYERS
    mine, theirs = protocol_of(parts), protocol_of([*target.split("."), ""])
    if mine and theirs in folders and theirs != mine:
        return f"protocol {mine} imports protocol {theirs}"
    allowed = (layer, *LAYERS[layer])
    if not within("__init__" if public else target, allowed):
        return f"layer {layer} imports {target}"
    return None


def file_violations(path: Path, parts: list[str], folders: set[str]) -> Iterator[str]:
    """What is wrong with one file of the package, each with its line."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    package = ["privjax", *parts[:-1]]
    found = list(imports(tree, package))
    layer = parts[0]
    for line in reaches_into_jax(tree, found):
        yield f"{line}: jax._src"
    if layer not in LAYERS:
        yield "1: a module that has no row in LAYERS"
        return
    for name, line, in_function, for_types in found:
        top = name.split(".")[0]
        if top == "privjax":
            target = name.partition(".")[2] or "__init__"
            if reason := internal_violation(parts, target, folders):
                yield f"{line}: {reason}"
        if top in ONLY_IN and layer not in ONLY_IN[top]:
            yield f"{line}: layer {layer} imports {top}"
        if in_function and top not in OPTIONAL:
            yield f"{line}: {name} imported inside a function"
        if top in OPTIONAL and not in_function and not for_types:
            yield f"{line}: optional {top} imported at import of the module"
    for node in runs_at_import(tree):
        match node:
            case ast.Call(ast.Attribute(ast.Attribute(_, "config"), "update")):
                yield f"{node.lineno}: config.update at import"


def violations(root: Path) -> list[str]:
    """Everything wrong below `root`, as `path:line: reason`."""
    package = root / "privjax"
    folders = {p.name for p in (package / "protocols").glob("*") if p.is_dir()}
    folders -= {*SHARED_BY_PROTOCOLS}
    out = []
    for path in sorted(package.rglob("*.py")):
        parts = list(path.relative_to(package).with_suffix("").parts)
        for reason in file_violations(path, parts, folders):
            out.append(f"{path.relative_to(root).as_posix()}:{reason}")
    for path in (p for name in AROUND for p in sorted((root / name).rglob("*.py"))):
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        for line in reaches_into_jax(tree, list(imports(tree, []))):
            out.append(f"{path.relative_to(root).as_posix()}:{line}: jax._src")
    return out


def test_the_package_keeps_its_layers() -> None:
    assert violations(ROOT) == []


def test_the_table_has_no_cycle() -> None:
    """Every row names rows before it only, so no two layers can import each other."""
    rows = list(LAYERS)
    for position, allowed in enumerate(LAYERS.values()):
        assert {name.split(".")[0] for name in allowed} <= {*rows[:position]}


GOOD = {
    "prg/chacha.py": "import jax\nfrom privjax.errors import PrivacyError",
    "core/trace.py": "from privjax import _compat\nfrom privjax.prg import chacha",
    "core/__init__.py": "from . import trace\nfrom .trace import run",
    "protocols/ring.py": "from privjax.core.markers import open_",
    "protocols/__init__.py": "from privjax.protocols import semi2k, ring",
    "protocols/semi2k/kernels.py": "from ..ring import add\nfrom . import types",
    "protocols/semi2k/types.py": "from privjax.protocols.preprocessing import deal",
    "passes/dp.py": "from privjax.core import labels",
    "accounting/ledger.py": "import dp_accounting",
    "transforms.py": "from privjax.passes import dp\nimport optax",
    "demo.py": "import privjax, flax\ndef plot():\n    import matplotlib.pyplot",
    "cli.py": "from privjax import demo, __version__, federated",
    "__init__.py": "from privjax.transforms import federated",
    "runtimes/flower.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import flwr"
    ),
}

BAD = [
    ("core/x.py", "import jax\nfrom jax._src import core", "2: jax._src"),
    ("core/x.py", "import jax\njax._src.core.Trace", "2: jax._src"),
    ("errors.py", "import privjax.core", "1: layer errors imports core"),
    ("prg/x.py", "from privjax.core import a", "1: layer prg imports core.a"),
    (
        "core/x.py",
        "from ..protocols import ring",
        "1: layer core imports protocols.ring",
    ),
    ("core/x.py", "from privjax import FixedPoint", "1: layer core imports FixedPoint"),
    ("core/x.py", "import privjax", "1: layer core imports __init__"),
    ("protocols/x.py", "from privjax.core import rules", "imports core.rules"),
    ("protocols/x.py", "from privjax.core import *", "imports core.*"),
    ("protocols/x.py", "from privjax import passes", "imports passes"),
    (
        "protocols/spdz2k/x.py",
        "from privjax.protocols.semi2k import types",
        "1: protocol spdz2k imports protocol semi2k",
    ),
    (
        "protocols/spdz2k/x.py",
        "from .. import semi2k",
        "1: protocol spdz2k imports protocol semi2k",
    ),
    ("runtimes/x.py", "from privjax.passes import dp", "imports passes.dp"),
    ("accounting/x.py", "from privjax import _compat", "imports _compat"),
    ("datasets/x.py", "from privjax import prg", "imports prg"),
    ("core/x.py", "def f():\n    import numpy", "2: numpy imported inside a function"),
    (
        "core/x.py",
        "class A:\n    def f(self):\n        from os import path",
        "3: os.path",
    ),
    ("demo.py", "import matplotlib.pyplot", "1: optional matplotlib"),
    ("passes/x.py", "import flax.linen", "1: layer passes imports flax"),
    ("core/x.py", "from optax import sgd", "1: layer core imports optax"),
    ("runtimes/x.py", "from dp_accounting import pld", "imports dp_accounting"),
    (
        "core/x.py",
        "import jax\njax.config.update('a', 1)",
        "2: config.update at import",
    ),
    ("novelty.py", "x = 1", "1: a module that has no row"),
]


def seed(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / "privjax" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_accepts_what_the_rules_allow(tmp_path: Path) -> None:
    seed(tmp_path, GOOD)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(("name", "text", "reason"), BAD)
def test_finds_a_seeded_violation(
    tmp_path: Path, name: str, text: str, reason: str
) -> None:
    seed(tmp_path, {**GOOD, name: text})
    assert [reason in found for found in violations(tmp_path)] == [True]


@pytest.mark.parametrize("folder", AROUND)
def test_private_jax_is_found_around_the_package(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "x.py").write_text("import jax._src.core", encoding="utf-8")
    assert violations(tmp_path) == [f"{folder}/x.py:1: jax._src"]
