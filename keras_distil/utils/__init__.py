"""Helpers without a place of their own: files, checks, progress, startup."""
