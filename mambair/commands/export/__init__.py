"""`mambair export`: networks as files that run without this package, and without PyTorch."""
