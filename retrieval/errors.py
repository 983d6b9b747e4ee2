"""The base class of all errors in `retrieval`, and the error that reading any network may raise."""

from diffsim.errors import Error


class RetrievalError(Error):
    """A problem with pictures, networks, feature spaces or stored features."""


class BadNetwork(RetrievalError):
    """A folder does not hold a network that can be used."""


COPY_AGAIN = "copy the network's folder again."
"""The next step for most of them."""
