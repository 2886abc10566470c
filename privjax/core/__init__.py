"""The compiler's core: tracing, the interpreter loop, control flow, labels, markers.

Nothing here knows cryptography, privacy units or a protocol.
"""
