# For classification at 224 px: the last stage only.
densenet201_classifier = dict(
    type="mmms_plugin.ElasticDenseNet", depth=201, elastic=False, with_cp=True, out_indices=(3,)
)
