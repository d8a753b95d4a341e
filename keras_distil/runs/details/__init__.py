"""What a run tells of its tasks beyond their scores."""
