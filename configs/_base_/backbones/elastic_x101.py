# For detection; replaces the backbone of the host's config.
elastic_x101 = dict(
    _delete_=True,
    type="mmms_plugin.ElasticResNeXt",
    depth=101,
    elastic="full",
    frozen_stages=1,
    norm_eval=True,
)
