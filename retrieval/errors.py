"""The base of every error that a caller of `retrieval` may catch."""


class RetrievalError(Exception):
    """A named problem; its text is one complete sentence for the person who asked."""
