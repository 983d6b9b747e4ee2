"""The base of every error that a caller of `indexer` may catch."""


class IndexerError(Exception):
    """A named problem; its text is one complete sentence for the person who asked."""
