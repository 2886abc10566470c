"""Every public function of jax.numpy, jax.lax, jax.nn and jax.scipy.special on secrets.

Each is called with the first of a list of ordinary arguments with which plain JAX runs it
under jit; then secret-shared with the protocol `reference` (whose numbers are those of
every protocol up to the rounding of truncation). Loops until a secret converges get
`max_steps`. Counted: passes, refusals with the reason, wrong results and crashes.

    python -m benchmarks.sweep [--only NAME] [--more] [--json FILE]
"""

import argparse
import functools
import inspect
import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np
from jax import lax

import privjax
from benchmarks.sweep_calls import ARGUMENTS, COARSE, OWN, WITHOUT_ARRAYS

MODULES = {
    "numpy": jnp,
    "linalg": jnp.linalg,
    "fft": jnp.fft,
    "lax": lax,
    "nn": jax.nn,
    "special": jax.scipy.special,
}
ROOT = str(Path(__file__).resolve().parent.parent) + "/"
MAX_STEPS = 64
TOLERANCE = 2e-3  # relative to 1 + |result|

PASS, STEPS, REFUSED = "pass", "pass with max_steps", "refused"
WRONG, CRASH, NO_CALL = "wrong", "crash", "not run by plain JAX"
PASSES = (PASS, STEPS)


def functions(modules: dict[str, Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """(module.name, function) of all that takes arrays."""
    for prefix, module in modules.items():
        for name in sorted(vars(module)):
            fun = getattr(module, name)
            if name.startswith("_") or name in WITHOUT_ARRAYS or not callable(fun):
                continue
            if inspect.isclass(fun) or inspect.ismodule(fun) or name.endswith("_p"):
                continue
            yield f"{prefix}.{name}", fun


def ordinary(name: str, fun: Callable[..., Any]) -> tuple[Any, Any, Any] | None:
    """(function of secrets, secrets, plain result) of the first call that works."""
    own = OWN.get(name, OWN.get(name.split(".")[-1]))
    calls: Any = [own] if own else _calls(fun)
    for call, secrets in calls:
        try:
            result = jax.jit(call)(*secrets)
        except Exception:  # these arguments do not fit: whatever the reason
            continue
        leaves = jax.tree.leaves(result)
        if leaves and all(np.all(np.isfinite(np.asarray(x))) for x in leaves):
            return call, secrets, result
    return None


def _calls(fun: Callable[..., Any]) -> Iterator[tuple[Callable[..., Any], Any]]:
    for secrets, public in ARGUMENTS:
        yield functools.partial(_call, fun, public), secrets


def _call(fun: Callable[..., Any], public: Any, *secrets: Any) -> Any:
    return fun(*secrets, *public)


def outcome(name: str, call: Any, secrets: Any, want: Any) -> tuple[str, str]:
    """(what became of it, details)"""
    kind, details = _try(name, call, secrets, want)
    if kind == REFUSED and "max_steps" in details:
        kind, details = _try(name, call, secrets, want, max_steps=MAX_STEPS)
        kind = STEPS if kind == PASS else kind
    return kind, details.replace(ROOT, "")


def _try(name: str, call: Any, secrets: Any, want: Any, **more: Any) -> tuple[str, str]:
    try:
        with warnings.catch_warnings(record=True) as warned:
            got = privjax.secret_shared(call, protocol="reference", **more)(*secrets)
    except privjax.PrivacyError as error:
        return REFUSED, str(error)
    except Exception as error:  # what the sweep is there to find
        return CRASH, f"{type(error).__name__}: {error}"[:300]
    worst = 0.0
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return WRONG, f"{a.dtype}{a.shape}, not {b.dtype}{b.shape}"
        a, b = (np.asarray(v).astype(np.complex128) for v in (a, b))
        worst = max(worst, float(np.max(np.abs(a - b) / (1 + np.abs(b)), initial=0)))
    if worst < COARSE.get(name, TOLERANCE):
        return PASS, ""
    said = [str(w.message) for w in warned if w.category is privjax.RangeWarning]
    return WRONG, "; ".join([f"off by {worst:.3g}", *said])


def summary(found: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Counts by module, and how many pass of those that plain JAX runs."""
    modules: dict[str, Counter[str]] = {}
    for name, (kind, _) in found.items():
        modules.setdefault(name.rpartition(".")[0], Counter())[kind] += 1
    total = sum(modules.values(), Counter[str]())
    ran = sum(total.values()) - total[NO_CALL]
    passed = sum(total[kind] for kind in PASSES)
    return {
        "modules": {name: dict(counts) for name, counts in modules.items()},
        "passed": passed,
        "ran": ran,
        "percent": round(100 * passed / max(ran, 1), 1),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="functions whose name contains this")
    parser.add_argument("--json", type=Path, help="write the outcomes here")
    options = parser.parse_args(argv)
    warnings.simplefilter("always", privjax.RangeWarning)
    found: dict[str, tuple[str, str]] = {}
    for name, fun in functions(MODULES):
        if options.only and options.only not in name:
            continue
        case = ordinary(name, fun)
        found[name] = (NO_CALL, "") if case is None else outcome(name, *case)
        if found[name][0] != PASS:
            print(name, *found[name], sep=": ", flush=True)
    counts = summary(found)
    for module, kinds in counts["modules"].items():
        print(f"{module}: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items()))
    print(f"{counts['passed']} of {counts['ran']} pass: {counts['percent']} %")
    if options.json:
        said = {n: ": ".join(filter(None, outcome)) for n, outcome in found.items()}
        result = {"jax": jax.__version__, **counts, "functions": said}
        options.json.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
