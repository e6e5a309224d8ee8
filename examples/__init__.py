"""Small programs and how they are run; `python -m examples.demo` shows all of them."""
