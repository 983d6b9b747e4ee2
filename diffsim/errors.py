"""The root of every error that a caller may catch."""


class Error(Exception):
    """A named problem; its text is one complete sentence for the person who asked."""
