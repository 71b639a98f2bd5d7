"""A folder in which the command lines of the documents can be run as they are written.

What a document calls DATA, RUN or `fix.txt` is put there under that very name, small and drawn. THINGS says what a name
stands for: a page with a name of its own adds a line.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
from tests.data.layouts import write_breastmnist, zip_folder
from tests.docs.archives import DICOM_LABELS, write_archive, write_official
from tests.images.dicom_files import dicom_bytes, phantom
from tests.models.keras_squeezenet import write_weights
from tests.small_run import write_patches

from clearmargin.cli import main
from clearmargin.data.phantom import PhantomSettings, write_phantom

PX = 24
SMALL = {"evaluate.resamples": 100, "train.batch_size": 16, "train.crossfit": 0, "train.min_steps": 0}
"""Settings that make a training small."""
QUICK = ["--epochs", "1", *(word for key, value in SMALL.items() for word in ("--set", f"{key}={value}"))]
"""The same on the command line."""


@dataclass(frozen=True)
class Stage:
    """The things themselves, each made once, when it is first needed."""

    root: Path

    def put(self, name: str, folder: Path) -> None:
        """The thing of this name, or the one in which it lies, below `folder`."""
        key = find_thing(name)
        assert key is not None, name
        target = folder / key
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        source = THINGS[key](self)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)

    @cached_property
    def data(self) -> Path:
        """40 patches of 10 patients, as in IDC."""
        write_patches(self.root / "data", patients=10, per_class=2, px=PX)
        return self.root / "data"

    @cached_property
    def plain(self) -> Path:
        """The same in two folders, with the patient in each name."""
        for file in sorted(self.data.rglob("*.png")):
            kind = "malignant" if file.parent.name == "1" else "benign"
            target = self.root / "plain" / kind / f"{file.name.partition('_')[0]}_{file.stem[-14:]}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        return self.root / "plain"

    @cached_property
    def demo_data(self) -> Path:
        """What the demo draws, of fewer patients."""
        return write_phantom(self.root / "demo", PhantomSettings(patients=8, patches_per_patient=12, patch_px=PX))

    @cached_property
    def demo_run(self) -> Path:
        """What the demo trains, of one epoch."""
        return self.train("demo_run", self.demo_data)

    @cached_property
    def image(self) -> Path:
        """One patch without a place."""
        file = self.root / "image.png"
        shutil.copyfile(next(self.data.rglob("*class1.png")), file)
        return file

    @cached_property
    def dicom_file(self) -> Path:
        """A mammogram."""
        file = self.root / "mammogram.dcm"
        file.write_bytes(dicom_bytes(phantom()))
        return file

    @cached_property
    def run(self) -> Path:
        """A run on `data`, whose bundle carries cases."""
        return self.train("run", self.data, "--set", "cases.keep=on")

    @cached_property
    def other_run(self) -> Path:
        """Another one, of another network on the same split."""
        return self.train("other", self.data, "--model", "cnn_50", "--set", "cases.keep=on")

    def train(self, name: str, data: Path, *words: str) -> Path:
        """A run on the data with these options."""
        assert main(["train", str(data), "--out", str(self.root / name), *words, *QUICK]) == 0
        return self.root / name

    @cached_property
    def single_file(self) -> Path:
        """The bundle of `run` as one file."""
        return self.export("model.clearmargin")

    @cached_property
    def keras_file(self) -> Path:
        """The network of the other run as a Keras file."""
        return self.export("model.keras", run=self.other_run)

    @cached_property
    def h5_file(self) -> Path:
        """The same as an .h5 file."""
        return self.export("model.h5", run=self.other_run)

    @cached_property
    def onnx_file(self) -> Path:
        """The network of the run as ONNX."""
        return self.export("model.onnx")

    def export(self, name: str, *, run: Path | None = None) -> Path:
        """A file of the bundle, by the ending of its name."""
        to = {"h5": "keras"}.get(name.rpartition(".")[2], name.rpartition(".")[2])
        assert main(["export", str(run or self.run), "--to", to, "--out", str(self.root / name)]) == 0
        return self.root / name

    @cached_property
    def weights(self) -> Path:
        """Weights of SqueezeNet, random and small: features of random ones are as large as no image makes them."""
        file = write_weights(self.root / "weights.h5")
        with h5py.File(file, "a") as weights:
            weights.visititems(lambda _, each: each.write_direct(0.6 * each[...]) if hasattr(each, "shape") else None)
        return file

    @cached_property
    def cancernet_weights(self) -> Path:
        """Weights alone of the recipe's network, in a Keras file."""
        file = self.root / "cancernet_weights.h5"
        run = self.train("cancernet", self.data, "--recipe", "cancernet")
        with h5py.File(self.export("cancernet.h5", run=run)) as whole, h5py.File(file, "w") as bare:
            weights = whole["model_weights"]
            for name in weights:
                whole.copy(weights[name], bare)
            bare.attrs.update(weights.attrs)
        return file

    def archive(self, name: str) -> Path:
        """A published set in its layout, by the name of its source; see `archives.py`."""
        folder = self.root / "archives" / name
        if not folder.exists():
            write_archive(folder, name)
        return folder

    @cached_property
    def table(self) -> Path:
        """A table of the images of `data`."""
        rows = [f"{file},{file.parent.name},{file.name.split('_')[0]}" for file in sorted(self.data.rglob("*.png"))]
        return self.text("table.csv", "path,label,patient_id\n" + "".join(f"{row}\n" for row in rows))

    def zipped(self, folder: Path) -> Path:
        """A .zip of the folder."""
        file = self.root / f"{folder.name}.zip"
        return file if file.exists() else zip_folder(folder, file)

    def text(self, name: str, content: str) -> Path:
        """A text file."""
        file = self.root / "texts" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content, encoding="utf-8")
        return file

    @cached_property
    def foreign_table(self) -> Path:
        """Predictions of other software on the images of the run."""
        import pandas as pd

        table = pd.read_csv(self.run / "predictions.csv")[["path", "patient_id", "label", "probability"]]
        return self.text("other.csv", table.to_csv(index=False))

    @cached_property
    def split(self) -> Path:
        """A split of the data."""
        assert main(["split", str(self.data), "--out", str(self.root / "split.csv")]) == 0
        return self.root / "split.csv"

    @cached_property
    def breastmnist(self) -> Path:
        """An .npz file with 40 images of which 16 are malignant."""
        return write_breastmnist(self.root / "npz", sizes={"train": 24, "val": 8, "test": 8})


LAYOUT_THINGS: dict[str, Callable[[Stage], Path]] = {
    "BREAKHIS": lambda stage: stage.archive("breakhis"),
    "BUSI": lambda stage: stage.archive("busi"),
    "MIAS": lambda stage: stage.archive("mias"),
    "PCAM": lambda stage: stage.archive("pcam"),
    "CBIS": lambda stage: stage.archive("cbis_ddsm"),
    "DICOM": lambda stage: stage.archive("dicom"),
    "IDC_OFFICIAL": lambda stage: write_official(stage.root / "official"),
}
"""Published sets: what a page trains on them is run up to the split: they are small, and their layout is the point."""
THINGS: dict[str, Callable[[Stage], Path]] = {
    **dict.fromkeys(["DATA", "OTHER_DATA", "THIRD_DATA", "IDC", "data/idc"], lambda stage: stage.data),
    **dict.fromkeys(["IMAGES", "NEW_IMAGES", "OTHER_IMAGES", "SLIDE", "patches", "slides"], lambda stage: stage.data),
    **dict.fromkeys(["IMAGE", "a.png", "b.png", "patch.png", "new.png", "IMAGE.png"], lambda stage: stage.image),
    "FOLDER": lambda stage: stage.data / "P00",
    "b.dcm": lambda stage: stage.dicom_file,
    **dict.fromkeys(["RUN", "RUN_A"], lambda stage: stage.run),
    **dict.fromkeys(["RUN2", "RUN3", "RUN_B", "RUN_C", "OTHER_RUN"], lambda stage: stage.other_run),
    **dict.fromkeys(["BUNDLE", "NEW_BUNDLE"], lambda stage: stage.run / "bundle"),
    "model.clearmargin": lambda stage: stage.single_file,
    "model.onnx": lambda stage: stage.onnx_file,
    **dict.fromkeys(["MODEL.h5", "model.h5"], lambda stage: stage.h5_file),
    **dict.fromkeys(["MODEL.keras", "model.keras"], lambda stage: stage.keras_file),
    "WEIGHTS.h5": lambda stage: stage.cancernet_weights,
    "squeezenet_notop.h5": lambda stage: stage.weights,
    "breastmnist.npz": lambda stage: stage.breastmnist,
    "data/breastmnist.npz": lambda stage: stage.breastmnist,
    "IDC.zip": lambda stage: stage.zipped(stage.data),
    **LAYOUT_THINGS,
    "demo/run": lambda stage: stage.demo_run,
    "demo/data": lambda stage: stage.demo_data,
    "my_images": lambda stage: stage.plain,
    "table.csv": lambda stage: stage.table,
    "labels.csv": lambda stage: stage.text("labels.csv", DICOM_LABELS),
    "other.csv": lambda stage: stage.foreign_table,
    "split.csv": lambda stage: stage.split,
    "fix.txt": lambda stage: stage.text("fix.txt", ""),
    "space.toml": lambda stage: stage.text("space.toml", '"train.learning_rate" = [0.001, 0.002]\n'),
    "TOKEN": lambda stage: stage.text("TOKEN", "0123456789abcdef0123456789abcdef\n"),
}
"""What the names in documents stand for; a name with a folder in front may be listed by its folder alone."""


def find_thing(name: str) -> str | None:
    """The key of THINGS for a path: the path itself, or the folder in which it lies; None where there is none."""
    return next((key for each in (Path(name), *Path(name).parents) if (key := each.as_posix()) in THINGS), None)


WORDS = {"RECIPE": "cancernet", "NAME": "residual", "K": "2", "SEED": "1"}
"""Words in capitals that are no files."""
