"""Writes the notebooks and executes them, so that several of one kind cannot drift apart: `make notebooks`.

    python notebooks/write.py [NAME ...]

A notebook of a recipe is a skeleton (`recipe_cells`) with the texts of that recipe (`RECIPES`). The cell of
parameters has the tag `parameters`: whoever executes a notebook may give others after it, as the tests do.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
NOTICE = "> For research and education. Clearmargin is not a medical device."
_TIMEOUT_S = 600

_EVERY_PART = """parts = ["train", "validation", "test"]
names = ["accuracy", "ppv", "sensitivity"]
pd.DataFrame(
    {part: {name: run.metrics[part]["image"][name]["value"] for name in names} for part in parts}
).round(3)"""
_CLASSES = """report = run.metrics["test"]["classification_report"]
print(f"accuracy {report.pop('accuracy'):.3f}")
pd.DataFrame(report).T.round(3)"""


@dataclass(frozen=True)
class Recipe:
    """What is told of a recipe, and what its notebook does besides."""

    title: str
    original: str
    """What the system did that the recipe reproduces."""
    changes: str
    """What becomes of it under an honest split."""
    look: str
    """On its augmentation."""
    epochs: int
    """That the notebook trains."""
    own: str
    """How many its author trained, in words."""
    keras: str | None = None
    """The Keras file as which the notebook saves the model too."""
    further: tuple[tuple[str, str], ...] = ()
    """Text and code of what its author showed besides."""


RECIPES = {
    "larger_model": Recipe(
        title="A CNN on data/benign and data/malignant",
        original="""Two convolutions (30 filters of 5×5, 15 of 3×3) with pooling, dropout 0.2, dense layers of 128 and
50, a softmax over two classes; pixels divided by 255, one-hot labels, categorical cross-entropy, Adam. Images were
divided at random into train and test, loss and accuracy were plotted, one test image and one new image were decided,
and the model was saved as a Keras `.h5` file and loaded again.""",
        changes="""The network, its loss and its optimizer are the author's. The split is by *patient*: with a random
split of images the same patients are on both sides, and the network is praised for knowing them again.""",
        look="The original changed no image.",
        epochs=10,
        own="10",
        keras="model.h5",
    ),
    "cbis_ddsm": Recipe(
        title="A mammogram CNN on CBIS-DDSM",
        original="""64×64 pixels; convolutions of 32 and 64 filters (3×3), each with pooling; a dense layer of 64,
dropout 0.3, a sigmoid. Images were turned, shifted, zoomed and flipped at random; Adam, binary cross-entropy, batches
of 16; 20 % for validation, early stopping with patience 3, and two epochs as shown. Plots of accuracy and loss.""",
        changes="""A woman has two views of each breast and often several lesions: split image by image, her other view
is in training. Here all that is hers stays on one side, and the test part is seen by nobody before the end.""",
        look="Turned by up to 20°, shifted, zoomed and flipped, as the author did.",
        epochs=8,
        own="2, on many more images; it stops by itself",
    ),
    "cnn_50": Recipe(
        title="A histology CNN on 50×50 patches",
        original="""Three blocks of convolution, ReLU, dropout and pooling on 50×50 RGB patches, two dense layers, a
sigmoid; Adam, binary cross-entropy, batches of 32, up to 200 epochs. Accuracy, precision and recall on train,
validation and test, a picture of the confusion matrix, a classification report.""",
        changes="""Patches of one slide share stain, scanner and tissue. Two hundred epochs are enough to learn the
patients by heart, which a random split rewards and a split by patient does not. Precision and recall are those at a
threshold that was chosen on validation, not at 0.5.""",
        look="The original changed no image.",
        epochs=8,
        own="up to 200",
        further=(
            (
                """Accuracy, precision (PPV) and recall (sensitivity) on train, validation and test, as the original
gave them. A large fall from left to right means that the model learned its training images by heart.""",
                _EVERY_PART,
            ),
            (
                "And its classification report, of test images of patients never seen:",
                _CLASSES,
            ),
        ),
    ),
    "cnn_3conv": Recipe(
        title="Three convolutions on histology patches",
        original="""A notebook: three convolutions with pooling and a dense layer; images resized, normalised and
changed at random; an adjustable number of epochs; curves and a confusion matrix. On its wish list: transfer learning,
a web app, Grad-CAM.""",
        changes="""The network is the author's, the split is by patient. The wishes are there too: Grad-CAM below,
pretrained networks by `recipe="transfer"` ([how](../docs/transfer.md)), and the web app by `clearmargin serve RUN`
([how](../docs/serve.md)).""",
        look="Turned by up to 20°, zoomed and flipped.",
        epochs=8,
        own="20, adjustable",
    ),
    "cancernet": Recipe(
        title="CancerNet on IDC patches",
        original="""Separable convolutions (32; 64, 64; 128, 128, 128) with ReLU and batch normalisation, pooling and
dropout 0.25 after each group, a dense layer of 256, a softmax over two classes; 48×48 pixels; Adagrad with a decaying
rate, class weights, 40 epochs. 277,524 patches were divided at random, 80 % to train, 10 % to validate and 10 % to
test; a confusion matrix.""",
        changes="""The names of these files, as `8863_idx5_x451_y1451_class0.png`, tell the patient: 8863 has hundreds
of patches, and a random division puts some of them into each part. Here the patients are divided, not the patches.""",
        look="Turned by up to 20°, zoomed, shifted, sheared and flipped.",
        epochs=8,
        own="40",
    ),
    "default": Recipe(
        title="What we recommend",
        original="""There is none: this recipe reproduces nobody. A small residual network, AdamW with a cosine
schedule; four networks, each trained without another part of the patients, are averaged, so that the threshold is
chosen on all of these patients; where the places of patches on a slide are known, the neighbours of a patch count
too.""",
        changes="""It is split by patient from the beginning. The second training below, with a random split, is there
to show what that would have promised.""",
        look="Any turn and flip, zoom, and another stain each time: what differs from one laboratory to the next.",
        epochs=2,
        own="12, and more where images are few",
    ),
}


def recipe_cells(name: str) -> list[NotebookNode]:
    """The skeleton of a recipe's notebook, filled in."""
    recipe = RECIPES[name]
    return [
        text(f"""# {recipe.title}: `{name}`

**The original.** {recipe.original}

**What changes here.** {recipe.changes}

Your own images go in at the top. Where there are none yet, *phantom* images are drawn: patches of synthetic slides,
without any download. Their figures say nothing about tissue; how they are worked out does not differ.

{NOTICE}"""),
        parameters(f"""DATA = "path/to/your/folder"  # with benign/ and malignant/, or another layout of docs/data.md
PATIENT_REGEX = None  # finds the patient in each path where the layout does not tell, as r"(P\\d+)_"
NEW_IMAGE = None  # the path of an image to decide in the end; None draws one
FRACTIONS = [0.6, 0.2, 0.2]  # of the patients, to train, validate and test; its own: 0.8, 0.1, 0.1
EPOCHS = {recipe.epochs}  # its own: {recipe.own}
SETTINGS = {{}}  # any other setting by its dotted key, see docs/settings.md
PHANTOM = {{"patients": 48, "patches_per_patient": 12}}  # what is drawn where DATA is not there"""),
        code(f"""from datetime import datetime
from pathlib import Path

import pandas as pd

import clearmargin

OUT = Path(f"{name}-{{datetime.now():%Y%m%d-%H%M%S}}")  # all that this notebook writes
if not Path(DATA).exists():
    print("DATA is not there: phantom images are drawn instead.")
    DATA = clearmargin.write_phantom(OUT / "phantom", clearmargin.PhantomSettings(**PHANTOM))"""),
        text("""## Load, and look

The audit finds what is wrong with the images before anything is trained on them. Originals are never changed."""),
        code("""audit = clearmargin.audit(DATA, patient_regex=PATIENT_REGEX)
audit"""),
        code("audit.manifest"),
        text("Who is trained on, and who is tested on. A patient is on one side only."),
        code("clearmargin.split(DATA, fractions=FRACTIONS, patient_regex=PATIENT_REGEX)"),
        text(f"What training makes of images, by the very code that trains. {recipe.look}"),
        code(f"""clearmargin.show_augmentations(DATA, recipe="{name}", patient_regex=PATIENT_REGEX)"""),
        text("""## Train

The curves are drawn anew after each epoch."""),
        code(f"""how = {{
    "recipe": "{name}",
    "epochs": EPOCHS,
    "settings": {{"split.fractions": FRACTIONS, **SETTINGS}},
    "patient_regex": PATIENT_REGEX,
}}
run = clearmargin.train(DATA, OUT / "run", **how, listener=clearmargin.LiveCurves())"""),
        text("""## Evaluate

On patients never seen in training, each figure with an interval over patients, at a threshold that was chosen on
validation."""),
        code("run"),
        text("The confusion matrix as a table to go on with:"),
        code("""pd.DataFrame(
    run.metrics["test"]["image"]["confusion"],
    index=["truly benign", "truly malignant"],
    columns=["called benign", "called malignant"],
)"""),
        *(cell for what, lines in recipe.further for cell in (text(what), code(lines))),
        text("""## What a random split would have promised

The same once more, split image by image. All that comes of it bears the stamp *image-level split: optimistic*. On few
images either of the two may be higher: look at the intervals. `clearmargin.optimism` measures the difference properly,
fold by fold; [what it is on IDC](../docs/benchmarks.md)."""),
        code("""by_image = clearmargin.train(
    DATA, OUT / "by_image", by="image", **how, listener=clearmargin.LiveCurves()
)"""),
        code("""def headline(run):
    figures = run.metrics["test"]["image"]
    low, high = figures["auroc"]["ci"] or (None, None)
    return {
        "AUROC": figures["auroc"]["value"],
        "low": low,
        "high": high,
        "accuracy": figures["accuracy"]["value"],
        "stamp": run.metrics["protocol"].get("stamp", ""),
    }


pd.DataFrame([headline(run), headline(by_image)], index=["by patient", "by image"]).round(3)"""),
        text("""## Predict

What decides travels with the model: calibration, threshold, and where it says *cannot tell*."""),
        code("""predictor = clearmargin.load_bundle(run.folder)
predictor"""),
        text("Test images, from the least to the most suspicious:"),
        code("""predictions = pd.read_csv(OUT / "run" / "predictions.csv")
test = predictions[predictions["split"] == "test"].sort_values("probability")
chosen = test["path"].iloc[:: max(1, len(test) // 5)].tolist()
predictor.predict(chosen)"""),
        text("And a new image. One that is unlike the training images is refused, with the reason."),
        code("""if NEW_IMAGE is None:
    stranger = clearmargin.PhantomSettings(patients=1, patches_per_patient=4, seed=7)
    NEW_IMAGE = sorted(clearmargin.write_phantom(OUT / "new", stranger).rglob("*_class1.png"))[0]
predictor.predict([NEW_IMAGE])"""),
        text("""## Explain

Which places moved the network: the image, and the map over it, on a scale of colours that is the same for every image
of this model ([how far each method can be believed](../docs/explain.md))."""),
        code("""clearmargin.explain(run.folder, chosen[-1:], OUT / "explained")"""),
        text("""## Save, and load again

All of the model in one file, which gives the same answers."""),
        code("""clearmargin.export(run.folder, OUT / "model.clearmargin", to="clearmargin")
again = clearmargin.load_bundle(OUT / "model.clearmargin")
assert again.predict(chosen).equals(predictor.predict(chosen))
again"""),
        *(_keras_cells(recipe.keras) if recipe.keras else ()),
        text("""## Further

- `clearmargin.evaluate(run.folder, OTHER_DATA, OUT / "elsewhere")`: the same model on another hospital's images.
- `clearmargin.compare([run.folder, OTHER_RUN])`: whether two models differ.
- `clearmargin serve RUN`: a page to drop images on ([docs](../docs/serve.md)).
- All [recipes](../docs/recipes.md), and what their descriptions left open."""),
    ]


def _keras_cells(file: str) -> list[NotebookNode]:
    return [
        text("""And for Keras. Such a file holds the network alone: calibration and threshold stay behind, its logits
are the same."""),
        code(f"""from clearmargin.types import Record

clearmargin.export(run.folder, OUT / "{file}", to="keras")
clearmargin.import_keras(OUT / "{file}", OUT / "from_keras", fit="pad")  # as the recipe fits images


def logits(bundle):
    records = [Record(path) for path in chosen]
    predictor = clearmargin.load_bundle(bundle, gate=False)
    return [each.logit for each in predictor.predict_records(records, context=False)]


pairs = list(zip(logits(OUT / "from_keras"), logits(run.folder), strict=True))
assert all(abs(a - b) < 1e-3 for a, b in pairs)
f"{{len(pairs)}} logits, the same before and after\""""),
    ]


def quickstart_cells() -> list[NotebookNode]:
    """From nothing to a decision on a new patient."""
    return [
        text(f"""# Clearmargin in five minutes

From a folder of images to a model, an honest figure and a decision on a new patient. Nothing is downloaded: the images
are *phantoms*, patches of synthetic slides. When you are through, put the path of your own folder in the place of
`DATA`.

{NOTICE}"""),
        parameters("""PHANTOM = {"patients": 48, "patches_per_patient": 12}  # what is drawn
EPOCHS = 10
SETTINGS = {"split.fractions": [0.6, 0.2, 0.2]}  # any setting by its dotted key, see docs/settings.md"""),
        code("""from datetime import datetime
from pathlib import Path

import clearmargin

OUT = Path(f"quickstart-{datetime.now():%Y%m%d-%H%M%S}")  # all that this notebook writes
DATA = clearmargin.write_phantom(OUT / "phantom", clearmargin.PhantomSettings(**PHANTOM))"""),
        text("""## 1. What is wrong with the images?

Damaged files, copies, patients on two sides, what can be told without looking at the tissue: before anything is
trained."""),
        code("clearmargin.audit(DATA)"),
        text("""## 2. Train

Patients never cross the split. Here a small recipe is trained; leave `recipe` out for the one that we recommend, which
takes longer."""),
        code("""run = clearmargin.train(
    DATA,
    OUT / "run",
    recipe="larger_model",
    epochs=EPOCHS,
    settings=SETTINGS,
    listener=clearmargin.LiveCurves(),
)"""),
        text("""## 3. How good is it?

On patients never seen, each figure with an interval over patients."""),
        code("run"),
        text("""## 4. A new patient

The threshold was chosen on validation and travels inside the model. It may answer *cannot tell*, and refuses what is
unlike its training images."""),
        code("""stranger = clearmargin.PhantomSettings(patients=1, patches_per_patient=6, seed=7)
images = sorted(clearmargin.write_phantom(OUT / "new", stranger).rglob("*.png"))
predictor = clearmargin.load_bundle(run.folder)
predictor.predict(images)"""),
        text("""## 5. Why?

Which places moved the network: evidence for this network, not for disease."""),
        code("""clearmargin.explain(run.folder, images[-1:], OUT / "explained")"""),
        text("""## 6. Carry it away

One file, taken wherever a model is: `clearmargin predict model.clearmargin IMAGES`."""),
        code("""clearmargin.export(run.folder, OUT / "model.clearmargin", to="clearmargin")
again = clearmargin.load_bundle(OUT / "model.clearmargin")
assert again.predict(images).equals(predictor.predict(images))
again"""),
        text("""## Further

- Your own images: [which layouts are recognised](../docs/data.md), and `patient_regex=` where names tell the patient.
- A notebook for each [recipe](../docs/recipes.md) lies beside this one.
- [What each figure promises](../docs/evidence.md)."""),
    ]


NAMES = ("quickstart", *RECIPES)
"""Every notebook."""


def text(source: str) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(source)


def code(source: str) -> NotebookNode:
    return nbformat.v4.new_code_cell(source)


def parameters(source: str) -> NotebookNode:
    """A cell after which others may be given."""
    cell = code(source)
    cell.metadata["tags"] = ["parameters"]
    return cell


def build(name: str) -> NotebookNode:
    """The notebook without outputs; the same each time."""
    cells = recipe_cells(name) if name in RECIPES else quickstart_cells()
    for number, cell in enumerate(cells):
        cell["id"] = f"{name}-{number:02}"
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def execute(notebook: NotebookNode, folder: Path, *, given: Mapping[str, Any] | None = None) -> NotebookNode:
    """The notebook with the outputs that it has when it is executed in this folder.

    Args:
        notebook: as `build` gives it; it is changed.
        folder: where its kernel stands.
        given: parameters that take the place of those of the notebook.

    Raises:
        CellExecutionError: a cell failed.
    """
    if given:
        tagged = [number for number, cell in enumerate(notebook.cells) if cell.metadata.get("tags") == ["parameters"]]
        lines = [f"{name} = {value!r}" for name, value in given.items()]
        notebook.cells.insert(tagged[0] + 1, code("\n".join(lines)))
    client = NotebookClient(
        notebook,
        timeout=_TIMEOUT_S,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],
    )
    client.execute()
    return notebook


def outputs_of(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def problems(notebook: NotebookNode) -> list[str]:
    """What a reader should not meet: whatever the cells write to standard error, as warnings."""
    streams = [output for output in outputs_of(notebook) if output["output_type"] == "stream"]
    return [output["text"] for output in streams if output["name"] == "stderr"]


def without_places(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """The notebook without times of execution, and without the folder in which it was executed."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    shown: NotebookNode = nbformat.from_dict(json.loads(json.dumps(notebook).replace(f"{folder}/", "")))
    return shown


def main() -> None:
    """Writes the notebooks that are named, executed; all of them where none is."""
    parser = argparse.ArgumentParser(description="Writes the notebooks and executes them.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all when none is given")
    parser.add_argument("--into", type=Path, default=HERE, help="the folder to write them to")
    parser.add_argument("--given", type=json.loads, default={}, help="parameters in place of theirs, as JSON")
    asked = parser.parse_args()
    for name in asked.names or NAMES:
        with tempfile.TemporaryDirectory(prefix="nb") as folder:
            done = without_places(execute(build(name), Path(folder), given=asked.given), Path(folder))
        if found := problems(done):
            raise SystemExit(f"{name}: writes to standard error: {found[0]}")
        file = asked.into / f"{name}.ipynb"
        nbformat.write(done, file)
        print(f"{file.name}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
