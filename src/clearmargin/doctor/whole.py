"""The check that the parts work together: a network becomes a bundle, and the bundle decides on a drawn image."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from clearmargin.doctor.outcome import Outcome, failed, ok

if TYPE_CHECKING:
    from clearmargin.bundle.schema import ModelFile
    from clearmargin.images.preprocess import Preprocessing

_PX = 32
_MODEL = "cbis_ddsm"
_THRESHOLD = 0.5


def check_whole() -> Outcome:
    """A bundle is written, verified, loaded, and decides on a phantom image as its network does in torch."""
    import torch
    from PIL import Image

    from clearmargin.bundle.export import export_onnx
    from clearmargin.bundle.write import Network, write_bundle
    from clearmargin.data.phantom import draw_packed, draw_patch
    from clearmargin.images.preprocess import Preprocessing
    from clearmargin.models import build_model
    from clearmargin.models.contract import count_parameters, normalise, scale_pixels
    from clearmargin.predict.predictor import load_bundle

    started = time.monotonic()
    spec = Preprocessing(width=_PX, height=_PX)
    model = build_model(_MODEL, spec.shape).eval()
    patch = draw_patch(1, 0, _PX)
    with tempfile.TemporaryDirectory() as place:
        folder, image = Path(place) / "bundle", Path(place) / "patch.png"
        Image.fromarray(patch).save(image)
        network = Network(model.state_dict(), export_onnx(model, spec, draw_packed(spec, [_PX])))
        write_bundle(folder, _model_file(spec, count_parameters(model)), network)
        row = load_bundle(folder).predict([str(image)]).iloc[0]
    with torch.inference_mode():
        pixels = scale_pixels(torch.from_numpy(patch)[None])
        expected = float(torch.sigmoid(model(normalise(pixels, spec.mean, spec.std)))[0])
    if not abs(float(row["probability"]) - expected) < 1e-4:
        return failed(
            f"a bundle predicts {row['probability']}, its network {expected}", "Install torch and onnxruntime anew."
        )
    decided = f"says {row['decision']} of a drawn image"
    return ok(f"a bundle was written, verified and loaded, and {decided} ({time.monotonic() - started:.1f} s)")


def _model_file(spec: Preprocessing, parameters: int) -> ModelFile:
    from clearmargin import __version__
    from clearmargin.bundle.schema import Architecture, Imported, Lineage, ModelFile
    from clearmargin.training.run_folder import now
    from clearmargin.types import OperatingPoint

    lineage = Lineage(
        clearmargin=__version__,
        created=now(),
        recipe=None,
        seed=None,
        split="unknown",
        data_sha256=None,
        split_sha256=None,
        precision=None,
        metrics=None,
        libraries={},
        imported=Imported(file_sha256="0" * 64, format="keras"),  # what nobody has trained has no figures
    )
    point = OperatingPoint("fixed", "for a check of the installation", _THRESHOLD)
    return ModelFile(
        architecture=Architecture(name=_MODEL, parameters=parameters),
        preprocessing=spec,
        temperature=1.0,
        operating_points={point.name: point},
        operating_point=point.name,
        no_abstention="a check of the installation",
        no_gate="a check of the installation",
        lineage=lineage,
    )
