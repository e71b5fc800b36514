"""`mambair options`: option files checked, explained, compared and begun."""
