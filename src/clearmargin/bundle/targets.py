"""What a bundle can be written as for others: TARGETS. Each is checked against the bundle before it gets its name.

onnx           the network for any ONNX runtime, with what it takes to use it in its metadata
keras          the network for Keras, where Keras has layers for it
clearmargin    the whole bundle as one file
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearmargin.bundle.card import calibration_formula
from clearmargin.bundle.read import SUMS, Bundle, read_bundle
from clearmargin.bundle.schema import KeptCases, ModelFile
from clearmargin.bundle.single_file import SUFFIX, pack_files
from clearmargin.errors import BundleError, DataError, UnknownName, UsageError, counted
from clearmargin.files import check_can_hold_file, disk_errors, make_folder, write_whole

METADATA = "clearmargin"
"""The key in the metadata of an exported ONNX file, whose value is JSON."""
_RANDOM_BATCHES = (1, 3, 8)
_COMPARE = "compare it with predict --no-context, or predict(..., context=False)"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    `difference` is the largest of a logit or a feature from torch, None where no network was written anew. `facts` are
    lines for a person: what the file takes and gives, how it was compared, and what it is not.
    """

    path: Path
    difference: float | None
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """A way to write a bundle: the suffixes that its file may have, and what writes it."""

    suffixes: tuple[str, ...]
    write: Callable[[Bundle, Path, NDArray[np.uint8]], Exported]


def write_target(bundle: Bundle, path: Path, to: str, images: NDArray[np.uint8], *, cases: bool = True) -> Exported:
    """Writes the bundle as one of TARGETS; a file that is there is replaced once the new one is known to be right.

    Args:
        bundle: verified.
        path: of the file to write.
        to: a key of TARGETS.
        images: (N, H, W, C) packed images to compare on, N at least 1.
        cases: the training images that the bundle carries go along, where a target holds them.

    Raises:
        BundleError: what was written computes something else than the bundle; nothing is left.
        DataError: the place is not writable.
    """
    if not cases and bundle.model.cases is not None:
        from clearmargin.bundle.write import without_cases  # noqa: PLC0415  (with torch, as below)

        bundle = without_cases(bundle)
    with disk_errors(path):
        make_folder(path.parent)
        try:
            return TARGETS[to].write(bundle, path, images)
        except FileNotFoundError as error:  # as in /proc, where there are folders and nothing can be made
            raise DataError(f"{path}: not writable ({error.strerror}). Write to another folder.") from None


def check_target(path: Path, to: str, *, force: bool = False) -> None:
    """Passes when a file of this kind can be written at the path.

    Raises:
        UnknownName: no such target.
        UsageError: another suffix, a folder, or a file that is there and may not be replaced.
    """
    if to not in TARGETS:
        raise UnknownName("target", to, TARGETS)
    suffixes = TARGETS[to].suffixes
    if path.suffix.lower() not in suffixes:
        folder = " It is one file; a bundle folder can be copied as it is." if to == "clearmargin" else ""
        raise UsageError(
            f"{path}: a file for --to {to} ends in {' or '.join(suffixes)}; give such a name with --out.{folder}"
        )
    with disk_errors(path):
        check_can_hold_file(path, "--out", example=f"model{suffixes[0]}")
        if path.exists() and not force:
            raise UsageError(f"{path}: is there already. Give another file with --out, or replace it with --force.")


def how_to_use(bundle: Bundle) -> dict[str, Any]:
    """What somebody who has the network alone must know, as an exported file carries it.

    `calibration` turns a logit into the probability of `labels[1]`; at or above `operating_point.threshold` it is
    called that, and within `cannot_tell`, where there is such a range, it is withheld.
    """
    model = bundle.model
    point, region = model.decision_point, model.conformal
    return {
        "labels": list(model.labels),
        "preprocessing": model.preprocessing.model_dump(),
        "calibration": model.calibrated_by.model_dump(),
        "operating_point": {"name": point.name, "rule": point.rule, "threshold": point.threshold},
        "cannot_tell": list(region.between) if region is not None and region.between is not None else None,
        "bundle_sha256": bundle.sha256,
        "intended_use": model.intended_use,
    }


def _write_onnx(bundle: Bundle, path: Path, images: NDArray[np.uint8]) -> Exported:
    """The network that `predict` runs, compared with the weights under torch."""
    import onnx  # noqa: PLC0415  (with torch, seconds that reading a bundle must not take)

    from clearmargin.bundle.export import MAX_DIFFERENCE, parity  # noqa: PLC0415
    from clearmargin.bundle.onnx_check import check_onnx  # noqa: PLC0415
    from clearmargin.bundle.torch_model import load_torch_model  # noqa: PLC0415
    from clearmargin.models.contract import Deployed  # noqa: PLC0415

    spec = bundle.model.preprocessing
    content = bundle.read("model.onnx")
    check_onnx(content, str(bundle.folder / "model.onnx"))
    network = onnx.load_model_from_string(content)
    onnx.helper.set_model_props(network, {METADATA: json.dumps(how_to_use(bundle))})
    content = network.SerializeToString()
    deployed = Deployed(load_torch_model(bundle), spec.mean, spec.std).eval()
    generator = np.random.default_rng(0)
    random = [generator.integers(0, 256, (size, *spec.shape), dtype=np.uint8) for size in _RANDOM_BATCHES]
    difference = max(parity(deployed, content, batch) for batch in [*_batches(images), *random])
    if not difference < MAX_DIFFERENCE:
        raise BundleError(
            f"{bundle.folder}: model.onnx differs from weights.safetensors by {difference:.2e} in a logit or a feature "
            f"(limit {MAX_DIFFERENCE:g}); nothing was written. Make the bundle anew."
        )
    write_whole(path, lambda partial: partial.write_bytes(content))
    return Exported(path, difference, tuple(_onnx_facts(bundle, network, len(images), difference)))


def _onnx_facts(bundle: Bundle, network: Any, images: int, difference: float) -> list[str]:
    model, spec = bundle.model, bundle.model.preprocessing
    colour = "RGB" if spec.channels == 3 else "grey"
    compared = f"{counted(images, 'image', 'images')} and {sum(_RANDOM_BATCHES)} random ones"
    features = "; 'features' float32 (B, D)" if len(network.graph.output) == 2 else ""
    facts = [
        f"takes   'images' uint8 (B, {spec.height}, {spec.width}, {spec.channels}), {colour}, fitted by {spec.fit} "
        f"({spec.interpolation}); scaling and normalisation are inside",
        f"gives   'logits' float32 (B,) of {model.labels[1]}{features}",
        f"checked against torch on {compared}: largest difference {difference:.1e} (limit "
        "1e-4; relative where a value is above 1)",
        f"how to use it (preprocessing, labels, calibration, threshold) is in its metadata '{METADATA}', as JSON",
    ]
    if model.context is not None:
        facts.append(
            "note    it is the patch network alone: what the neighbours of a patch say is not in it, and its threshold "
            f"is that of a patch decided by itself: {_COMPARE}"
        )
    return facts


def _write_keras(bundle: Bundle, path: Path, images: NDArray[np.uint8]) -> Exported:
    from clearmargin.bundle.keras.exporting import export_keras  # noqa: PLC0415  (with torch, as above)

    made = export_keras(bundle, path, images=images)
    spec = bundle.model.preprocessing
    colour = "RGB" if spec.channels == 3 else "grey"
    facts = (
        f"takes   float32 (B, {spec.height}, {spec.width}, {spec.channels}), {colour} / 255, fitted by {spec.fit} "
        f"({spec.interpolation})",
        f"gives   {made.output}",
        f"checked against torch on {counted(len(images), 'image', 'images')} and random ones: largest difference "
        f"{made.difference:.1e} of a logit (limit 1e-4; relative where a logit is above 1)",
        made.compared,
        *_by_hand(bundle.model),
    )
    return Exported(path, made.difference, facts)


def _by_hand(model: ModelFile) -> list[str]:
    """How a Keras output becomes a decision, since a Keras file has no place for it."""
    region, threshold = model.conformal, model.decision_point.threshold
    between = region.between if region is not None else None
    withheld = "" if between is None else f", cannot tell from {between[0]:.4f} to {between[1]:.4f}"
    facts = [
        "note    calibration, threshold and abstention stay in the bundle (model.json). Of the output p of malignant: "
        f"logit = ln(p / (1 - p)), probability = {calibration_formula(model.calibrated_by)}, malignant at or above "
        f"{threshold:.4f}{withheld}; docs/keras.md has it as code"
    ]
    if model.context is not None:
        facts.append(f"note    the neighbours of a patch stay in the bundle, too: {_COMPARE}")
    return facts


def _write_single_file(bundle: Bundle, path: Path, images: NDArray[np.uint8]) -> Exported:  # noqa: ARG001
    """All files of the bundle, byte for byte; read back before it gets its name."""
    sums = "".join(f"{digest}  {name}\n" for name, digest in bundle.sums.items()).encode("ascii")
    content = pack_files({SUMS: sums, **{name: bundle.read(name) for name in bundle.sums}})

    def write(partial: Path) -> None:
        partial.write_bytes(content)
        if read_bundle(partial).sha256 != bundle.sha256:
            raise BundleError(f"{path}: what was written is not what is in {bundle.folder}. Check the disk.")

    write_whole(path, write)
    facts = (
        f"holds   all of the bundle (sha256 {bundle.sha256}); give it wherever a BUNDLE is asked for",
        _cases_fact(bundle.model.cases),
    )
    return Exported(path, None, facts)


def _cases_fact(kept: KeptCases | None) -> str:
    if kept is None:
        return "note    no picture of a patient is in it"
    patients = "unknown patients" if kept.patients is None else counted(kept.patients, "patient", "patients")
    ids = "with pseudonyms of their patients" if kept.pseudonymous else "with their patients' ids and files' names"
    return (
        f"note    pictures of {counted(kept.images, 'training image', 'training images')} of {patients} are in it, "
        f"{ids}: whoever has the file has those (--without-cases leaves them out)"
    )


def _batches(images: NDArray[np.uint8], size: int = 64) -> list[NDArray[np.uint8]]:
    return [images[start : start + size] for start in range(0, len(images), size)]


TARGETS: dict[str, Target] = {
    "onnx": Target((".onnx",), _write_onnx),
    "keras": Target((".keras", ".h5"), _write_keras),
    "clearmargin": Target((SUFFIX,), _write_single_file),
}
