"""The signature of a version's folder."""

import json

import pytest

from schemas import signatures
from schemas.errors import CorruptAdapter, SettingsError

KEY, OTHER = bytes(range(32)), bytes(32)


def folder(**changes: bytes) -> dict[str, bytes]:
    record = {"version": "v1", "evaluation": {"kl": 1.0, "samples": [{"prompt": "hello"}]}}
    files = {"adapter.bin": b"weights", "record.json": json.dumps(record).encode()}
    signed = signatures.sign("v1", {name: signatures.digest(name, raw) for name, raw in files.items()}, KEY)
    return files | {"signature.json": signed.model_dump_json().encode()} | changes


def check(files: dict[str, bytes], *, version: str = "v1", key: bytes = KEY) -> None:
    def read(name: str) -> bytes:
        try:
            return files[name]
        except KeyError as error:
            raise FileNotFoundError(name) from error

    signatures.check(version, key, None, read)


def test_a_folder_as_it_was_signed_is_believed() -> None:
    check(folder())


def test_a_changed_file_a_missing_one_and_another_name_are_not_believed() -> None:
    with pytest.raises(CorruptAdapter, match=r"adapter\.bin of version v1 is not the file that was signed"):
        check(folder(**{"adapter.bin": b"other weights"}))
    gone = folder()
    del gone["adapter.bin"]
    with pytest.raises(CorruptAdapter, match=r"adapter\.bin of version v1 can't be read"):
        check(gone)
    with pytest.raises(CorruptAdapter, match="the signature of version v2 is wrong"):
        check(folder(), version="v2")


def test_a_manifest_that_was_changed_with_its_file_is_not_believed() -> None:
    files = folder(**{"adapter.bin": b"other weights"})
    manifest = json.loads(files["signature.json"])
    manifest["files"]["adapter.bin"] = signatures.digest("adapter.bin", b"other weights")
    with pytest.raises(CorruptAdapter, match="the signature of version v1 is wrong"):
        check(files | {"signature.json": json.dumps(manifest).encode()})


def test_another_key_is_told_by_its_id_and_no_signature_by_what_to_do() -> None:
    with pytest.raises(CorruptAdapter, match="is signed by the key 630dcd2966c4"):
        check(folder(), key=OTHER)
    unsigned = folder()
    del unsigned["signature.json"]
    with pytest.raises(CorruptAdapter, match="thumbwheel cycles sign v1"):
        check(unsigned)
    with pytest.raises(CorruptAdapter, match="can't be read"):
        check(folder(**{"signature.json": b"{"}))


def test_an_erasure_of_sampled_answers_leaves_the_signature_right_and_any_other_change_does_not() -> None:
    record = {"version": "v1", "evaluation": {"kl": 1.0, "samples": []}}
    check(folder(**{"record.json": json.dumps(record, indent=2).encode()}))
    with pytest.raises(CorruptAdapter, match=r"record\.json"):
        check(folder(**{"record.json": json.dumps(record | {"evaluation": {"kl": 0.5, "samples": []}}).encode()}))


def test_a_key_is_64_hexadecimal_digits() -> None:
    assert signatures.parse_key(KEY.hex() + "\n", "key") == KEY
    for wrong in ("", "abc", KEY.hex()[:-2], "not a key at all"):
        with pytest.raises(SettingsError, match="thumbwheel cycles make-key"):
            signatures.parse_key(wrong, "file")
