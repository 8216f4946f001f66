# For detection; replaces the backbone of the host's config.
elastic_densenet201 = dict(
    _delete_=True,
    type="mmms_plugin.ElasticDenseNet",
    depth=201,
    elastic=True,
    frozen_stages=1,
    norm_eval=True,
)
