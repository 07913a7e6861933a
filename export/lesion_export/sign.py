"""Signs a bundle with a private key, as `lesion-export --sign` does, and also one that exists already.

    python -m lesion_export.sign BUNDLE KEY

Keys: `openssl ecparam -name prime256v1 -genkey -noout -out key.pem; openssl ec -in key.pem -pubout -out key.pub`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

with contextlib.suppress(ImportError):  # without the extra; run_command says so
    import typer

from lesion_edge import atomic, console
from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError
from lesion_edge.manifest import load_manifest, read_variant
from lesion_edge.signature import (
    IGNORED_NAMES,
    SIGNATURE_NAME,
    import_cryptography,
    pre_authentication_encoding,
    signature_algorithm,
    sigstore_bundle,
    statement,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


def sign_bundle(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.")],
    key: Annotated[Path, typer.Argument(metavar="KEY", help="PEM file of an ECDSA private key.")],
) -> None:
    """Write the signature of a bundle into it, over every file, once its digests hold.

    Exit codes: 0 done; 2 the key cannot be used, or the bundle is damaged.
    """
    private_key = load_private_key(key)
    manifest = load_manifest(bundle)
    for name in manifest.variants:
        read_variant(bundle, manifest, name)
    files = {path.name: path.read_bytes() for path in bundle.iterdir() if path.name not in IGNORED_NAMES}
    atomic.write_bytes(bundle / SIGNATURE_NAME, sign(bundle.resolve().name, files, private_key))
    say(f"{bundle / SIGNATURE_NAME}: {len(files)} files signed")


def load_private_key(path: Path) -> Any:
    """Read an ECDSA private key on P-256, P-384 or P-521.

    Raises:
        LesionEdgeError: there is none, or it cannot be used.
    """
    import_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), None)
        signature_algorithm(key)
    except OSError as error:
        raise LesionEdgeError(f"cannot read the key {path}: {error.strerror}") from None
    except TypeError:
        raise LesionEdgeError(f"the key {path} has a password: decrypt it with openssl ec first") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise LesionEdgeError(f"{path} is no private key that can be used: {error}") from None
    return key


def sign(name: str, files: Mapping[str, bytes], private_key: Any) -> bytes:
    """The content of `model.sig`.

    Args:
        name: of the model; nothing depends on it.
        files: name to content, of every file of the bundle.
        private_key: from `load_private_key`.
    """
    payload = statement(name, {file: hashlib.sha256(content).hexdigest() for file, content in files.items()})
    signature = private_key.sign(pre_authentication_encoding(payload), signature_algorithm(private_key))
    content = sigstore_bundle(payload, signature, private_key.public_key())
    return json.dumps(content, separators=(",", ":")).encode()


if __name__ == "__main__":
    console.run_command("lesion_export.sign", sign_bundle, extra="export")
