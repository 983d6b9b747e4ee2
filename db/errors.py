"""The base of every error that a caller of `db` may catch."""


class CatalogError(Exception):
    """A named problem; its text is one complete sentence for the person who asked."""
