"""Performance, measured side by side: never as a test."""
