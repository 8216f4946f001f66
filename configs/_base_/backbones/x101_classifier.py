# For classification at 224 px: the last stage only.
x101_classifier = dict(type="mmms_plugin.ElasticResNeXt", depth=101, elastic="none", out_indices=(3,))
