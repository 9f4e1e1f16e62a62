"""Models that are promoted while scanners run: what a group is to judge with, and whose turn it is to load it.

``promoted`` reads the topic models.promoted, ``fitting`` says whether models can be loaded, and judged by the policies
in force, ``fleet`` is pure and says whose turn it is, ``following`` brings them together in a running scanner.
"""
