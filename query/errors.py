"""The base of every error of `query`."""

from diffsim.errors import Error


class QueryError(Error):
    """A problem with a query or with showing its answer."""
