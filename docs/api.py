"""The API reference: every public name of the package on a page of its group, made for autodoc.

``tests/test_docs.py`` compares the names with the registries and with every ``__all__``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from mmms_plugin import registry

KINDS = {
    "MODELS": "model",
    "METRICS": "metric",
    "HOOKS": "hook",
    "OPTIM_WRAPPER_CONSTRUCTORS": "optimizer constructor",
    "DATASETS": "data set",
    "TRANSFORMS": "transform",
}


class Group(NamedTuple):
    """Names of one module below a heading; where they are defined is up to the module."""

    heading: str
    module: str
    names: str  # separated by white space


@dataclass(frozen=True)
class Page:
    """One page: its title, a line for the list of pages, text before the first heading, and the groups."""

    title: str
    about: str
    groups: Sequence[Group]
    text: str = ""

    def names(self) -> Iterator[str]:
        """Names with their modules, in the page's order."""
        for group in self.groups:
            yield from (f"{group.module}.{name}" for name in group.names.split())


PAGES = {
    "python": Page(
        "Training and predicting",
        "a model from Python",
        (
            Group("Model", "mmms_plugin.model", "Model"),
            Group(
                "Predictions",
                "mmms_plugin.train.prediction",
                "Prediction ObjectPrediction SegmentPrediction ClassPrediction",
            ),
            Group("Results of a training", "mmms_plugin.report.run_results", "RunResults Evaluated"),
        ),
    ),
    "layers": Page(
        "Layers",
        "tensor in, tensor out",
        (
            Group("PSConv", "mmms_plugin.layers", "PSConv2d DepthwisePSConv2d DynamicPSConv2d"),
            Group("", "mmms_plugin.layers.ps_conv", "AssembledConv"),
            Group(
                "Elastic",
                "mmms_plugin.layers",
                "ElasticConv2d ElasticPolicy Elastic BottleneckPath elastic_bottleneck Downsample Upsample",
            ),
            Group("Shape Adaptor", "mmms_plugin.layers", "ShapeAdaptor"),
            Group("", "mmms_plugin.layers.shape_adaptor", "Reshape"),
            Group("Shared", "mmms_plugin.layers", "SqueezeExcitation"),
        ),
    ),
    "backbones": Page(
        "Backbones",
        "pictures in, feature maps out",
        (
            Group("PSConv", "mmms_plugin.backbones", "PSResNet"),
            Group("ELASTIC and DLA", "mmms_plugin.backbones", "ElasticResNeXt ElasticDenseNet DLA"),
            Group(
                "Shape Adaptor",
                "mmms_plugin.backbones",
                "ShapeAdaptorResNet ShapeAdaptorVGG ShapeAdaptorMobileNetV2",
            ),
            Group("MSDNet and what it is compared with", "mmms_plugin.backbones", "MSDNet ModelSequence"),
            Group("What all share", "mmms_plugin.backbones.base", "Backbone"),
            Group("", "mmms_plugin.backbones.shape_plan", "ShapedNetwork freeze_shapes"),
        ),
    ),
    "necks_heads": Page(
        "Necks and heads",
        "DLA-Up, the classifiers of several exits, segmentation heads",
        (
            Group("Necks", "mmms_plugin.necks", "DLAUp"),
            Group("Heads", "mmms_plugin.heads", "MultiExitHead ASPPHead DLAUpHead"),
        ),
    ),
    "training": Page(
        "Metrics, hooks, data sets",
        "what a config names for training and testing",
        (
            Group("Metrics", "mmms_plugin.evaluation", "SizeAPMetric SizeIoUMetric ClassMetric LabelsMetric"),
            Group("Hooks", "mmms_plugin.train.shape_hook", "ShapeAdaptorHook ShapeAdaptorConstructor"),
            Group("", "mmms_plugin.train.norm_hook", "NormMomentumHook"),
            Group("", "mmms_plugin.train.predictions", "DrawingHook"),
            Group("", "mmms_plugin.train.console", "ProgressHook"),
            Group("Data", "mmms_plugin.train.paired_seg_dataset", "PairedSegDataset"),
            Group("", "mmms_plugin.train.share", "share_of"),
            Group("", "mmms_plugin.train.transforms", "RandomScale"),
            Group("Tiles", "mmms_plugin.train.tiling", "cut_into_tiles CutTile PackPicture TilesHook"),
            Group(
                "Generated data",
                "mmms_plugin.datasets",
                "ShapeSettings write_shapes ShapesWritten draw_picture Picture CLASSES",
            ),
        ),
    ),
    "weights": Page(
        "Weights",
        "reading, converting, loading and publishing checkpoints",
        (
            Group("Load", "mmms_plugin.weights", "load_model"),
            Group("", "mmms_plugin.weights.loading", "LoadedModel load_backbone"),
            Group("Read without running code", "mmms_plugin.weights.files", "read_checkpoint Checkpoint"),
            Group("Convert", "mmms_plugin.weights.convert", "convert"),
            Group("", "mmms_plugin.weights.options", "Options"),
            Group("", "mmms_plugin.weights.report", "Report"),
            Group("", "mmms_plugin.weights.verify", "Statistics"),
            Group("Publish", "mmms_plugin.weights.publish", "publish Published"),
            Group("Key maps", "mmms_plugin.weights.tables", "Table Arch Rule Normalisation"),
        ),
    ),
    "size_ap": Page(
        "AP by object size",
        "evaluation and its results",
        (
            Group("Evaluate", "mmms_plugin.size_ap", "size_ap"),
            Group("Write a report", "mmms_plugin.size_ap.report.write", "write_report write_object_sizes"),
            Group(
                "Results",
                "mmms_plugin.size_ap.results",
                "SizeAPResults RunResult BinResult Interval ErrorShare ClassMatrix SizePoint SeedResult Comparison "
                "Difference GroupRow Settling Failures Inputs OperatingPoints OperatingPoint "
                "Confusion Answer Calibration CalibrationCell SizeMap Suspects",
            ),
            Group("Bins", "mmms_plugin.size_ap.bins", "resolve_bins BinSet Bin"),
            Group("Sizes as the network sees them", "mmms_plugin.size_ap.resizing", "Resizing Step Measured"),
            Group(
                "Files for mmms predict",
                "mmms_plugin.size_ap.score_files",
                "ScoreThresholds read_thresholds ScoreCalibration read_calibration Sizes Limits",
            ),
            Group("Of a config", "mmms_plugin.config.resizing", "pipeline_resizing"),
            Group(
                "Sizes of a data set's objects",
                "mmms_plugin.size_ap.object_sizes",
                "describe_objects ObjectSizes ClassSizes AnchorSuggestion",
            ),
            Group(
                "Segmentation by region size",
                "mmms_plugin.size_ap.size_iou",
                "image_regions join_images Regions evaluate_regions RegionOptions SizeIoUResults RegionBin RegionClass",
            ),
        ),
    ),
    "coco": Page(
        "Annotations and predictions",
        "COCO, LVIS, YOLO and Pascal VOC files as arrays",
        (
            Group("Read", "mmms_plugin.coco.read", "read_ground_truth read_detections"),
            Group("", "mmms_plugin.coco.formats", "Source"),
            Group("In memory", "mmms_plugin.coco.objects", "GroundTruth Detections Federated"),
            Group("Errors", "mmms_plugin.errors", "UserError RunError"),
        ),
    ),
    "scale": Page(
        "Scale",
        "cost, receptive fields, shapes, policies, advice",
        (
            Group("Cost", "mmms_plugin.scale.flops", "measure count Cost exit_costs ExitCost kept_for_backward"),
            Group("Receptive fields", "mmms_plugin.scale.receptive_field", "measure theoretical ReceptiveField"),
            Group("Shapes", "mmms_plugin.scale.shapes", "network_shape NetworkShape draw_shapes"),
            Group("Scale policy", "mmms_plugin.scale.policy.meter", "PolicyMeter"),
            Group("", "mmms_plugin.scale.policy.dilations", "dilation_shares DilationShares"),
            Group("Advice", "mmms_plugin.scale.advice", "advise Advice Objects Geometry Options"),
            Group("Inference", "mmms_plugin.inference", "optimize_for_inference"),
            Group("Early exit", "mmms_plugin.exits", "EarlyExit Answer choose_plans Plans Plan certify Promise"),
            Group("", "mmms_plugin.exits.timing", "Profile"),
        ),
    ),
    "report": Page(
        "Reports",
        "tables, figures, drawings and pages, for reports of your own",
        (
            Group("Tables", "mmms_plugin.report.tables", "Table Column Cell to_markdown to_latex to_csv"),
            Group("", "mmms_plugin.report.terminal", "print_table"),
            Group("Figures", "mmms_plugin.report.figure_style", "canvas save log_side_axis"),
            Group("Drawings", "mmms_plugin.report.drawing", "draw_objects draw_segments Objects Style save_drawing"),
            Group("Pages", "mmms_plugin.report.page", "render Section Picture Gallery"),
        ),
    ),
}


def write_pages(folder: Path) -> None:
    """Write a page for each group, and ``index.md`` with a table of them and of all types for configs."""
    folder.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (folder / f"{name}.md").write_text(_page(page), encoding="utf-8")
    (folder / "index.md").write_text(_index(), encoding="utf-8")


def registered() -> dict[str, tuple[str, str]]:
    """Type in a config, without the scope -> registry, and the class with its module."""
    types = {}
    for kind in KINDS:
        own = getattr(registry, kind)
        own.import_from_location()
        types |= {name: (kind, f"{cls.__module__}.{cls.__qualname__}") for name, cls in own.module_dict.items()}
    hosted = {name: ("MODELS", f"{module}.{name}") for name, module in registry.HOSTED.items()}  # host not imported
    return types | hosted


def home(name: str) -> str:
    """The name that an object of ``PAGES`` has in the module that defines it."""
    module, _, last = name.rpartition(".")
    if module == "mmms_plugin.heads":
        return f"{registry.HOSTED[last]}.{last}"
    value: Any = getattr(import_module(module), last)
    return name if isinstance(value, tuple | list) else f"{value.__module__}.{value.__qualname__}"


def _page(page: Page) -> str:
    lines = [f"# {page.title}", page.text]
    names = "\n".join(f"   ~{name}" for name in page.names())
    lines.append(f"```{{eval-rst}}\n.. autosummary::\n   :nosignatures:\n\n{names}\n```")
    for group in page.groups:
        lines.append(f"## {group.heading}" if group.heading else "")
        entries = (_directive(group.module, name) for name in group.names.split())
        lines += [f"```{{eval-rst}}\n{entry}\n```" for entry in entries]
    return "\n\n".join(line for line in lines if line) + "\n"


def _link(name: str) -> str:
    """A link to a name; to the module too where another module has the same."""
    last = name.rpartition(".")[2]
    shared = sum(other.endswith(f".{last}") for page in PAGES.values() for other in page.names()) > 1
    return f"{{py:obj}}`{'.'.join(name.split('.')[-2:])} <{name}>`" if shared else f"{{py:obj}}`~{name}`"


def _directive(module: str, name: str) -> str:
    if name.isupper():
        return f".. autodata:: {module}.{name}"
    kind = "class" if name[0].isupper() else "function"
    return f".. auto{kind}:: {module}.{name}" + ("\n   :members:" if kind == "class" else "")


def _index() -> str:
    names = {home(name): name for page in PAGES.values() for name in page.names()}
    pages = ["| page | names |", "| --- | --- |"]
    for file, page in PAGES.items():
        links = ", ".join(map(_link, page.names()))
        pages.append(f"| [{page.title}]({file}.md): {page.about} | {links} |")
    types = ["| `type=` | kind | class |", "| --- | --- | --- |"]
    for name, (kind, cls) in sorted(registered().items()):
        types.append(f"| `mmms_plugin.{name}` | {KINDS[kind]} | {{py:obj}}`~{names[cls]}` |")
    return (
        "# API reference\n\n"
        "Everything public, by what it is for. Names that are on none of these pages may change without notice.\n\n"
        + "\n".join(pages)
        + "\n\n## Types for configs\n\n"
        "A config names them with the scope `mmms_plugin.`, in every host, without `custom_imports`.\n\n"
        + "\n".join(types)
        + "\n\n```{toctree}\n:hidden:\n\n"
        + "\n".join(PAGES)
        + "\n```\n"
    )
