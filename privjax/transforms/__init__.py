"""The transformations that users call: they compose passes, protocol and runtime."""
