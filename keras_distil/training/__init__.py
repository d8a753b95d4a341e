"""The Distiller: exact, resumable updates on any number of replicas."""
