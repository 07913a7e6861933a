"""A bundle is taken when the trusted key has signed all of it, by us or by OpenSSF's tool, and else refused."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lesion_edge import Classifier
from lesion_edge.classifier import TRUST_VARIABLE
from lesion_edge.doctor import examine
from lesion_edge.errors import LesionEdgeError
from lesion_edge.manifest import FILE_NAME
from lesion_edge.signature import SIGNATURE_NAME, signed_files
from lesion_export.sign import load_private_key, sign_bundle

pytest.importorskip("cryptography", reason="signatures need the extra [signed]")
pytest.importorskip("onnxruntime")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519


def write_keys(folder: Path, private_key: Any) -> tuple[Path, Path]:
    pem, public = serialization.Encoding.PEM, private_key.public_key()
    files = (folder / "key.pem", folder / "key.pub")
    folder.mkdir()
    files[0].write_bytes(
        private_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    files[1].write_bytes(public.public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return files


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Private and public key on P-256."""
    return write_keys(tmp_path_factory.mktemp("keys") / "own", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def signed_bundle(make_bundle: Callable[..., Path], keys: tuple[Path, Path]) -> Path:
    """A bundle with the signature of `keys`."""
    folder = make_bundle()
    sign_bundle(folder, keys[0])
    return folder


def test_signed_bundle_answers(signed_bundle: Path, keys: tuple[Path, Path]) -> None:
    assert set(signed_files(signed_bundle, keys[1])) == {
        "int8.onnx",
        "fp32.onnx",
        FILE_NAME,
        "MODEL_CARD.md",
        "bom.cdx.json",
    }
    classifier = Classifier.load(signed_bundle, trust=keys[1])
    assert next(classifier.predict([b""])).status == "error"
    assert Classifier.load(signed_bundle).manifest == classifier.manifest


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: str(curve.name))
def test_other_curves_sign_too(make_bundle: Callable[..., Path], tmp_path: Path, curve: Any) -> None:
    private, public = write_keys(tmp_path / "keys", ec.generate_private_key(curve))
    sign_bundle(make_bundle(), private)
    assert FILE_NAME in signed_files(tmp_path / "bundle", public)


def changed_byte(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)


def extra_file(bundle: Path) -> None:
    (bundle / "plugin.so").write_bytes(b"")


def older_signature_on_a_newer_bundle(bundle: Path) -> None:
    (bundle / "MODEL_CARD.md").write_text("another card")


def sealed_anew(bundle: Path) -> None:
    """The forgery that no digest can prove."""
    from lesion_edge.manifest import load_manifest, read_variant
    from lesion_export.bundle import write_bundle

    manifest = load_manifest(bundle)
    graphs = {name: read_variant(bundle, manifest, name) for name in manifest.variants}
    signature = (bundle / SIGNATURE_NAME).read_bytes()
    manifest.provenance["run"] = "another"
    write_bundle(bundle, manifest, graphs, "the card")
    Classifier.load(bundle)
    (bundle / SIGNATURE_NAME).write_bytes(signature)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda b: changed_byte(b, "int8.onnx"), "int8.onnx is not the file", id="graph in use"),
        pytest.param(lambda b: changed_byte(b, "fp32.onnx"), "fp32.onnx is not the file", id="graph not in use"),
        pytest.param(lambda b: changed_byte(b, "MODEL_CARD.md"), "MODEL_CARD.md is not the file", id="card"),
        pytest.param(
            lambda b: changed_byte(b, FILE_NAME), "manifest.json is not the file that was signed", id="manifest"
        ),
        pytest.param(lambda b: changed_byte(b, SIGNATURE_NAME), "model.sig", id="signature"),
        pytest.param(lambda b: (b / SIGNATURE_NAME).unlink(), "is not signed: it has no model.sig", id="unsigned"),
        pytest.param(lambda b: (b / "fp32.onnx").unlink(), "fp32.onnx is missing", id="file removed"),
        pytest.param(extra_file, "plugin.so is not covered by the signature", id="file added"),
        pytest.param(sealed_anew, "manifest.json is not the file that was signed", id="sealed anew"),
        pytest.param(shutil.rmtree, "No such file", id="no bundle"),
    ],
)
def test_change_of_a_signed_bundle_is_refused(
    signed_bundle: Path, keys: tuple[Path, Path], change: Callable[[Path], object], reason: str
) -> None:
    change(signed_bundle)
    with pytest.raises(LesionEdgeError, match=reason) as caught:
        Classifier.load(signed_bundle, trust=keys[1])
    assert "\n" not in str(caught.value)


def edit_signature(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((bundle / SIGNATURE_NAME).read_text())
    change(content)
    (bundle / SIGNATURE_NAME).write_text(json.dumps(content, separators=(",", ":")))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda c: c.update(mediaType="another"), id="media type"),
        pytest.param(lambda c: c["dsseEnvelope"].update(payloadType="text/plain"), id="payload type"),
        pytest.param(lambda c: c["dsseEnvelope"].update(signatures=[]), id="no signature"),
        pytest.param(lambda c: c["dsseEnvelope"]["signatures"].append({}), id="a second signature"),
        pytest.param(lambda c: c["dsseEnvelope"]["signatures"][0].update(keyid="x"), id="key id"),
        pytest.param(lambda c: c["dsseEnvelope"].update(payload="e30="), id="another statement"),
        pytest.param(lambda c: c["dsseEnvelope"].update(payload=3), id="payload as a number"),
        pytest.param(lambda c: c.pop("dsseEnvelope"), id="no envelope"),
        pytest.param(lambda c: c.update(more=1), id="something more"),
    ],
)
def test_edit_of_the_signature_itself_is_refused(
    signed_bundle: Path, keys: tuple[Path, Path], change: Callable[[dict[str, Any]], object]
) -> None:
    edit_signature(signed_bundle, change)
    with pytest.raises(LesionEdgeError, match=r"model\.sig"):
        signed_files(signed_bundle, keys[1])


STATEMENTS: list[Any] = [
    pytest.param(lambda s: s.update(_type="another"), "it states another", id="type"),
    pytest.param(lambda s: s["predicate"]["serialization"].update(hash_type="blake3"), "blake3", id="hash"),
    pytest.param(
        lambda s: s["predicate"]["resources"].pop(), "digest is not that of its files", id="file removed"
    ),
    pytest.param(lambda s: s["predicate"]["resources"][0].update(algorithm="md5"), "another digest", id="md5"),
    pytest.param(lambda s: s.pop("predicate"), "predicate", id="no predicate"),
    pytest.param(lambda s: s["predicate"].update(resources=[{}]), "digest", id="empty entry"),
]


@pytest.mark.parametrize(("change", "reason"), STATEMENTS)
def test_statement_of_another_kind_is_refused_although_it_is_signed(
    signed_bundle: Path, keys: tuple[Path, Path], change: Callable[[Any], object], reason: str
) -> None:
    from lesion_edge.signature import pre_authentication_encoding, signature_algorithm, sigstore_bundle

    path, private_key = signed_bundle / SIGNATURE_NAME, load_private_key(keys[0])
    statement = json.loads(base64.b64decode(json.loads(path.read_text())["dsseEnvelope"]["payload"]))
    change(statement)
    payload = json.dumps(statement).encode()
    signature = private_key.sign(pre_authentication_encoding(payload), signature_algorithm(private_key))
    content = sigstore_bundle(payload, signature, private_key.public_key())
    path.write_text(json.dumps(content, separators=(",", ":")))
    with pytest.raises(LesionEdgeError, match=reason):
        signed_files(signed_bundle, keys[1])


def test_signature_of_another_key_is_refused(signed_bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(LesionEdgeError, match=f"signed by another key than {public}"):
        signed_files(signed_bundle, public)
    from lesion_edge.signature import sigstore_bundle

    own = load_private_key(private).public_key()
    edit_signature(
        signed_bundle,
        lambda c: c.update(verificationMaterial=sigstore_bundle(b"", b"", own)["verificationMaterial"]),
    )
    with pytest.raises(LesionEdgeError, match="signature was changed or is of another key"):
        signed_files(signed_bundle, public)


def encrypted(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"word")
    (folder / "encrypted.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return folder / "encrypted.pem"


def of_another_kind(folder: Path) -> Path:
    return write_keys(folder / "ed25519", ed25519.Ed25519PrivateKey.generate())[0]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (encrypted, "has a password"),
        (of_another_kind, "no ECDSA key"),
        (lambda folder: folder / "gone", "cannot read the key"),
        (lambda folder: Path(__file__), "no private key that can be used"),
    ],
)
def test_key_that_cannot_sign_is_refused(make: Callable[[Path], Path], reason: str, tmp_path: Path) -> None:
    with pytest.raises(LesionEdgeError, match=reason):
        load_private_key(make(tmp_path))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: of_another_kind(folder).with_name("key.pub"), "no ECDSA key"),
        (lambda folder: folder / "gone", "cannot read --trust"),
        (lambda folder: Path(__file__), "no public key that can be used"),
    ],
)
def test_key_that_cannot_verify_is_refused(
    make: Callable[[Path], Path], reason: str, signed_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(LesionEdgeError, match=reason):
        signed_files(signed_bundle, make(tmp_path))


def test_environment_of_a_fleet_asks_for_a_signature_everywhere(
    make_bundle: Callable[..., Path],
    keys: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = make_bundle()
    monkeypatch.setenv(TRUST_VARIABLE, str(keys[1]))
    with pytest.raises(LesionEdgeError, match="is not signed"):
        Classifier.load(bundle)
    assert not examine(bundle, "cpu", 1, None)
    assert "PROBLEM model:" in capsys.readouterr().out
    sign_bundle(bundle, keys[0])
    Classifier.load(bundle)


def test_package_that_is_missing_is_named(
    signed_bundle: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(LesionEdgeError, match=r"pip install 'lesion-edge\[signed\]'"):
        signed_files(signed_bundle, keys[1])


def test_nothing_is_imported_without_trust(bundle: Path) -> None:
    program = "import sys; from lesion_edge import Classifier; Classifier.load(sys.argv[1])"
    program += "; sys.exit('cryptography' in sys.modules)"
    subprocess.run([sys.executable, "-c", program, bundle], check=True)


def model_signing(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "model_signing", *arguments], capture_output=True, text=True)


def test_openssf_tool_takes_our_signature(signed_bundle: Path, keys: tuple[Path, Path]) -> None:
    pytest.importorskip("model_signing", reason="OpenSSF's tool is not installed")
    arguments = (
        "verify",
        "key",
        signed_bundle,
        "--public_key",
        keys[1],
        "--signature",
        signed_bundle / SIGNATURE_NAME,
    )
    finished = model_signing(*arguments)
    assert finished.returncode == 0, finished.stderr
    changed_byte(signed_bundle, "MODEL_CARD.md")
    assert model_signing(*arguments).returncode != 0


def test_signature_of_the_openssf_tool_is_taken(make_bundle: Callable[..., Path], keys: tuple[Path, Path]) -> None:
    pytest.importorskip("model_signing", reason="OpenSSF's tool is not installed")
    bundle = make_bundle()
    finished = model_signing(
        "sign", "key", bundle, "--private_key", keys[0], "--signature", bundle / SIGNATURE_NAME
    )
    assert finished.returncode == 0, finished.stderr
    Classifier.load(bundle, trust=keys[1])
    changed_byte(bundle, "MODEL_CARD.md")
    with pytest.raises(LesionEdgeError, match=r"MODEL_CARD\.md"):
        Classifier.load(bundle, trust=keys[1])
