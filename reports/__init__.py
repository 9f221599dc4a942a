"""From samples in S3 to figures, findings, a verdict and a page."""
