"""Reads the op table (ops/*.yaml) and writes what follows from it; its language: ops/TABLE.md."""
