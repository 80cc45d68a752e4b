"""Text, JSON, HTML and pictures of what was made."""
