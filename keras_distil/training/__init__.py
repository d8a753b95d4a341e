"""The Distiller: one exact update, on any number of replicas, resumable."""
