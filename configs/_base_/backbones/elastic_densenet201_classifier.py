# For classification at 224 px: the last stage only.
elastic_densenet201_classifier = dict(
    type="mmms_plugin.ElasticDenseNet", depth=201, elastic=True, with_cp=True, out_indices=(3,)
)
