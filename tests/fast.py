"""The protocol that compiles fastest, for tests of what all protocols have in common."""

from functools import partial

import privjax

secret_shared = partial(privjax.secret_shared, protocol="semi2k")
share = partial(privjax.share, protocol="semi2k")
