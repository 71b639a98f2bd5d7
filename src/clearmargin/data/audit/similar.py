"""Groups of images that show the same picture: turned, cropped, recompressed, brightened, resized.

`thumbnail` and `fine_thumbnail` are taken of each image while it is decoded; `find_similar` needs nothing else.
Candidates come from `neighbours.py`, the verdict on a pair from `alignment.py`. Every member of a group was compared
with the group's centre, or with a member that was a centre before, so that a chain of resemblances does not become a
group. The result does not depend on the order of the images. What the groups mean for labels, patients and splits is
said in `copies.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clearmargin.data.audit.alignment import FINE_PX, Pictures, similarities
from clearmargin.data.audit.neighbours import THUMBNAIL_PX, Floats, Rows, find_candidates
from clearmargin.types import Listener

LIKELY, POSSIBLE = 0.90, 0.85
"""Similarity from which two images are likely, and possibly, the same picture.

On 17,337 IDC patches (50 px, none a copy), with 3,300 copies planted: 98 % or more of each kind of copy (flip or turn,
JPEG of quality 40, brightness, contrast and gamma by 20 %, crop by 5 %, resizing, all of them together) are likely; no
unrelated pair is likely, and one, of tissue edges on glass, is possible. Among 277,524 windows of the same slides, two
false groups are likely and six possible. Of 14 mammograms, no two reach 0.75.
"""
FLAT = 4.0
"""Standard deviation of a thumbnail's grey levels below which it shows too little to be told from another."""

_LONGEST_PX = 512
_MOST_PASSES = 8


@dataclass(frozen=True, slots=True)
class SimilarGroup:
    """Rows that show the same picture, ascending; two or more different contents.

    `similarity` is the lowest of those that hold the group together: the correlation of fine detail, 1 for the same.
    """

    rows: tuple[int, ...]
    similarity: float
    certainty: Literal["likely", "possible"]


def thumbnail(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    """(32, 32) the image in grey, of any size (H, W) or (H, W, C) with C = 1 or 3, squeezed into a square.

    uint16 is divided by 257. Of a large image, pixels are left out first: 512 of a side are enough.
    """
    return _squeezed(pixels, THUMBNAIL_PX)


def fine_thumbnail(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8] | None:
    """(64, 64) the same of an image of 128 pixels or more on both sides; None of a smaller one.

    >>> fine_thumbnail(np.zeros((50, 50, 3), dtype=np.uint8)) is None
    True
    """
    return _squeezed(pixels, FINE_PX) if min(pixels.shape[:2]) >= 2 * FINE_PX else None


def _squeezed(pixels: NDArray[np.uint8] | NDArray[np.uint16], px: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    pixels = pixels[:: max(1, height // _LONGEST_PX), :: max(1, width // _LONGEST_PX)]
    if pixels.dtype == np.uint16:
        pixels = (pixels // 257).astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    image = Image.fromarray(pixels)
    if image.mode != "L":
        image = image.convert("L")
    return np.asarray(image.resize((px, px), Image.Resampling.BILINEAR))


def find_similar(
    thumbnails: NDArray[np.uint8],
    *,
    fine: Sequence[NDArray[np.uint8] | None] | None = None,
    identical: Sequence[str] | NDArray[Any] | None = None,
    listener: Listener = Listener(),
) -> list[SimilarGroup]:
    """The groups of images that show the same picture, in order of their first row; what is flat takes no part.

    A likely group holds what is like its centre by LIKELY or more. A possible one is a centre and what is like it by
    POSSIBLE; where that centre has a likely group as well, the others of that group are not told again.

    Args:
        thumbnails: (N, 32, 32) as `thumbnail` makes them.
        fine: N of them, as `fine_thumbnail` makes them; without, any two mammograms are alike.
        identical: (N,) equal where files are identical, such as their sha256; copies of one file alone are no group.
        listener: hears of the progress of each pass over the images.
    """
    size = len(thumbnails)
    contents = np.arange(size) if identical is None else np.unique(np.asarray(identical), return_inverse=True)[1]
    vivid = np.flatnonzero(~are_flat(thumbnails))
    if not len(vivid):
        return []
    # Equal thumbnails are one node, and nodes are in the order of a hash: that of the images is forgotten.
    hashes = [_hash(thumbnails[row], fine[row] if fine is not None else None) for row in vivid.tolist()]
    _, firsts, node = np.unique(np.array(hashes, dtype="V16"), return_index=True, return_inverse=True)
    nodes = vivid[firsts]
    search = _Search(Pictures.of(thumbnails, fine, rows=nodes))
    likely, possible = search.run(listener)

    order = np.argsort(node, kind="stable")
    rows_of = np.split(vivid[order], np.flatnonzero(np.diff(node[order])) + 1)
    alone = np.setdiff1d(np.arange(len(rows_of)), likely.members())
    groups = [
        _group([rows_of[node] for node in nodes], similarity, "likely")
        for nodes, similarity in [*likely.groups(), *(([node], 1.0) for node in alone if len(rows_of[node]) > 1)]
    ]
    groups += [_group([rows_of[node] for node in nodes], value, "possible") for nodes, value in possible.groups()]
    several = (group for group in groups if len(set(contents[list(group.rows)])) > 1)
    return sorted(several, key=lambda group: (group.rows[0], group.certainty, group.rows))


def are_flat(thumbnails: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(N,) the image shows too little to be told from another, such as blank glass."""
    contrast = np.fromiter((image.std() for image in thumbnails), dtype=np.float64, count=len(thumbnails))
    return contrast < FLAT


def _hash(thumbnail: NDArray[np.uint8], fine: NDArray[np.uint8] | None) -> bytes:
    return hashlib.blake2b(thumbnail.tobytes() + (b"" if fine is None else fine.tobytes()), digest_size=16).digest()


def _group(rows: list[Rows], similarity: float, certainty: Literal["likely", "possible"]) -> SimilarGroup:
    return SimilarGroup(tuple(np.sort(np.concatenate(rows)).tolist()), round(similarity, 4), certainty)


@dataclass(frozen=True, slots=True)
class _Stars:
    """Centres (M,) and what was found to be like them (M,), with the similarity (M,); a member has one centre."""

    centre: Rows
    member: Rows
    similarity: Floats

    def members(self) -> Rows:
        """All nodes that are in a group."""
        return np.union1d(self.centre, self.member)

    def groups(self) -> list[tuple[list[int], float]]:
        """The nodes of each group, and the lowest similarity; a centre may be the member of another one."""
        parent = dict(zip(self.member.tolist(), self.centre.tolist(), strict=True))
        groups: dict[int, tuple[list[int], float]] = {}
        for member, similarity in zip(self.member.tolist(), self.similarity.tolist(), strict=True):
            root = member
            while root in parent:
                root = parent[root]
            nodes, lowest = groups.get(root, ([root], 1.0))
            nodes.append(member)
            groups[root] = nodes, min(lowest, similarity)
        return list(groups.values())


class _Search:
    """Passes over the nodes; after each, only the centres of the groups go on, so that no crowd hides a neighbour."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self.compared = 0

    def run(self, listener: Listener) -> tuple[_Stars, _Stars]:
        """Groups that are likely, and groups among their centres and the rest that are possible."""
        found = []
        nodes = np.arange(len(self.pictures.row))
        for number in range(_MOST_PASSES):
            # The first pass looks near only: it takes crowds of copies away before the wide search meets them.
            wide = {} if number else {"probes": 1, "nearest": 2}
            plain, cropped = self.pictures.plain, self.pictures.cropped
            if number:  # in the first pass they are all
                plain, cropped = plain[nodes], cropped[nodes]
            first, second = find_candidates(plain, cropped, listener=listener, **wide)
            links = self._links(nodes[first], nodes[second])
            stars = self._stars(links, LIKELY)
            found.append(stars)
            # The later passes are for those that met a neighbour, and may now meet another one behind it.
            nodes = np.setdiff1d(nodes if number == 0 else np.union1d(links.centre, links.member), stars.member)
            if number and not len(stars.member):
                break
        likely = _joined(found)
        left = ~np.isin(links.centre, likely.member) & ~np.isin(links.member, likely.member)
        return likely, self._stars(_Stars(links.centre[left], links.member[left], links.similarity[left]), POSSIBLE)

    def _links(self, first: Rows, second: Rows) -> _Stars:
        similarity = self._compare(first, second)
        linked = similarity >= POSSIBLE
        return _Stars(first[linked], second[linked], similarity[linked])

    def _compare(self, first: Rows, second: Rows) -> Floats:
        self.compared += len(first)
        return similarities(self.pictures, first, second)

    def _stars(self, links: _Stars, level: float) -> _Stars:
        """Of what hangs together by such links, the best linked node with all that are like it; then the rest."""
        from scipy.sparse import coo_array  # noqa: PLC0415  (slow to import)
        from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

        strong = links.similarity >= level
        first, second, strength = links.centre[strong], links.member[strong], links.similarity[strong]
        found = [_Stars(first[:0], first[:0], strength[:0])]
        while len(first):
            nodes, ends = np.unique(np.concatenate([first, second]), return_inverse=True)
            one, other = ends[: len(first)], ends[len(first) :]
            weight = np.bincount(ends, np.tile(strength, 2))
            graph = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(len(nodes),) * 2)
            component = connected_components(graph, directed=False)[1]
            order = np.lexsort((-weight, component))
            centre = order[np.flatnonzero(np.diff(component[order], prepend=-1))][component]
            others = np.flatnonzero(centre != np.arange(len(nodes)))
            similarity = self._compare(nodes[centre[others]], nodes[others])
            alike = similarity >= level
            found.append(_Stars(nodes[centre[others[alike]]], nodes[others[alike]], similarity[alike]))
            gone = np.zeros(len(nodes), dtype=bool)
            gone[centre] = gone[others[alike]] = True
            rest = ~(gone[one] | gone[other])
            first, second, strength = first[rest], second[rest], strength[rest]
        return _joined(found)


def _joined(stars: list[_Stars]) -> _Stars:
    return _Stars(
        np.concatenate([part.centre for part in stars]),
        np.concatenate([part.member for part in stars]),
        np.concatenate([part.similarity for part in stars]),
    )
