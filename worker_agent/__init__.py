"""What runs on a worker: the agent, its browsers, its spool, and the page in Chromium."""
