"""The layouts of the published weights, which the networks' tests read too."""

from tests.archs.conftest import layouts

__all__ = ["layouts"]
