"""The base of every error of `retrieval`, and the one that reading any network may raise."""

from diffsim.errors import Error


class RetrievalError(Error):
    """A problem with pictures, networks, feature spaces or what is stored of them."""


class BadNetwork(RetrievalError):
    """A folder does not hold a network that can be used."""


COPY_AGAIN = "copy the network's folder again."
"""The way out of most of them."""
