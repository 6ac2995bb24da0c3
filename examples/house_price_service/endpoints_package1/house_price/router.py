"""`POST /api/house_price/predict`, for those who have the API key."""

from typing import Annotated

from starlette.requests import Request

from asgihive import Depends, Router

from ...cornerstones.auth import guard
from .model import HousePriceModel
from .schemas import HousePredictionPayload, HousePredictionResult

router = Router()


async def current_model(request: Request) -> HousePriceModel:
    """The model that was loaded at set-up."""
    model: HousePriceModel = request.app.state.endpoints["endpoints_package1.house_price"]["model"]
    return model


@router.post("/predict", dependencies=[guard])
async def predict(
    model: Annotated[HousePriceModel, Depends(current_model)], payload: HousePredictionPayload
) -> HousePredictionResult:
    """What a house in a block is worth."""
    return model.predict(payload)
