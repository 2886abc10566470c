"""Passes: each rewrites a jaxpr into another; together they are the compiler."""
