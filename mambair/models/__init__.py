"""Models: networks with their losses and optimisers, and how they are applied to images."""
