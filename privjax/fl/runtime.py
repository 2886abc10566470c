"""Where the clients of a simulated round run: `runtime=`.

=============  =======================================================================
"scan"         one client after the other; memory does not grow with the cohort
"vmap"         all clients at once
`Chunks(n)`    n clients at once, chunk after chunk
`Sharded(m)`   divided over the devices of a mesh, on each of them one of the above
"auto"         by backend and size, see `choose`
=============  =======================================================================

On CPU cores the matrix products of one client fill a core and a wide step falls out of
its caches, so clients run one after the other unless all of them together are small. An
accelerator wants many clients at once, as many as its memory has room for.

With several processes a round needs all of them. One that dies ends the others' round with
a `ProtocolError`: as soon as its connections break, or, where it hangs, after the time that
`jax.distributed.initialize(..., heartbeat_timeout_seconds=)` states (JAX then ends the
process itself). `fit` goes on from its checkpoint when all are started again.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from privjax._typing import PyTree
from privjax.errors import InputError, PrivacyError, ProtocolError
from privjax.passes.federated.client import SMALL

# The part of an accelerator's memory that the clients of a chunk may take together, and
# the bytes to reckon with where it does not tell.
_SHARE, _UNKNOWN = 0.25, 2**32


@dataclass(frozen=True)
class Chunks:
    """`size` clients at once, chunk after chunk."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"Chunks({self.size}): at least 1 client at a time.")


@dataclass(frozen=True)
class Sharded:
    """Clients divided over the devices along one axis of a mesh.

    Each device runs its own clients; what leaves it is what leaves the clients: sums by
    one `psum`. With several processes (`jax.distributed`), each feeds its own clients by
    `place` and the state by `everywhere`, and every process calls the round.

    Attributes:
      mesh: a `jax.sharding.Mesh`; its axes are taken as automatic ones (JAX's `Auto`).
      axis: the name of its axis.
      within: how a device runs its clients: "scan", "vmap", `Chunks` or "auto".
    """

    mesh: Mesh
    axis: str = "clients"
    within: Any = "auto"

    def __post_init__(self) -> None:
        if self.axis not in self.mesh.shape:
            raise InputError(
                f"the mesh has the axes {list(self.mesh.shape)}, not {self.axis!r}."
            )
        check(self.within, nested=True)
        # A round's other arrays know of no mesh; explicit axes would ask them to.
        mesh = Mesh(self.mesh.devices, self.mesh.axis_names)
        object.__setattr__(self, "mesh", mesh)

    def place(self, own: PyTree) -> PyTree:
        """A pytree of [clients, ...] with each client's part on its device.

        With several processes, `own` are the clients of this process, and the result is
        of all processes' clients, in the order of the processes. The number of clients
        must be a multiple of the devices.
        """
        sharding = NamedSharding(self.mesh, PartitionSpec(self.axis))
        if jax.process_count() == 1:
            return jax.device_put(own, sharding)
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)),
            own,
        )

    def everywhere(self, public: PyTree) -> PyTree:
        """A pytree of arrays, equal in all processes, on every device."""
        return jax.device_put(public, NamedSharding(self.mesh, PartitionSpec()))

    @property
    def devices(self) -> int:
        """How many parts the clients are divided into."""
        return int(self.mesh.shape[self.axis])


# What JAX's errors are about where another process is gone.
_GONE = re.compile(
    "gloo|nccl|mpi|collective|all-?reduce|coordination|heartbeat|connection|peer",
    re.IGNORECASE,
)


@contextlib.contextmanager
def others(runtime: Any) -> Iterator[None]:
    """Says so where a round failed because another process of the run is gone.

    Raises: ProtocolError.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        together = isinstance(runtime, Sharded) and jax.process_count() > 1
        known = isinstance(error, PrivacyError) or not _GONE.search(str(error))
        if not together or known:
            raise
        raise ProtocolError(
            f"process {jax.process_index()} of {jax.process_count()}: another process "
            "of this run has ended or cannot be reached, so that its clients' sums are "
            "missing. Start all of them again; `fit` goes on from its checkpoint. "
            f"({str(error).splitlines()[0][:200]})"
        ) from error


def check(runtime: Any, *, nested: bool = False) -> Any:
    """`runtime` itself. Raises InputError when it is none."""
    if runtime in ("auto", "scan", "vmap") or isinstance(runtime, Chunks):
        return runtime
    if isinstance(runtime, Sharded) and not nested:
        return runtime
    raise InputError(
        f"runtime={runtime!r}: choose 'auto', 'scan', 'vmap', Chunks(n)"
        + (")." if nested else " or Sharded(mesh).")
    )


def chunk_size(runtime: Any, clients: int, bytes_each: int) -> int:
    """How many clients run at once: 1 is a scan, `clients` a vmap."""
    if runtime == "scan":
        return 1
    if runtime == "vmap":
        return clients
    if isinstance(runtime, Chunks):
        return min(runtime.size, clients)
    return choose(clients, bytes_each)


def choose(clients: int, bytes_each: int) -> int:
    """How many of `clients` to run at once, each with so many bytes in and out."""
    if jax.default_backend() == "cpu":
        return clients if clients * bytes_each <= SMALL else 1
    # What a client computes in between is reckoned as four times what goes in and out.
    room = int(_SHARE * _memory() / max(1, 4 * bytes_each))
    return _divisor(clients, max(1, min(clients, room)))


def _divisor(clients: int, most: int) -> int:
    """A number of clients up to `most` that leaves no short last chunk, if one is near."""
    for size in range(most, most // 2, -1):
        if clients % size == 0:
            return size
    return most


def _memory() -> int:
    stats = jax.local_devices()[0].memory_stats() or {}
    return int(stats.get("bytes_limit", _UNKNOWN))


def describe(runtime: Any, chunk: int, clients: int) -> str:
    """In words, for reports."""
    how = {1: "one after the other", clients: "all at once"}
    words = how.get(chunk, f"{chunk} at a time")
    if isinstance(runtime, Sharded):
        return f"{runtime.devices} devices, on each of them {words}"
    return f"one device, {words}"


def bytes_of(avals: Any) -> int:
    """Bytes of arrays of these types."""
    return sum(
        int(np.prod(a.shape, dtype=np.int64)) * getattr(a.dtype, "itemsize", 4)
        for a in avals
    )
