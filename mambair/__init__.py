"""mambair: train, test and use MambaIR, image restoration with selective state-space models."""

__version__ = "1.0.0"
