"""The signature of a version's folder: a manifest of its files under a key that trainer and gateways share.

`signature.json` names the SHA-256 of each file and an HMAC-SHA256 over all of them. Whoever has the key can sign as
well as check; who has only the folder can neither change a file nor add a version of their own. The sampled answers in
`record.json` are left out of its digest: an erasure takes them away.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from schemas.errors import CorruptAdapter, SettingsError
from schemas.messages import Closed

SIGNATURE_FILE = "signature.json"
RECORD_FILE = "record.json"
KEY_BYTES = 32
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Signature(Closed):
    """`signature.json`. `key_id` tells which key it was, and nothing of the key."""

    algorithm: Literal["hmac-sha256"] = "hmac-sha256"
    key_id: str
    files: dict[str, Digest]
    signature: Digest


def parse_key(text: str, where: str) -> bytes:
    """A key from its file's text (64 hexadecimal digits); raises `SettingsError`."""
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(
            f"{where} holds no signing key (64 hexadecimal digits): make one with `thumbwheel cycles make-key FILE`"
        )
    return key


def read_key(file: Path | None) -> bytes | None:
    """The key in a file, or None without one; raises `SettingsError`."""
    if file is None:
        return None
    try:
        return parse_key(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the signing key {file} can't be read: {error}") from error


def key_id(key: bytes) -> str:
    """The first digits of the key's SHA-256."""
    return hashlib.sha256(key).hexdigest()[:12]


def digest(name: str, content: bytes) -> str:
    """SHA-256 of a file; of the record without its sampled answers. Raises `ValueError` for a broken record."""
    if name != RECORD_FILE:
        return hashlib.sha256(content).hexdigest()
    record = json.loads(content)
    record.get("evaluation", {}).pop("samples", None)
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sign(version: str, files: Mapping[str, str], key: bytes) -> Signature:
    """The signature over a version's name and its files' digests."""
    return Signature(key_id=key_id(key), files=dict(files), signature=_mac(version, files, key))


def check(version: str, key: bytes, names: Collection[str] | None, read: Callable[[str], bytes]) -> None:
    """Raise `CorruptAdapter` unless the version is signed by `key` and these files (None: all) are those signed.

    `read` gives a file of the folder by its name, and raises `OSError`.
    """
    try:
        held = Signature.model_validate_json(read(SIGNATURE_FILE))
    except OSError as error:
        raise CorruptAdapter(
            f"version {version} is not signed, and a signing key is set: roll back to a signed version, sign it with "
            f"`thumbwheel cycles sign {version}` if you trust it, or unset THUMBWHEEL_SIGNING_KEY_FILE"
        ) from error
    except ValidationError as error:
        raise CorruptAdapter(f"the signature of version {version} can't be read: restore it from a copy") from error
    if held.key_id != key_id(key):
        raise CorruptAdapter(
            f"version {version} is signed by the key {held.key_id}, and the one that is set is {key_id(key)}: "
            "set THUMBWHEEL_SIGNING_KEY_FILE to the key it was made with"
        )
    if not hmac.compare_digest(held.signature, _mac(version, held.files, key)):
        raise CorruptAdapter(f"the signature of version {version} is wrong: restore its folder from a copy")
    wanted = held.files if names is None else {name: held.files.get(name, "") for name in names}
    for name, expected in wanted.items():
        if not hmac.compare_digest(expected, _found(version, name, read)):
            raise CorruptAdapter(
                f"{name} of version {version} is not the file that was signed: restore its folder from a copy, or "
                "roll back to another version"
            )


def _found(version: str, name: str, read: Callable[[str], bytes]) -> str:
    try:
        return digest(name, read(name))
    except (OSError, ValueError) as error:
        raise CorruptAdapter(f"{name} of version {version} can't be read: {error}; restore it from a copy") from error


def _mac(version: str, files: Mapping[str, str], key: bytes) -> str:
    text = json.dumps({"version": version, "files": dict(files)}, sort_keys=True, separators=(",", ":"))
    return hmac.digest(key, text.encode(), "sha256").hex()
