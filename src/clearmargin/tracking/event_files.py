"""TensorBoard: event files in RUN/tensorboard, or in DIR/<name of the run folder> where DIR is given.

Each network and each fold has a folder of its own there, which TensorBoard shows as a run of its own. The writer is
that of torch, which training has imported anyway; it needs the package tensorboard for the format alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clearmargin.errors import UsageError
from clearmargin.tracking.facts import Result, Settings, begin_tags, draw_pictures
from clearmargin.tracking.kept import Kept
from clearmargin.tracking.places import Place
from clearmargin.tracking.tracker import LAST_WRITTEN, Status, Tracker, epoch_metrics

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_PATTERN = "events.out.tfevents.*"


class EventFiles(Tracker):
    name = "tensorboard"
    libraries = ("tensorboard",)

    def __init__(self, where: str, out: Path) -> None:
        run = out.absolute()
        self.folder = Path(where).absolute() / run.name if where else run / "tensorboard"
        self.kept = Kept(str(Path(where).absolute()) if where else "")
        self._writers: dict[str, SummaryWriter] = {}
        self._stale: list[Path] = []

    def check(self, *, goes_on: bool, before: Kept | None) -> None:
        blocked = next((place for place in (self.folder, *self.folder.parents) if place.is_file()), None)
        if blocked is not None:
            raise UsageError(f"{blocked}: is a file; give a folder with --track tensorboard:DIR.")
        there = list(self._events(self.folder))
        own = before is not None and before.where == self.kept.where
        if there and not own:
            raise UsageError(
                f"{self.folder}: holds the events of another run, and both would be one curve. Give another folder "
                "with --track tensorboard:DIR, or delete that one."
            )
        self._stale = [] if goes_on else there

    def begin(self, settings: Settings, known: Kept | None) -> None:
        for file in self._stale:  # of a run in this run folder that ended before it had trained an epoch
            file.unlink(missing_ok=True)
        writer = self._writer("")
        if known is not None:
            self.kept = known
        else:
            writer.add_text("settings", f"```\n{settings.text}\n```")
            writer.add_text("run", _as_table(begin_tags(settings)))
            writer.flush()

    def last_epoch(self, place: Place) -> int:
        from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

        steps = [
            event.step
            for file in self._events(self._place(place), deep=False)
            for event in LegacyEventFileLoader(str(file)).Load()
            if any(value.tag == LAST_WRITTEN for value in event.summary.value)
        ]
        return max(steps, default=0)

    def write_epochs(self, place: Place, rows: Sequence[Mapping[str, float]]) -> None:
        writer = self._writer(str(self._place(place).relative_to(self.folder)))
        for row in rows:
            for name, value in epoch_metrics(row).items():
                writer.add_scalar(name, value, int(row["epoch"]))
        writer.flush()

    def write_result(self, run: str, result: Result) -> None:
        from torch.utils.tensorboard.summary import hparams

        writer = self._writer(run)
        for name, value in result.figures.items():
            writer.add_scalar(name, value, 0)
        values = {key: value if isinstance(value, (bool, int, float)) else str(value) for key, value in _plain(result)}
        for summary in hparams(values, dict.fromkeys(result.figures, 0.0)):
            writer.file_writer.add_summary(summary)
        writer.add_text("run", _as_table(result.tags), 1)
        for name, png in ({} if run else draw_pictures(result.folder)).items():
            writer.file_writer.add_summary(_picture(name, png), 0)
        writer.flush()
        self._close([name for name in self._writers if run and (name == run or name.startswith(f"{run}/"))])

    def end(self, status: Status) -> None:
        self._close(list(self._writers))

    def _place(self, place: Place) -> Path:
        return self.folder / place.run / place.network

    def _writer(self, name: str) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        name = "" if name == "." else name
        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self.folder / name))
        return self._writers[name]

    def _close(self, names: list[str]) -> None:
        for name in names:
            self._writers.pop(name).close()

    @staticmethod
    def _events(folder: Path, *, deep: bool = True) -> Iterator[Path]:
        return folder.rglob(_PATTERN) if deep else folder.glob(_PATTERN)


def _plain(result: Result) -> list[tuple[str, object]]:
    tags = {name: result.tags[name] for name in ("split", "stamp") if name in result.tags}
    return [*result.settings.values.items(), *tags.items()]


def _as_table(tags: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in tags.items())])


def _picture(name: str, png: bytes) -> object:
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    with Image.open(io.BytesIO(png)) as image:
        width, height = image.size
    shown = Summary.Image(encoded_image_string=png, width=width, height=height, colorspace=4)
    return Summary(value=[Summary.Value(tag=f"test/{name}", image=shown)])
