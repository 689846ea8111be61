"""Stage 1: any supported log in, canonical frames out."""
