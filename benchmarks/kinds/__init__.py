"""The kinds of data that the questions read: a function each makes its folder once."""
