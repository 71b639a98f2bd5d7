"""What is served: models, their cards, figures and example images."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response

from clearmargin.web.answers import CardAnswer, ExamplesAnswer, FiguresAnswer, ModelAnswer, ModelsAnswer
from clearmargin.web.card import card_html
from clearmargin.web.errors import ApiError
from clearmargin.web.facts import model_facts
from clearmargin.web.readable import check_has_similar
from clearmargin.web.serving import Serving, serving_of
from clearmargin.web.shown import draw_example, draw_thumbnail, example_answers, figure_answers

router = APIRouter(tags=["models"])
_Serving = Annotated[Serving, Depends(serving_of)]
_Model = Annotated[str | None, Query(description="A name of `models`; the first when left out.")]
_PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}

# Plain functions: what they import and draw takes a while, and is done beside the loop.


@router.get("/models")
def models(serving: _Serving) -> ModelsAnswer:
    """Every model, the default first."""
    return ModelsAnswer(models=[model_facts(served) for served in serving.served.values()])


@router.get("/models/{name}")
def model(name: str, serving: _Serving) -> ModelAnswer:
    """One model."""
    return model_facts(serving.find(name))


@router.get("/models/{name}/similar/{case}", response_class=Response, responses=_PNG)
def similar(name: str, case: Annotated[int, Path(ge=0)], serving: _Serving) -> Response:
    """The picture of a training image that `predict` named."""
    served = serving.find(name)
    check_has_similar(served)
    if case >= len(served.predictor.similar_cases.cases):
        raise ApiError("not_found", "the model carries no such training image.")
    return Response(draw_thumbnail(served, case), media_type="image/png", headers=_KEPT)


@router.get("/card")
def card(serving: _Serving, model: _Model = None) -> CardAnswer:
    """The model card."""
    served = serving.find(model)
    markdown = served.predictor.bundle.read("MODEL_CARD.md").decode("utf-8", "replace")
    return CardAnswer(model=served.name, markdown=markdown, html=card_html(markdown))


@router.get("/figures")
def figures(serving: _Serving, model: _Model = None) -> FiguresAnswer:
    """The figures of the run that made the model, where its folder is served; none of a bundle alone."""
    served = serving.find(model)
    return FiguresAnswer(model=served.name, figures=figure_answers(served))


@router.get("/examples")
def examples(serving: _Serving, model: _Model = None) -> ExamplesAnswer:
    """Drawn images of the model's size, to try it on."""
    served = serving.find(model)
    return ExamplesAnswer(model=served.name, examples=example_answers(served))


@router.get("/examples/{name}", response_class=Response, responses=_PNG)
def example(name: str, serving: _Serving, model: _Model = None) -> Response:
    """One of them."""
    return Response(draw_example(serving.find(model), name), media_type="image/png", headers=_KEPT)


_KEPT = {"Cache-Control": "private, max-age=3600"}
