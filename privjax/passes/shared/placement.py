"""Where arrays live: hints that change no value, and what may not be split."""

from typing import Any

from privjax.core.interpret import Rule
from privjax.errors import UnsupportedError


def same(cx: Any, *values: Any, **_: Any) -> Any:
    """The identity on secrets."""
    return list(values) if cx.eqn.primitive.multiple_results else values[0]


def shard_map(cx: Any, *values: Any, **_: Any) -> Any:
    """Refused: every device would draw the same masks for its own slice."""
    raise UnsupportedError(
        f"`shard_map` on secrets{cx.where()}: its devices would mask different slices "
        "alike. Write the whole array's program and let jax.jit place it (shardings of "
        "the arguments), or put shard_map around the secret-shared function, with one "
        "key per device."
    )


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "stop_gradient",
            "name",
            "sharding_constraint",
            "layout_constraint",
            "reshard",
            "device_put",
            "shard_alike",
            "optimization_barrier",
            "xla_metadata_value",
            "tie",
            "pvary",
            "dce_sink",
        ),
        same,
    ),
    "shard_map": shard_map,
}
