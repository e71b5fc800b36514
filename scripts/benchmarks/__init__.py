"""The sections of scripts/benchmark.py: one module per kind of device, each giving tables."""
