"""Phantom data: patches of synthetic slides, for the demo, the tests and the documentation.

They look like the Kaggle IDC patches and share their trap: patients differ so much, and neighbouring patches so
little, that a random split of images promises more than the next patient will give.
"""

from clearmargin.data.phantom.cohort import (
    DRAWN,
    PhantomSettings,
    PhantomSlide,
    draw_for_scale,
    draw_packed,
    draw_patch,
    draw_slide,
    write_phantom,
)

__all__ = [
    "DRAWN",
    "PhantomSettings",
    "PhantomSlide",
    "draw_for_scale",
    "draw_packed",
    "draw_patch",
    "draw_slide",
    "write_phantom",
]
