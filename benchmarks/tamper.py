"""Is any change of a bundle accepted? Plants random one-byte changes in all its files, and some clever forgeries.

    python benchmarks/tamper.py [--model BUNDLE] [--changes 10000] [--seed 0]

Each change is judged twice by the functions that load a bundle, before ONNX Runtime would see a byte: by its
digests alone, and with the signature of a key made for this run. Work is done in memory where /dev/shm is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lesion_edge.classifier import SHIPPED_BUNDLE
from lesion_edge.errors import LesionEdgeError
from lesion_edge.manifest import CONTRACT_KEY, FILE_NAME, graph_digests, load_manifest, manifest_text, read_variant
from lesion_edge.model_file import metadata_entry
from lesion_edge.signature import SIGNATURE_NAME, signed_files
from lesion_export.bundle import CARD_NAME, write_bundle
from lesion_export.sign import sign_bundle


def judge(bundle: Path, trust: Path) -> tuple[bool, bool]:
    """Whether a bundle is accepted by its digests, and with a key; the latter asks for the digests, too."""
    try:
        manifest = load_manifest(bundle)
        for name in manifest.variants:
            read_variant(bundle, manifest, name)
    except LesionEdgeError:
        return False, False
    try:
        load_manifest(bundle, signed_files(bundle, trust))
    except LesionEdgeError:
        return True, False
    return True, True


def edit(content: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(content))
    content[place] ^= rng.randrange(1, 256)


def delete(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content))]


def swap(content: bytearray, rng: random.Random) -> None:
    while True:
        one, other = rng.randrange(len(content)), rng.randrange(len(content))
        if content[one] != content[other]:
            content[one], content[other] = content[other], content[one]
            return


def add(content: bytearray, rng: random.Random) -> None:
    content.insert(rng.randrange(len(content) + 1), rng.randrange(256))


CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (edit, delete, swap, add)


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and make its own digest fit."""
    content = json.loads((bundle / FILE_NAME).read_text(encoding="utf-8"))
    del content["digest"]
    change(content)
    (bundle / FILE_NAME).write_text(manifest_text(content), encoding="utf-8")


def raise_thresholds(content: dict[str, Any]) -> None:
    for variant in content["variants"].values():
        variant["threshold"] = 0.92


def threshold(bundle: Path) -> None:
    edit_manifest(bundle, raise_thresholds)


def class_names(bundle: Path) -> None:
    edit_manifest(bundle, lambda content: content["class_names"].reverse())


def card(bundle: Path) -> None:
    text = (bundle / CARD_NAME).read_bytes().replace(b"Not a diagnosis", b"A sure diagnosis")
    (bundle / CARD_NAME).write_bytes(text)
    entry = {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}
    edit_manifest(bundle, lambda content: content["files"].update({CARD_NAME: entry}))


def weights(bundle: Path) -> None:
    variant = next(iter(load_manifest(bundle).variants))
    content = bytearray((bundle / f"{variant}.onnx").read_bytes())
    content[len(content) // 2] ^= 64
    (bundle / f"{variant}.onnx").write_bytes(content)
    digests = graph_digests(bytes(content), len(metadata_entry(CONTRACT_KEY, "0" * 64)))
    edit_manifest(
        bundle,
        lambda manifest: manifest["variants"][variant].update(
            zip(("graph_sha256", "sha256"), digests, strict=True)
        ),
    )


def written_anew(bundle: Path) -> None:
    manifest = load_manifest(bundle)
    graphs = {name: read_variant(bundle, manifest, name) for name in manifest.variants}
    text, signature = ((bundle / name).read_bytes() for name in (CARD_NAME, SIGNATURE_NAME))
    edit_manifest(bundle, raise_thresholds)
    write_bundle(bundle, load_manifest(bundle), graphs, text.decode())
    (bundle / SIGNATURE_NAME).write_bytes(signature)


def file_beside(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("not read by anything")


def unsigned(bundle: Path) -> None:
    (bundle / SIGNATURE_NAME).unlink()


def other_key(bundle: Path) -> None:
    sign_bundle(bundle, write_keys(bundle.parent / "other")[0])


FORGERIES: dict[str, Callable[[Path], None]] = {
    "threshold, digest made to fit in the manifest": threshold,
    "class names, digest made to fit in the manifest": class_names,
    "card, digests made to fit in the manifest": card,
    "weights, digests made to fit in the manifest": weights,
    "threshold, manifest and graph written anew with all digests": written_anew,
    "a file beside, that nothing reads": file_beside,
    "signature removed": unsigned,
    "signed by another key": other_key,
}


def write_keys(folder: Path) -> tuple[Path, Path]:
    """A new private key and its public key."""
    key, pem = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    folder.mkdir()
    private, public = folder / "key.pem", folder / "key.pub"
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHIPPED_BUNDLE, metavar="BUNDLE")
    parser.add_argument("--changes", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        private, public = write_keys(Path(folder) / "keys")
        bundle = Path(shutil.copytree(arguments.model, Path(folder) / "bundle"))
        sign_bundle(bundle, private)
        assert judge(bundle, public) == (True, True)
        random_changes(bundle, public, arguments.changes, random.Random(arguments.seed))
        print("\n| forgery | accepted by digests | accepted with --trust |\n|---|---|---|")
        for name, forge in FORGERIES.items():
            with tempfile.TemporaryDirectory(dir=folder) as place:
                forged = Path(shutil.copytree(bundle, Path(place) / "bundle"))
                forge(forged)
                answers = ("yes" if accepted else "no" for accepted in judge(forged, public))
                print(f"| {name} | {' | '.join(answers)} |")


def random_changes(bundle: Path, trust: Path, count: int, rng: random.Random) -> None:
    """Plant one change at a time, each kind in each file alike, and print how many were accepted."""
    files = sorted(path.name for path in bundle.iterdir())
    contents = {name: (bundle / name).read_bytes() for name in files}
    planted: Counter[tuple[str, str]] = Counter()
    accepted: Counter[tuple[str, str, int]] = Counter()
    for index in range(count):
        name, change = files[index % len(files)], CHANGES[index // len(files) % len(CHANGES)]
        changed = bytearray(contents[name])
        change(changed, rng)
        (bundle / name).write_bytes(changed)
        key = (name, change.__name__)
        planted[key] += 1
        for signed, answer in enumerate(judge(bundle, trust)):
            accepted[*key, signed] += answer
        (bundle / name).write_bytes(contents[name])
    print("| file | one byte | planted | accepted by digests | accepted with --trust |\n|---|---|---|---|---|")
    for (name, kind), times in sorted(planted.items()):
        print(f"| {name} | {kind} | {times} | {accepted[name, kind, 0]} | {accepted[name, kind, 1]} |")
    total = [sum(value for key, value in accepted.items() if key[2] == signed) for signed in (0, 1)]
    print(f"| all | | {count} | {total[0]} | {total[1]} |")


if __name__ == "__main__":
    main()
