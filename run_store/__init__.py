"""A run's layout in S3, its messages and its samples: the one place where all parts meet."""
