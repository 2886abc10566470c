"""Primitives that secrets cannot enter, with the reason and the way out."""

_HOST = (
    "would hand a secret to the host",
    "Remove it, or reveal the value first with privjax.reveal.",
)
_STATE = (
    "changes a mutable reference, which has no shares",
    "Return the new value instead: x = x.at[i].set(v), or the carry of a scan.",
)
_KEY = (
    "makes randomness from a secret: it would not be that of the plain program's key",
    "Pass the random key as a public argument (keys always are).",
)
_REJECTION = (
    "draws by rejection: the number of trials depends on its secret parameter",
    "Draw from jax.random.normal or uniform and transform that, or reveal the parameter "
    "with privjax.reveal.",
)
_DEVICES = (
    "moves secrets between devices",
    "Write the whole array's program, and let jax.jit place it.",
)
_FOREIGN = (
    "calls code that cannot be looked into",
    "Call the function that it wraps, in JAX operations, instead.",
)
_NON_SYMMETRIC = (
    "has no iteration of known length (complex eigenvalues may appear)",
    "For symmetric matrices use jnp.linalg.eigh or svd; otherwise reveal the matrix.",
)
_SERIES = (
    "is a series without a known number of terms",
    "Compute it in public, or reveal its operand with privjax.reveal.",
)
# Primitives that hand values to the host.
TO_HOST = frozenset(
    {
        "debug_callback",
        "debug_print",
        "pure_callback",
        "io_callback",
        "buffer_callback",
        "inspect_sharding",
        "check",
    }
)

REASONS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(TO_HOST, _HOST),
    **dict.fromkeys(
        (
            "ffi_call",
            "call_exported",
            "call_hi_primitive_linearized",
            "custom_partitioning",
            "fused_call",
            "compute_on",
            "call",
            "custom_jvp_call_jaxpr",
            "xla_metadata_call",
        ),
        _FOREIGN,
    ),
    **dict.fromkeys(
        (
            "accum_grad_in_ref",
            "addupdate",
            "box_get",
            "box_set",
            "broadcast_to",
            "create_linear",
            "empty_ref",
            "free_ref",
            "freeze",
            "get",
            "log_extend",
            "log_read",
            "new_box",
            "new_log",
            "new_ref",
            "pin",
            "run_state",
            "swap",
            "unpin",
        ),
        _STATE,
    ),
    **dict.fromkeys(
        (
            "random_seed",
            "random_wrap",
            "random_unwrap",
            "random_bits",
            "random_split",
            "random_fold_in",
            "random_clone",
            "rng_bit_generator",
            "rng_uniform",
            "threefry2x32",
            "threefry4x32",
            "philox2x32",
            "philox4x32",
            "iota_2x32_shape",
            "from_edtype",
            "to_edtype",
        ),
        _KEY,
    ),
    **dict.fromkeys(
        (
            "all_gather",
            "all_gather_invariant",
            "all_to_all",
            "axis_index",
            "pbroadcast",
            "pmax",
            "pmin",
            "ppermute",
            "psum",
            "psum_invariant",
            "reduce_scatter",
            "all_gather_done",
            "all_gather_reduced",
            "all_gather_reduced_start",
            "all_gather_start",
            "all_to_all_done",
            "all_to_all_start",
            "pbroadcast_done",
            "pbroadcast_start",
            "ppermute_done",
            "ppermute_start",
            "precv",
            "preduced",
            "psend",
            "psum_done",
            "psum_invariant_start",
            "psum_start",
            "ragged_all_to_all",
            "reduce_scatter_done",
            "reduce_scatter_start",
            "reduced_vary_cast_p",
            "unreduced_psum",
            "unreduced_psum_start",
            "unreduced_reduce_scatter",
            "unreduced_reduce_scatter_start",
            "vary_unreduced_cast_p",
        ),
        _DEVICES,
    ),
    "eig": _NON_SYMMETRIC,
    "schur": _NON_SYMMETRIC,
    "shard_map": (
        "would mask the slices of different devices alike",
        "Write the whole array's program, and let jax.jit place it.",
    ),
    "random_gamma": _REJECTION,
    "igamma_grad_a": _SERIES,
    "bitcast_convert_type": (
        "asks for the bits of an IEEE 754 number, but secrets are fixed-point",
        "Only integers of one width can be reinterpreted.",
    ),
}

_UNKNOWN = (
    "has no rule for secret sharing",
    "Reveal its operand with privjax.reveal if it may be seen, compute it outside of "
    "the function, or write it with operations that have rules (`privjax operators`).",
)


def reason(name: str) -> tuple[str, str]:
    """(why, what to do instead) for a primitive without a rule."""
    return REASONS.get(name, _UNKNOWN)
