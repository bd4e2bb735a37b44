"""Reads the op table (ops/*.yaml) and writes the code that follows from it; see ops/README.md for the table's language."""
