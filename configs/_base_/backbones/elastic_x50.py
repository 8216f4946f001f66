# For detection; replaces the backbone of the host's config.
elastic_x50 = dict(
    _delete_=True,
    type="mmms_plugin.ElasticResNeXt",
    depth=50,
    elastic="full",
    frozen_stages=1,
    norm_eval=True,
)
