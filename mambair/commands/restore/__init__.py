"""`mambair restore`: photos, folders and videos."""
