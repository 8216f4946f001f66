"""Annotation and prediction files of several formats as arrays; what is wrong with a file is reported in one line."""
