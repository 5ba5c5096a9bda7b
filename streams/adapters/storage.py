"""Where the lake lies: see `schemas.storage`."""

from schemas.storage import LakeRoot

__all__ = ["LakeRoot"]
