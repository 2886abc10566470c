"""Every error that privjax raises on purpose.

All derive from `PrivacyError`. A message says what is wrong, where (the user's file and
line when a traced program is concerned) and what to do about it.
"""


class PrivacyError(Exception):
    """Base class of every error raised by privjax."""


class TraceError(PrivacyError):
    """The function cannot be traced: it is impure, or Python looked into a value."""


class UnsupportedError(PrivacyError):
    """An operation, or one of its options, has no rule in the pass that met it."""


class LeakError(PrivacyError):
    """The program would reveal something that it must not reveal."""


class InputError(PrivacyError, ValueError):
    """An argument has the wrong name, shape, dtype, structure or value."""


class RangeError(InputError):
    """A clear value is not finite or does not fit into the fixed-point range."""


class RangeWarning(UserWarning):
    """A constant of the program does not fit into the fixed-point range."""


class ProtocolError(PrivacyError, ValueError):
    """Unknown protocol, or a number of parties that the protocol does not allow."""


class RandomKeyError(PrivacyError, TypeError):
    """A key is missing, of the wrong kind, or would repeat masks or noise."""


class DifferentiationError(PrivacyError, TypeError):
    """A rewritten program was differentiated; differentiate inside the function."""


class PreprocessingError(PrivacyError):
    """Correlated randomness is missing, damaged, used up or made for another use."""


class MacCheckError(PrivacyError):
    """An opened value failed its MAC check: some party cheated. The session is dead."""


class BudgetError(PrivacyError):
    """A release would exceed the budget. Nothing was charged."""


class DatasetError(PrivacyError):
    """A data file of the package is missing or damaged."""
