"""reference: the oracle. A "share" is the value itself, and nothing is sent.

It hides nothing, and runs in simulation only, where all parties see all inputs. Every
kernel is its definition on clear words, so that a program's result under another
protocol can be compared with what it should be (truncation rounds to the nearest here).
"""

from privjax.protocols.reference.protocol import Reference

__all__ = ["Reference"]
