"""Signatures over whole bundles, in the format of OpenSSF model-signing: who released it, and is it unchanged?

`model.sig` is a Sigstore bundle with a DSSE envelope around an in-toto statement that lists the SHA-256 of every
file, signed with ECDSA. `model_signing verify key` of https://github.com/sigstore/model-transparency takes it, and
its signatures are taken here; the specifications are https://github.com/secure-systems-lab/dsse (PAE) and
https://in-toto.io/Statement/v1.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from lesion_edge.errors import LesionEdgeError
from lesion_edge.manifest import FILE_NAME, MAX_TEXT_BYTES, read_file

if TYPE_CHECKING:
    from pathlib import Path

SIGNATURE_NAME = "model.sig"

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
IGNORED_NAMES = (SIGNATURE_NAME, ".git", ".gitattributes", ".github", ".gitignore")
"""Names in a bundle that no signature covers; model-signing passes over the same."""

HASHES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
"""Curve of a key to the hash of its signatures."""


def signed_files(bundle: Path, public_key: Path) -> dict[str, str]:
    """Verify the signature of a bundle and return what it says: file name to SHA-256, of every file.

    The content of the files is to be compared by who reads them.

    Args:
        bundle: the folder.
        public_key: PEM file of an ECDSA key on P-256, P-384 or P-521.

    Raises:
        LesionEdgeError: the key cannot be used, the bundle is unsigned or signed by another key, the signature was
            changed, or the bundle has a file that is not signed.
    """
    key = _load_public_key(public_key)
    path = bundle / SIGNATURE_NAME
    if bundle.is_dir() and not path.exists():
        raise LesionEdgeError(f"{bundle} is not signed: it has no {SIGNATURE_NAME}, and --trust asks for one")
    text = read_file(path, MAX_TEXT_BYTES)
    try:
        content = json.loads(text)
        if json.dumps(content, separators=(",", ":")).encode() != text:
            raise ValueError("it is laid out otherwise than signatures are")
        envelope = content["dsseEnvelope"]
        payload, signature = (_decode(value) for value in (envelope["payload"], envelope["signatures"][0]["sig"]))
        if content != sigstore_bundle(payload, signature, key):
            known = {**content, "verificationMaterial": sigstore_bundle(b"", b"", key)["verificationMaterial"]}
            if known == sigstore_bundle(payload, signature, key):
                raise LesionEdgeError(f"{bundle} is signed by another key than {public_key}")
            raise ValueError("it holds something unknown")
        if not _verifies(key, signature, pre_authentication_encoding(payload)):
            raise LesionEdgeError(
                f"{path} does not fit {public_key}: the signature was changed or is of another key"
            )
        files = _read_statement(json.loads(payload))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise LesionEdgeError(f"{path} is no signature of model-signing: {error}") from None
    present = {entry.name for entry in bundle.iterdir()} - set(IGNORED_NAMES)
    for name in sorted(present ^ set(files)):
        reason = "is not covered by the signature" if name in present else "is missing, and the signature names it"
        raise LesionEdgeError(f"{bundle / name} {reason}: copy the bundle again")
    if FILE_NAME not in files:
        raise LesionEdgeError(f"{bundle} is not a bundle: it has no {FILE_NAME}")
    return files


def statement(name: str, files: dict[str, str]) -> bytes:
    """The in-toto statement about a model: JSON.

    Args:
        name: of the model; nothing depends on it.
        files: name to SHA-256, of every file.
    """
    resources = [{"name": file, "algorithm": "sha256", "digest": files[file]} for file in sorted(files)]
    content = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": _root_digest(resources)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": list(IGNORED_NAMES),
            },
            "resources": resources,
        },
    }
    return json.dumps(content, ensure_ascii=False).encode()


def sigstore_bundle(payload: bytes, signature: bytes, public_key: Any) -> dict[str, Any]:
    """What `model.sig` holds, for a statement and its ECDSA signature (DER)."""
    from cryptography.hazmat.primitives import serialization

    pem = public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hashlib.sha256(pem).hexdigest()}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }


def pre_authentication_encoding(payload: bytes) -> bytes:
    """What is signed for a payload (DSSE protocol, PAE)."""
    return f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode() + payload


def signature_algorithm(key: Any) -> Any:
    """ECDSA with the hash that goes with the curve of a key.

    Raises:
        ValueError: it is another kind of key.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    curve = getattr(getattr(key, "curve", None), "name", None)
    if curve not in HASHES:
        raise ValueError(f"it is no ECDSA key on {', '.join(HASHES)}")
    return ec.ECDSA(getattr(hashes, HASHES[curve])())


def import_cryptography() -> None:
    """Say which extra brings the package where it is missing."""
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise LesionEdgeError("cryptography is not installed: pip install 'lesion-edge[signed]'") from None


def _load_public_key(path: Path) -> Any:
    import_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
        signature_algorithm(key)
    except OSError as error:
        raise LesionEdgeError(f"cannot read --trust {path}: {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise LesionEdgeError(f"--trust {path} is no public key that can be used: {error}") from None
    return key


def _verifies(key: Any, signature: bytes, content: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, content, signature_algorithm(key))
    except InvalidSignature:
        return False
    return True


def _read_statement(content: dict[str, Any]) -> dict[str, str]:
    """File name to SHA-256, from the statement of a signature that holds.

    Raises:
        ValueError, TypeError, KeyError: it is another kind of statement.
    """
    predicate = content["predicate"]
    method = (predicate["serialization"]["method"], predicate["serialization"]["hash_type"])
    kind = (content["_type"], content["predicateType"], *method)
    if kind != (STATEMENT_TYPE, PREDICATE_TYPE, "files", "sha256"):
        raise ValueError(f"it states {' '.join(map(str, kind))}, not the SHA-256 of files")
    resources = predicate["resources"]
    if [_root_digest(resources)] != [subject["digest"]["sha256"] for subject in content["subject"]]:
        raise ValueError("its digest is not that of its files")
    files = {entry["name"]: str(entry["digest"]) for entry in resources if entry["algorithm"] == "sha256"}
    if len(files) != len(resources):
        raise ValueError("it names a file twice, or by another digest than SHA-256")
    return files


def _root_digest(resources: list[dict[str, str]]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(entry["digest"]) for entry in resources)).hexdigest()


def _decode(text: str) -> bytes:
    """Base64 in the one form that its encoder gives."""
    content = base64.b64decode(text, validate=True)
    if base64.b64encode(content).decode() != text:
        raise ValueError("its base64 has stray bits")
    return content
