"""What may leave the index of what files say of their pictures."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffsim.db.metadata import PictureMetadata


def told(said: "PictureMetadata | None", private: bool) -> dict[str, Any] | None:
    """As JSON tells it. private: also where the picture was taken, and its caption; exports leave these out unless they
    are asked for. None where nothing is known."""
    if said is None:
        return None
    public = {"camera": said.camera, "lens": said.lens, "rating": said.rating, "keywords": list(said.keywords)}
    if not private:
        return public
    return public | {"latitude": said.latitude, "longitude": said.longitude, "caption": said.caption}
