"""Updates of a few bits (`quantised`) as messages between a client and the server."""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax.aggregation.messages import Message, finite, need, typed
from privjax.aggregation.quantised import Quanta, Quantised
from privjax.prg.keys import key as random_key
from privjax.prg.keys import key_words


def common(context: bytes) -> Any:
    """uint32[8], the same at all parties of a round and no secret: for the rotation."""
    return jnp.asarray(np.frombuffer(hashlib.sha256(context).digest(), "<u4"))


def few_bits(method: Quantised, parts: Sequence[Any], context: bytes) -> Message:
    """A client's update as its message."""
    own = jnp.asarray(key_words(random_key()))
    values = [jnp.asarray(x) for x in parts]
    sent = _sent(method, own, values, common(context))
    return {
        "bits": method.packed(sent.whole),
        "scale": np.asarray(sent.step),
        "alone": np.asarray(sent.alone),
    }


@functools.partial(jax.jit, static_argnums=0)
def _sent(method: Quantised, own: Any, xs: Sequence[Any], public: Any) -> Quanta:
    return method.sent(own, xs, public)


def quanta(method: Quantised, reply: Message, types: Sequence[Any]) -> Quanta:
    """A client's message, checked."""
    sizes = [int(np.prod(x.shape, dtype=np.int64)) for x in types]
    alone = sizes.count(1)
    wanted = [jax.ShapeDtypeStruct(s, np.float32) for s in ((), (alone,))]
    found = [need(reply, "scale"), need(reply, "alone")]
    step, rest = finite(typed(found, wanted))
    whole = method.unpacked(need(reply, "bits"), sum(sizes) - alone)
    return Quanta(jnp.asarray(whole), jnp.asarray(step), jnp.asarray(rest))
