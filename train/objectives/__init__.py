"""Training objectives of the painter, one file each."""
