"""Exporters, one a file; none yet.

Until they arrive, a student is saved with `distiller.student.save(...)` and as
a KerasHub preset with `distiller.student.save_to_preset(...)`.
"""
