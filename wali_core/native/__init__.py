"""The trusted C core, and what builds it."""
