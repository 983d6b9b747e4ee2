"""Pictures that were dropped, pasted or chosen: kept in memory for a while, never on disk under a name."""

import hashlib
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from diffsim.retrieval.features import PictureFeatures
from diffsim.retrieval.pictures.decode_pool import Decoded, Failed, Job

from ..decoders import PREVIEW_SIDE, Decoders, encoded
from ..picture_files import nameless_file
from .problems import Problem

_MOST = 64
_MOST_BYTES = 512 * 2**20


@dataclass(eq=False)
class Upload:
    """data: the file's bytes; preview: WebP for the page; width, height: of the whole picture, upright, in pixels;
    features: what was extracted of it, by fingerprint of the feature space."""

    data: bytes
    preview: bytes
    width: int
    height: int
    sha256: bytes
    features: dict[str, PictureFeatures] = field(default_factory=dict)


class Uploads:
    """The last ones, by an id that cannot be guessed. Safe to use from several threads."""

    def __init__(self, decoders: Decoders) -> None:
        self._decoders = decoders
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, data: bytes) -> tuple[str, Upload]:
        """Decode it as any hostile file. Raises Problem, with the reason, for what is not a picture."""
        sha256 = hashlib.sha256(data).digest()
        with nameless_file(data) as file:
            result = self._decoders.decode(Job(0, b"", sha256, file.fileno()), PREVIEW_SIDE)
        if not isinstance(result, Decoded):
            reason = result.reason if isinstance(result, Failed) else "it changed while it was read"
            raise Problem(422, f"This file cannot be used as a picture: {reason}.")
        upload = Upload(data, encoded(result, PREVIEW_SIDE), result.width, result.height, sha256)
        name = "u" + secrets.token_hex(16)
        with self._lock:
            self._kept[name] = upload
            while len(self._kept) > _MOST or sum(len(kept.data) for kept in self._kept.values()) > _MOST_BYTES:
                self._kept.popitem(last=False)
        return name, upload

    def get(self, name: str) -> Upload:
        """Raises Problem for one that was forgotten."""
        with self._lock:
            if name not in self._kept:
                raise Problem(410, "This dropped picture is no longer in memory; drop it again.")
            self._kept.move_to_end(name)
            return self._kept[name]
