# For classification at 224 px: the last stage only.
elastic_x101_classifier = dict(type="mmms_plugin.ElasticResNeXt", depth=101, elastic="full", out_indices=(3,))
