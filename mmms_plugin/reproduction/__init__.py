"""The index of the tables and figures of the four sources: data, one file for each source.

``items.py`` defines an item, ``index.py`` collects them, ``page.py`` writes ``docs/reproduce.md``. A new item is an
entry in a source's ``ITEMS``; a new source is a new file with ``SOURCE``, ``REMARK`` (what of the source has no item)
and ``ITEMS``, and a word in ``index.py``. ``costs.py`` counts what networks cost.
"""
