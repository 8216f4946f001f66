"""All items, in the order of the sources."""

from __future__ import annotations

from mmms_plugin.errors import UserError
from mmms_plugin.reproduction import elastic, psconv
from mmms_plugin.reproduction.items import Item

INDEX = {item.name: item for source in (psconv, elastic) for item in source.ITEMS}


def find_item(name: str) -> Item:
    """The item of a name.

    Raises:
        UserError: there is none.
    """
    if name not in INDEX:
        raise UserError(f"item {name}: allowed are {', '.join(INDEX)}")
    return INDEX[name]
