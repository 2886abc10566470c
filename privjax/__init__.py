"""privjax: rewrite ordinary JAX functions into private ones."""

__version__ = "0.1.0"
