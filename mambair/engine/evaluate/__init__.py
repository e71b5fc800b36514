"""Tests: networks judged on data sets, and the tables that say how they did."""
