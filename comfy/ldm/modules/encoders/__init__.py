"""What encodes conditioning."""
