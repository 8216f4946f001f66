# For classification at 224 px: the last stage only.
x50_classifier = dict(type="mmms_plugin.ElasticResNeXt", depth=50, elastic="none", out_indices=(3,))
