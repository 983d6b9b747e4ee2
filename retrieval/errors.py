"""The base of every error of `retrieval`."""

from diffsim.errors import Error


class RetrievalError(Error):
    """A problem with pictures, networks, feature spaces or what is stored of them."""
