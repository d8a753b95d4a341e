"""Shared helpers: files, checks, progress, startup."""
