"""Where workers come from: a fleet gives hosts and takes them back."""
