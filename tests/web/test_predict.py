from __future__ import annotations

import httpx
from tests.web.conftest import files, png


def test_each_image_of_a_request_is_a_row_in_its_order(client: httpx.Client) -> None:
    answer = client.post("/api/v1/predict", files=files(("b.png", png(1)), ("a.png", png(2))))
    assert answer.status_code == 200
    assert [row["path"] for row in answer.json()["predictions"]] == ["b.png", "a.png"]
