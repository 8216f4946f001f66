# For classification at 224 px: the last stage only.
elastic_x50_classifier = dict(type="mmms_plugin.ElasticResNeXt", depth=50, elastic="full", out_indices=(3,))
