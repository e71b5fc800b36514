"""How networks are trained: their losses, optimisers and averages, by task."""
