"""The user's Kaggle token, from where Kaggle's own tools keep it. It is sent to www.kaggle.com and shown nowhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path

from clearmargin.errors import DataError

ADVICE = (
    "Make a token at https://www.kaggle.com/settings and set KAGGLE_USERNAME and KAGGLE_KEY, or save it as "
    "~/.kaggle/kaggle.json"
)


def kaggle_authorization(environment: Mapping[str, str]) -> str | None:
    """The value of the Authorization header, or None where the user has no token.

    The first of these that is there: KAGGLE_API_TOKEN; KAGGLE_USERNAME with KAGGLE_KEY; the files `access_token` and
    `kaggle.json` in KAGGLE_CONFIG_DIR or in ~/.kaggle.

    Raises:
        DataError: a token is there and cannot be one.
    """
    if token := environment.get("KAGGLE_API_TOKEN", "").strip():
        return _bearer(token, "KAGGLE_API_TOKEN")
    user, key = environment.get("KAGGLE_USERNAME", "").strip(), environment.get("KAGGLE_KEY", "").strip()
    if user and key:
        return _basic(user, key, "KAGGLE_USERNAME and KAGGLE_KEY")
    folder = environment.get("KAGGLE_CONFIG_DIR", "").strip()
    return _from_folder(Path(folder) if folder else Path.home() / ".kaggle")


def _from_folder(folder: Path) -> str | None:
    token = folder / "access_token"
    if token.is_file():
        return _bearer(_read(token).strip(), str(token))
    pair = folder / "kaggle.json"
    if not pair.is_file():
        return None
    try:
        content = json.loads(_read(pair))
        user, key = content["username"], content["key"]
    except (ValueError, KeyError, TypeError):
        raise DataError(f'{pair}: not {{"username": …, "key": …}}. {ADVICE}.') from None
    return _basic(str(user), str(key), str(pair))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({type(error).__name__}). {ADVICE}.") from None


def _bearer(token: str, place: str) -> str:
    return f"Bearer {_one_word(token, place)}"


def _basic(user: str, key: str, place: str) -> str:
    pair = f"{_one_word(user, place)}:{_one_word(key, place)}"
    return f"Basic {base64.b64encode(pair.encode('ascii')).decode('ascii')}"


def _one_word(text: str, place: str) -> str:
    # A line break in a header would let a file add headers of its own.
    if not (text.isascii() and text.isprintable() and text and " " not in text):
        raise DataError(f"{place}: not a Kaggle token (it has spaces or odd characters). {ADVICE}.")
    return text
