"""The endpoint `house_price`: what a house in a block of California cost in 1990."""

requires = ("cornerstones.auth",)
