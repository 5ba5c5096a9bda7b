"""Where the lake lies: a folder on this machine, or a bucket of an S3-compatible store.

What writers need to keep out of each other's way is one thing: that of two who create the same log entry, one is told
that it came second. A file system does it by linking, a store by conditional put (`If-None-Match: *`), which AWS,
MinIO, Ceph, R2 and others have; deltalake asks for it with `aws_conditional_put=etag`. A store without it can't hold a
table that two processes write: `aws_conditional_put=disabled` is for one writer a table, at the operator's risk.
https://delta-io.github.io/delta-rs/usage/writing/writing-to-s3-with-locking-provider/

Beside its data and its log, a table's folder holds what is pinned of it: `_pins/<cycle id>.parquet` lists the data
files that an update cycle has read, by `path` (relative to the table) and `rows`. The trainer writes it when it pins;
upkeep leaves these files alone for as long as the settings say, and removes the list after that. Delta's readers and
vacuum pass by folders whose name begins with an underscore.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationInfo

PINS_FOLDER = "_pins"
CONDITIONAL_PUT = {"aws_conditional_put": "etag"}
_NO_OPTIONS: Mapping[str, str] = MappingProxyType({})
LOOKS = 10
"""At a log that is being cut, before its state is an error."""
Opened = TypeVar("Opened")


def settled(look: Callable[[], Opened], gone: type[Exception]) -> Opened:
    """What `look` makes of a table's log, though another process cuts that log at the same moment.

    Who has listed a log that is cut before it is read finds entries gone: deltalake says so by a `gone`
    (`DeltaError`) that names the entry. The checkpoint that replaces them is there by then, so a new look helps.
    """
    for _ in range(LOOKS - 1):
        try:
            return look()
        except gone as error:
            if "_delta_log/" not in str(error) or "not found" not in str(error).lower():
                raise
    return look()


@dataclass(frozen=True, slots=True)
class LakeRoot:
    """The folder or `s3://bucket/prefix` below which the tables lie, and what a client must know to reach it.

    Credentials, region and endpoint come from the usual `AWS_*` variables, which both clients (deltalake, polars)
    read by themselves; `options` say what those can't, and win. They may hold secrets, so they are never shown.
    """

    uri: str
    options: Mapping[str, str] = field(default_factory=dict[str, str], repr=False, hash=False)

    @classmethod
    def of(cls, root: "Path | str | LakeRoot", options: Mapping[str, str] = _NO_OPTIONS) -> "LakeRoot":
        """From whatever names a root; `options` are the client's, by deltalake's names."""
        if isinstance(root, LakeRoot):
            return root
        uri = str(root).rstrip("/") or "/"
        if not uri.startswith("s3://"):
            return cls(uri.removeprefix("file://"), MappingProxyType(dict(options)))
        return cls(uri, MappingProxyType({**CONDITIONAL_PUT, **{n.lower(): v for n, v in options.items()}}))

    @property
    def folder(self) -> Path | None:
        """The folder on this machine; None for a store."""
        return None if "://" in self.uri else Path(self.uri)

    def at(self, path: str) -> str:
        """The address of what lies at `path` below the root."""
        return f"{self.uri}/{path}"

    def client_options(self) -> dict[str, str] | None:
        """The options as both clients take them; None for a folder."""
        return None if self.folder is not None else dict(self.options)

    def __str__(self) -> str:
        return self.uri


def root_setting(value: Any, info: ValidationInfo) -> LakeRoot:
    """The validator of a `lake` setting, which comes after `data` and `lake_options`: `{data}` is the data folder."""
    if isinstance(value, str):
        value = value.replace("{data}", str(info.data.get("data", "")))
    return LakeRoot.of(value, info.data.get("lake_options", {}))
