"""Two processes on loopback give the simulation's outputs bit for bit."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from fast import secret_shared
from two_party_process import FORMATS, arguments, program, shared

from privjax.errors import PreprocessingError
from privjax.prg.keys import insecure_key
from privjax.runtimes import material
from privjax.runtimes.material import Store


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize("protocol", FORMATS)
def test_two_processes_equal_the_simulation(tmp_path, protocol):
    fun = shared(protocol)
    args = arguments()
    specs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in args]
    fun.deal(*specs, directory=tmp_path, key=insecure_key(7))
    with np.load(tmp_path / "party0" / "000000.npz") as file:
        session = json.loads(file["meta"].tobytes())["session"]
    script = Path(__file__).parent / "two_party_process.py"
    port = str(free_port())
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    parties = [
        subprocess.Popen(
            [sys.executable, str(script), str(i), port, str(tmp_path), protocol],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            text=True,
        )
        for i in range(2)
    ]
    logs = [p.communicate(timeout=300)[0] for p in parties]
    assert [p.returncode for p in parties] == [0, 0], "\n".join(logs)

    compiled = fun.compiled(*args)
    with jax.enable_x64(True):
        root = fun.session_key(insecure_key(7), [], fun._digest(compiled))
        simulated = compiled.run(material.session_words(root, session), *args)
    for i in range(2):
        with np.load(tmp_path / f"result{i}.npz") as out:
            np.testing.assert_array_equal(out["w"], simulated[0])
            np.testing.assert_array_equal(out["losses"], simulated[1])
    plain = jax.jit(program)(*args)
    rough = 26 * FORMATS[protocol].resolution
    np.testing.assert_allclose(simulated[0], plain[0], atol=rough)
    np.testing.assert_allclose(simulated[1], plain[1], atol=rough)


@pytest.fixture
def dealt(tmp_path):
    fun = secret_shared(lambda x: x * x)
    x = jax.ShapeDtypeStruct((3,), np.float32)
    fun.deal(x, directory=tmp_path, sessions=2)
    return fun, x, tmp_path


def take(fun, x, directory, party=1):
    program = fun.compiled(x)
    owners = material.receivers(program.party, 2)
    with jax.enable_x64(True):
        specs = jax.eval_shape(
            lambda w: material.offline(program.party, 2)(w)[1],
            jax.ShapeDtypeStruct((8,), np.uint32),
        )
    digest = material.program_hash(program.party, 2, "semi2k")
    return Store(directory, party).take(digest, specs, owners)


def test_material_is_used_once(dealt):
    fun, x, directory = dealt
    first, second = take(*dealt), take(*dealt)
    assert first.session != second.session
    assert not np.array_equal(first.seed, second.seed)
    with pytest.raises(PreprocessingError, match="no material is left"):
        take(*dealt)
    assert all(f.stat().st_size == 0 for f in directory.glob("party1/*.used"))


def test_one_key_dealt_twice_gives_unrelated_masks(tmp_path):
    fun = secret_shared(lambda x: x * x)
    x = jax.ShapeDtypeStruct((3,), np.float32)
    for name in ("a", "b"):
        fun.deal(x, directory=tmp_path / name, key=insecure_key(7))
    first, second = take(fun, x, tmp_path / "a"), take(fun, x, tmp_path / "b")
    assert not np.any(first.seed == second.seed)


def test_material_of_another_program_is_refused_and_kept(dealt):
    _, x, directory = dealt
    other = secret_shared(lambda x: x * x * x)
    with pytest.raises(PreprocessingError, match="was made for"):
        take(other, x, directory)
    assert len(list(directory.glob("party1/*.npz"))) == 2


def test_damaged_material_is_refused(dealt):
    fun, x, directory = dealt
    file = sorted(directory.glob("party1/*.npz"))[0]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(PreprocessingError, match="cannot be read"):
        take(*dealt)


def test_changed_material_is_refused_and_kept(dealt):
    _, _, directory = dealt
    file = sorted(directory.glob("party1/*.npz"))[0]
    with np.load(file) as archive:
        content = {n: archive[n] for n in archive.files}
    content["seed"] = content["seed"] ^ np.uint32(1)
    np.savez(file, **content)
    with pytest.raises(PreprocessingError, match="not what was dealt"):
        take(*dealt)
    assert file.exists()


@pytest.mark.parametrize("when", ["before", "after"])
def test_copies_of_material_are_refused(dealt, when):
    """Also after a restart: what was used is written down beside the files."""
    _, _, directory = dealt
    file = sorted(directory.glob("party1/*.npz"))[0]
    kept = file.read_bytes()
    if when == "before":
        (file.parent / "000900.npz").write_bytes(kept)
    take(*dealt)
    if when == "after":
        file.write_bytes(kept)
    else:
        take(*dealt)  # the second session
    with pytest.raises(PreprocessingError, match="copy of material"):
        take(*dealt)


def test_only_the_last_party_receives_corrections(dealt):
    _, _, directory = dealt
    with np.load(sorted(directory.glob("party0/*.npz"))[0]) as first:
        # Party 0 owns the input: it is told its mask, and nothing of the product.
        shapes = [first[n].shape for n in first.files if n.startswith("c")]
    assert shapes == [(3,)]
