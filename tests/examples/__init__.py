"""What is shown to newcomers works: the examples, and the commands and code in the documents."""
