"""What the gates of bundles refuse: real images of other kinds, their negatives, blurs, and what is no medical image.

    python benchmarks/gate.py idc=runs/idc busi=runs/busi --inputs "BreaKHis 40x=DATA/breakhis/*-40-*" mias=DATA/mias
    python benchmarks/gate.py --leave-patients-out DATA/idc

Models are NAME=BUNDLE, inputs NAME=FOLDER or NAME=GLOB, decoded and fitted exactly as `predict` does. Inputs that are
drawn here (noise, blank images, screenshots) and the photographs that scikit-learn and matplotlib ship are added. Of
each model's own kind, given with --own NAME=FOLDER, negatives, blurs and grey versions are made. Prints a Markdown
table of refused / all, with the commonest reason; or, with --leave-patients-out, how many images of patients that a
gate was not fitted on it refuses for their look.
"""

from __future__ import annotations

import argparse
import collections
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import sklearn.datasets
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from clearmargin.data.walk import walk_files
from clearmargin.errors import ImageError
from clearmargin.evaluation.gate import fit_look
from clearmargin.images.limits import Pixels
from clearmargin.images.look import LOOK, VISIBLE, measure_look
from clearmargin.images.names import find_masks, parse_idc_name
from clearmargin.images.npz import list_arrays
from clearmargin.images.preprocess import Preprocessing
from clearmargin.images.read import is_image, read_image
from clearmargin.predict.predictor import Predictor, load_bundle

Group = list[Pixels]
_BLURS = (1.0, 3.0)
_PATIENTS = (3, 5, 8, 12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME=BUNDLE")
    parser.add_argument("--inputs", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--own", nargs="*", default=[], metavar="NAME=FOLDER", help="of the model of that name")
    parser.add_argument("--most", type=int, default=100, help="images of each input (default 100)")
    parser.add_argument("--leave-patients-out", metavar="FOLDER", help="of patches with IDC names")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.leave_patients_out:
        print_leave_patients_out(Path(arguments.leave_patients_out), repeats=arguments.repeats)
        return
    inputs = {name: read_group(where, arguments.most) for name, where in map(_named, arguments.inputs)}
    own = {name: read_group(where, arguments.most) for name, where in map(_named, arguments.own)}
    print_refusals(dict(map(_named, arguments.models)), inputs | drawn(), own)


def print_refusals(models: dict[str, str], inputs: dict[str, Group], own: dict[str, Group]) -> None:
    """One row an input, one column a model."""
    predictors = {name: load_bundle(bundle) for name, bundle in models.items()}
    cells = {
        name: {kind: refused(predictor, group) for kind, group in (inputs | changed(own.get(name, []))).items()}
        for name, predictor in predictors.items()
    }
    rows = list(dict.fromkeys(kind for each in cells.values() for kind in each))
    print("| input | " + " | ".join(models) + " |\n|---|" + "---|" * len(models))
    for kind in rows:
        print(f"| {kind} | " + " | ".join(cells[name].get(kind, "–") for name in models) + " |")


def refused(predictor: Predictor, group: Group) -> str:
    """How many of the images are refused, of all, and the commonest reason."""
    reasons = [predictor.predict_pixels(pixels).reason for pixels in group]
    words = [reason.split(" (")[0] for reason in reasons if reason and not reason.startswith("too uncertain")]
    if not words:
        return f"0 / {len(group)}"
    kinds = collections.Counter(word.split(":")[0] if word.startswith("size") else word for word in words)
    return f"{len(words)} / {len(group)} {kinds.most_common(1)[0][0].removeprefix('unlike the training images: ')}"


def read_group(where: str, most: int) -> Group:
    """At most so many decoded images of a folder, a glob or an .npz file, evenly chosen; masks are left out."""
    paths = list(_paths(where))
    masks = find_masks(paths)
    paths = [path for path in paths if path not in masks]
    chosen = [paths[place] for place in np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int))]
    group = []
    for path in chosen:
        try:
            group.append(read_image(path))
        except ImageError as error:
            print(f"left out: {error}")
    return group


def changed(group: Group) -> dict[str, Group]:
    """Negatives, blurs and grey versions of images of a model's own kind."""
    if not group:
        return {}
    changes = {"its own kind, held out": group, "negatives of it": [_negative(pixels) for pixels in group]}
    for sigma in _BLURS:
        changes[f"blurred, by {sigma:g} of 50 pixels"] = [_blurred(pixels, sigma) for pixels in group]
    if any(pixels.shape[2] == 3 and np.ptp(pixels, axis=2).any() for pixels in group):
        changes["without colour"] = [_grey(pixels) for pixels in group]
    return changes


def drawn() -> dict[str, Group]:
    """What is no medical image."""
    rng = np.random.default_rng(0)
    photographs = list(_photographs())
    screens = [_screenshot(rng, dark=number % 2 == 1) for number in range(6)]
    sides = (28, 50, 128, 500)
    return {
        "photographs": photographs,
        "photographs, 50-pixel pieces": [piece for photo in photographs for piece in _pieces(photo, 130)],
        "photographs, grey": [_grey(photo) for photo in photographs],
        "screenshots": screens,
        "screenshots, 50-pixel pieces": [piece for screen in screens for piece in _pieces(screen, 240)],
        "noise": [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in sides for _ in range(3)],
        "noise, faint": [_faint(rng, side, 3) for side in sides for _ in range(3)],
        "noise, grey": [_faint(rng, side, 1) for side in sides for _ in range(3)],
        "blank": [np.full((side, side, 3), shade, np.uint8) for side in sides for shade in (0, 90, 160, 255)],
    }


def print_leave_patients_out(folder: Path, *, repeats: int) -> None:
    """How many images of patients that a look was not fitted on it refuses, for several numbers of patients."""
    paths = [path for path in _paths(str(folder)) if parse_idc_name(Path(path).name)]
    patients = np.array([parse_idc_name(Path(path).name)[0] for path in paths])  # type: ignore[index]
    spec = Preprocessing(width=50, height=50)
    look = np.concatenate([measure_look(np.stack([spec.read(path) for path in block])) for block in _blocks(paths)])
    names = np.unique(patients)
    rng = np.random.default_rng(0)
    print("| patients fitted on | refused, of the others | in the worst choice | of the worst patient | threshold |")
    print("|---|---|---|---|---|")
    for n in (*(n for n in _PATIENTS if n < len(names) - 1), len(names) - 1):
        shares, worst, thresholds = [], [], []
        for repeat in range(repeats if n < len(names) - 1 else len(names)):
            chosen = rng.permutation(names)[:n] if n < len(names) - 1 else np.delete(names, repeat)
            shown = np.isin(patients, chosen)
            fitted = fit_look(look[shown], patients[shown], names=LOOK, visible=VISIBLE, chosen_on="")
            if isinstance(fitted, str):
                raise SystemExit(fitted)
            beyond = np.abs(fitted.distances(look[~shown])).max(axis=1) > fitted.threshold
            each = [float(beyond[patients[~shown] == name].mean()) for name in np.unique(patients[~shown])]
            shares.append(np.mean(each))
            worst.append(max(each))
            thresholds.append(fitted.threshold)
        cells = f"{np.mean(shares):.2%} | {max(shares):.2%} | {max(worst):.1%} | {np.median(thresholds):.2f}"
        print(f"| {n} | {cells} |")


def _named(argument: str) -> tuple[str, str]:
    name, separator, where = argument.partition("=")
    if not separator:
        raise SystemExit(f"{argument}: write NAME=PLACE.")
    return name, where


def _paths(where: str) -> Iterator[str]:
    place = Path(where)
    if place.suffix == ".npz":
        for name, shape in list_arrays(where).items():
            yield from (f"{where}/{name}/{row}" for row in range(shape[0] if len(shape) >= 3 else 0))
    elif place.is_dir():
        yield from (str(place / name) for name in walk_files(place) if is_image(name))
    else:
        yield from sorted(map(str, Path(place.anchor).glob(str(place.relative_to(place.anchor)))))


def _blocks(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    return (paths[start : start + 256] for start in range(0, len(paths), 256))


def _negative(pixels: Pixels) -> Pixels:
    negative: NDArray[np.uint8] | NDArray[np.uint16] = np.iinfo(pixels.dtype).max - pixels
    return negative


def _blurred(pixels: Pixels, sigma: float) -> Pixels:
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(sigma * max(pixels.shape[:2]) / 50)))
    return blurred.reshape(pixels.shape)


def _grey(pixels: Pixels) -> Pixels:
    return pixels if pixels.shape[2] == 1 else np.asarray(Image.fromarray(pixels).convert("L"))[:, :, np.newaxis]


def _faint(rng: np.random.Generator, side: int, channels: int) -> NDArray[np.uint8]:
    return np.clip(rng.normal(128, 40, (side, side, channels)), 0, 255).astype(np.uint8)


def _pieces(pixels: Pixels, step: int) -> Iterator[Pixels]:
    for top in range(0, pixels.shape[0] - 50, step):
        for left in range(0, pixels.shape[1] - 50, step):
            yield pixels[top : top + 50, left : left + 50]


def _photographs() -> Iterator[Pixels]:
    folder = Path(sklearn.datasets.__file__).parent / "images"
    face = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return (read_image(path) for path in (folder / "china.jpg", folder / "flower.jpg", face))


def _screenshot(rng: np.random.Generator, *, dark: bool) -> NDArray[np.uint8]:
    image = Image.new("RGB", (1280, 800), (30, 30, 40) if dark else (250, 250, 250))
    draw = ImageDraw.Draw(image)
    for number in range(60):
        left, top = int(rng.integers(0, 1200)), int(rng.integers(0, 780))
        colour = tuple(int(value) for value in rng.integers(0, 255, 3))
        if number % 6 == 0:
            draw.rectangle([left, top, left + 200, top + 60], outline=(90, 90, 200), fill=colour)
        draw.text((left, top), f"The quick brown fox {number}", fill=colour)
    return np.asarray(image)


if __name__ == "__main__":
    main()
