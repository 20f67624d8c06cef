"""Processes of ours and what passes between them."""
