"""What clients send and get."""

from msgspec import Struct


class HousePredictionPayload(Struct, frozen=True):
    """A block of houses, as the census describes it."""

    median_income_in_block: float
    median_house_age_in_block: int
    average_rooms: float
    average_bedrooms: float
    population_per_block: int
    average_house_occupancy: float
    block_latitude: float
    block_longitude: float


class HousePredictionResult(Struct, frozen=True):
    """What a house there is worth."""

    median_house_value: float
    currency: str
