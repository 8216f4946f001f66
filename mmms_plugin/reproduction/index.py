"""All items, in the order of the sources."""

from __future__ import annotations

from difflib import get_close_matches

from mmms_plugin.errors import UserError
from mmms_plugin.reproduction import elastic, msdnet, psconv, shape_adaptor
from mmms_plugin.reproduction.items import Item

SOURCES = (psconv, elastic, shape_adaptor, msdnet)
INDEX = {item.name: item for source in SOURCES for item in source.ITEMS}
REMARKS = {source.SOURCE: f"\n{source.REMARK}\n" for source in SOURCES}


def find_item(name: str) -> Item:
    """The item of a name.

    Raises:
        UserError: there is none.
    """
    if name not in INDEX:
        nearest = get_close_matches(name, INDEX, n=5)
        instead = f"the nearest are {', '.join(nearest)}; " if nearest else ""
        raise UserError(f"item {name}: there is none; {instead}mmms reproduce lists all")
    return INDEX[name]
