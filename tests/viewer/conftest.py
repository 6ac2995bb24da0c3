"""What the tests of pictures share: the zoo, and one service over it."""

from tests.service.conftest import zoo, zoo_app

__all__ = ["zoo", "zoo_app"]
