"""The base of every error of `db`."""

from diffsim.errors import Error


class CatalogError(Error):
    """A problem with the catalog or a request to it."""
