"""Documents made by a program, with their truth: what the tests' small model learns to read from."""
