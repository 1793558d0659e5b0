"""Beside the peers whose places the package takes."""
