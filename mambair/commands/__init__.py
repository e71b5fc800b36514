"""What the commands restore, doctor, weights, demo and analyze do."""
