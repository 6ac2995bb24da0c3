"""House prices, notes, and the HDF5 file behind them: a hive of two halves."""
