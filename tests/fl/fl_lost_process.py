"""One of two processes that train together: `fl_lost_process.py FOLDER PROCESS PORT DIES`.

Where DIES is 1, process 1 kills itself after round 3, and process 0 has to find out.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import fl_device_process as program
import jax
import jax.numpy as jnp
import numpy as np

from privjax import fl
from privjax.errors import ProtocolError
from privjax.prg import insecure_key

ROUNDS, HEARTBEAT = 6, 20


def fit(algorithm: fl.Algorithm, folder: Path | None, die: bool) -> Any:
    sharded = algorithm.runtime
    rows = np.arange(program.CLIENTS * program.EXAMPLES)
    flat = program.X.reshape(-1, 3), program.Y.reshape(-1)
    data = fl.ClientData(flat, rows.reshape(program.CLIENTS, -1))

    def last(report: fl.Report) -> None:
        if die and report.round == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    return fl.fit(
        algorithm,
        sharded.everywhere(algorithm.init(jnp.zeros(3), program.CLIENTS)),
        data,
        sampler=fl.FixedSize(program.CLIENTS, 6),
        rounds=ROUNDS,
        every=1,
        checkpoints=folder,
        callbacks=[last],
        progress=False,
        key=insecure_key(0),
    )


def main() -> None:
    folder, process, dies = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[4] == "1"
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    address = f"127.0.0.1:{sys.argv[3]}"
    jax.distributed.initialize(address, 2, process, heartbeat_timeout_seconds=HEARTBEAT)
    sharded = fl.Sharded(jax.make_mesh((2,), ("clients",)))
    own = folder / f"process{process}"
    algorithm = program.ALGORITHMS["fedadam"](runtime=sharded)
    try:
        found = fit(algorithm, own, dies and process == 1)
    except ProtocolError as error:
        print(f"{time.time()} {error}", flush=True)
        # JAX would wait for the other one before it ends.
        os._exit(3)
    whole = fit(algorithm, None, False)
    out = {"resumed": found.state.params, "whole": whole.state.params}
    rows = {"rounds": [row["round"] for row in found.history]}
    np.savez(folder / f"result{process}.npz", **out, **rows)


if __name__ == "__main__":
    main()
