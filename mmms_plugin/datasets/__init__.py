"""The generated multi-scale data set, in the layouts that the hosts read. No host is imported here."""

from mmms_plugin.datasets.shape_pictures import CLASSES, Picture, draw_picture
from mmms_plugin.datasets.shapes import ShapeSettings, ShapesWritten, write_shapes

__all__ = ["CLASSES", "Picture", "ShapeSettings", "ShapesWritten", "draw_picture", "write_shapes"]
