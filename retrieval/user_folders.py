"""Where the platform keeps a user's data and caches."""

from pathlib import Path

import platformdirs

from .errors import RetrievalError


class NoHome(RetrievalError):
    """The user has no home folder, as a container's user id without an entry."""

    def __init__(self) -> None:
        super().__init__(
            "This user has no home folder; name the index with --index DIR (and the folder of fetched networks with "
            "$DIFFSIM_MODELS), or set HOME to a folder."
        )


def user_data() -> Path:
    """The folder of indexes and networks. Raises NoHome."""
    try:
        return platformdirs.user_data_path("diffsim")
    except RuntimeError:
        raise NoHome from None


def user_cache() -> Path:
    """The folder of what can be made again. Raises NoHome."""
    try:
        return platformdirs.user_cache_path("diffsim")
    except RuntimeError:
        raise NoHome from None
