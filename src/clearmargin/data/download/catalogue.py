"""DOWNLOADS: the public data sets that `clearmargin download` knows, and where their owners keep them.

An address, a size or a checksum stands here only where its publisher gives it; what has no open address says what to
fetch by hand. MD5 sums of BreastMNIST are those of the `medmnist` package, which publishes the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal[".zip", ".npz", ".tar.gz"]

_MAX_BYTES = 16 * 10**9  # of a file whose size is not published

_ZENODO = "https://zenodo.org/records/10519652"
_KAGGLE = "https://www.kaggle.com"
_KAGGLE_DATA = f"{_KAGGLE}/api/v1/datasets/download"
_BREASTMNIST_LICENCE = "CC BY 4.0; cite Yang 2023 (doi:10.1038/s41597-022-01721-8) and Al-Dhabyani 2020"
_BUSI_LICENCE = "see its page; cite Al-Dhabyani 2020 (doi:10.1016/j.dib.2019.104863)"
_BREAKHIS_LICENCE = "CC BY 4.0; cite Spanhol 2016 (doi:10.1109/TBME.2015.2496264)"
_DDSM_LICENCE = "CC BY 3.0; cite Sawyer-Lee 2016 (doi:10.7937/K9/TCIA.2016.7O02S9CY) and Lee 2017"


@dataclass(frozen=True, slots=True)
class Download:
    """One data set: what it is, whose rules hold, and where it comes from.

    `url` is None where nothing can be fetched without hands; `by_hand` then says what to do. `file` is the name under
    the output folder: of the file, or of the folder that is filled by hand. `about_bytes` is approximate.
    `checksum` is `md5:…` or `sha256:…` as published. `kaggle` asks for a Kaggle token.
    """

    summary: str
    page: str
    licence: str
    file: str
    url: str | None = None
    about_bytes: int | None = None
    checksum: str | None = None
    kaggle: bool = False
    by_hand: str = ""

    @property
    def kind(self) -> Kind | None:
        """How the file is packed; None of a folder.

        >>> Download("", "", "", "all-mias.tar.gz").kind
        '.tar.gz'
        """
        kinds: tuple[Kind, ...] = (".zip", ".npz", ".tar.gz")
        return next((kind for kind in kinds if self.file.endswith(kind)), None)

    @property
    def max_bytes(self) -> int:
        """More than this is not the data set, whatever the server says."""
        return _MAX_BYTES if self.about_bytes is None else 4 * self.about_bytes

    def remedy(self, out: Path) -> str:
        """The sentence that says what to fetch by hand, from which page, and where to put it."""
        steps = self.by_hand or f"Fetch {self.file} by hand from {self.page}"
        return f"{steps} and put it at {out / self.file}."


def _breastmnist(file: str, px: int, about_bytes: int, md5: str) -> Download:
    return Download(
        summary=f"BreastMNIST, 780 ultrasound images of {px} × {px} pixels with an official split",
        page=_ZENODO,
        licence=_BREASTMNIST_LICENCE,
        file=file,
        url=f"{_ZENODO}/files/{file}",
        about_bytes=about_bytes,
        checksum=f"md5:{md5}",
    )


DOWNLOADS: dict[str, Download] = {
    "breastmnist": _breastmnist("breastmnist.npz", 28, 559_580, "750601b1f35ba3300ea97c75c52ff8f6"),
    "breastmnist_64": _breastmnist("breastmnist_64.npz", 64, 3_000_000, "742edef2a1fd1524b2efff4bd7ba9364"),
    "breastmnist_128": _breastmnist("breastmnist_128.npz", 128, 11_000_000, "363e4b3f8d712e9b5de15470a2aaadf1"),
    "breastmnist_224": _breastmnist("breastmnist_224.npz", 224, 30_000_000, "b56378a6eefa9fed602bb16d192d4c8b"),
    "mias": Download(
        summary="mini-MIAS, 322 mammograms of 161 women, 1024 × 1024 pixels",
        page="http://peipa.essex.ac.uk/info/mias.html",
        licence=(
            "MIAS licence agreement (Licence.txt in the archive): for research purposes only; not to be rented, leased "
            "or sold; refer to the database in publications. To use it is to agree"
        ),
        file="all-mias.tar.gz",
        url="http://peipa.essex.ac.uk/pix/mias/all-mias.tar.gz",
    ),
    "breakhis": Download(
        summary="BreaKHis, 7,909 histology images of 82 patients at four magnifications",
        page="https://web.inf.ufpr.br/vri/databases/breast-cancer-histopathological-database-breakhis/",
        licence=_BREAKHIS_LICENCE,
        file="BreaKHis_v1.tar.gz",
        url="http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz",
        about_bytes=4_000_000_000,
    ),
    "breakhis_kaggle": Download(
        summary="BreaKHis as copied to Kaggle, for when its own server is away",
        page=f"{_KAGGLE}/datasets/ambarish/breakhis",
        licence=_BREAKHIS_LICENCE,
        file="breakhis.zip",
        url=f"{_KAGGLE_DATA}/ambarish/breakhis",
        about_bytes=4_000_000_000,
        kaggle=True,
    ),
    "busi": Download(
        summary="BUSI, 780 breast ultrasound images (benign, malignant, normal) with masks",
        page="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
        licence=_BUSI_LICENCE,
        file="Dataset_BUSI.zip",
        url="https://scholar.cu.edu.eg/Dataset_BUSI.zip",
        about_bytes=200_000_000,
    ),
    "busi_kaggle": Download(
        summary="BUSI as copied to Kaggle, for when its own server is away",
        page=f"{_KAGGLE}/datasets/aryashah2k/breast-ultrasound-images-dataset",
        licence=_BUSI_LICENCE,
        file="breast-ultrasound-images-dataset.zip",
        url=f"{_KAGGLE_DATA}/aryashah2k/breast-ultrasound-images-dataset",
        about_bytes=200_000_000,
        kaggle=True,
    ),
    "idc": Download(
        summary="IDC, 277,524 histology patches of 279 patient ids, 50 × 50 pixels",
        page=f"{_KAGGLE}/datasets/paultimothymooney/breast-histopathology-images",
        licence="see its page; cite Cruz-Roa 2014 (doi:10.1117/12.2043872) and Janowczyk 2016",
        file="breast-histopathology-images.zip",
        url=f"{_KAGGLE_DATA}/paultimothymooney/breast-histopathology-images",
        about_bytes=3_300_000_000,
        kaggle=True,
    ),
    "cbis_ddsm": Download(
        summary="CBIS-DDSM as JPEG: 10,239 mammograms, lesions and masks of 1,566 patients with an official split",
        page=f"{_KAGGLE}/datasets/awsaf49/cbis-ddsm-breast-cancer-image-dataset",
        licence=_DDSM_LICENCE,
        file="cbis-ddsm-breast-cancer-image-dataset.zip",
        url=f"{_KAGGLE_DATA}/awsaf49/cbis-ddsm-breast-cancer-image-dataset",
        about_bytes=6_000_000_000,
        kaggle=True,
    ),
    "cbis_ddsm_dicom": Download(
        summary="CBIS-DDSM as DICOM, in full depth, from The Cancer Imaging Archive",
        page="https://www.cancerimagingarchive.net/collection/cbis-ddsm/",
        licence=_DDSM_LICENCE,
        file="cbis_ddsm_dicom",
        about_bytes=163_600_000_000,
        by_hand=(
            "Open https://www.cancerimagingarchive.net/collection/cbis-ddsm/, save the .tcia manifest and the four "
            "case description CSVs, open the manifest with the NBIA Data Retriever, let it fetch the CBIS-DDSM folder"
        ),
    ),
    "pcam": Download(
        summary="PCam, the Kaggle histopathologic-cancer-detection edition: 96 × 96 patches, label of the centre",
        page=f"{_KAGGLE}/competitions/histopathologic-cancer-detection/data",
        licence="the rules of the competition, to be accepted on its page first; cite Veeling 2018",
        file="histopathologic-cancer-detection.zip",
        url=f"{_KAGGLE}/api/v1/competitions/data/download-all/histopathologic-cancer-detection",
        about_bytes=6_300_000_000,
        kaggle=True,
    ),
}


def describe(name: str, entry: Download) -> str:
    """Four lines: what it is, its size, its licence and its page."""
    size = "not published" if entry.about_bytes is None else f"about {size_text(entry.about_bytes)}"
    needs = "by hand: see below" if entry.url is None else "needs a Kaggle token" if entry.kaggle else "open"
    return f"{name}: {entry.summary}\n  size     {size}; {needs}\n  licence  {entry.licence}\n  page     {entry.page}"


def size_text(count: int) -> str:
    """A number of bytes as people say it.

    >>> size_text(999), size_text(559_580), size_text(3_300_000_000)
    ('999 bytes', '560 kB', '3.3 GB')
    """
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= one:
            return f"{count / one:.1f} {unit}" if count < 10 * one else f"{count / one:.0f} {unit}"
    return f"{count} bytes"
