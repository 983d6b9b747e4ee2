"""The base of every error of `indexer`."""

from diffsim.errors import Error


class IndexerError(Error):
    """A problem with an index, its folders or a run."""
