"""What nodes for pictures take and give: names and types are those of ComfyUI, so that workflows fit."""

import importlib

import pytest

# topic, node, inputs (* before them: the node gets lists), outputs (* after one: it is a list)
NODES = """
images | ImageCrop | image width height x y | IMAGE
images | ImageCropV2 | image crop_region | IMAGE
images | ImageCropToMask | images masks width height pad_factor grow_mask background | IMAGE
images | PrimitiveBoundingBox | x y width height | BOUNDING_BOX
images | RepeatImageBatch | image amount | IMAGE
images | ImageFromBatch | image batch_index length | IMAGE
images | ImageAddNoise | image seed strength | IMAGE
images | SaveAnimatedWEBP | images filename_prefix fps lossless quality method | IMAGE
images | SaveAnimatedPNG | images filename_prefix fps compress_level | IMAGE
images | SaveImageAdvanced | images filename_prefix format | IMAGE
images | SaveSVGNode | svg filename_prefix | SVG
images | ImageStitch | image1 direction match_image_size spacing_width spacing_color image2 | IMAGE
images | ResizeAndPadImage | image target_width target_height padding_color interpolation | IMAGE
images | GetImageSize | image | INT INT INT
images | ImageRotate | image rotation | IMAGE
images | ImageFlip | image flip_method | IMAGE
images | ImageScaleToMaxDimension | image upscale_method largest_size | IMAGE
images | SplitImageToTileList | image tile_width tile_height overlap | IMAGE*
images | ImageMergeTileList | *image_list final_width final_height overlap | IMAGE
mask | LatentCompositeMasked | destination source x y resize_source mask | LATENT
mask | ImageCompositeMasked | destination source x y resize_source mask | IMAGE
mask | MaskToImage | mask | IMAGE
mask | ImageToMask | image channel | MASK
mask | ImageColorToMask | image color | MASK
mask | SolidMask | value width height | MASK
mask | InvertMask | mask | MASK
mask | CropMask | mask x y width height | MASK
mask | MaskComposite | destination source x y operation | MASK
mask | FeatherMask | mask left top right bottom | MASK
mask | GrowMask | mask expand tapered_corners | MASK
mask | ThresholdMask | mask value | MASK
mask | MaskPreview | mask | MASK
compositing | PorterDuffImageComposite | source source_alpha destination destination_alpha mode | \
IMAGE MASK
compositing | SplitImageWithAlpha | image | IMAGE MASK
compositing | JoinImageWithAlpha | image alpha | IMAGE
post_processing | ImageBlend | image1 image2 blend_factor blend_mode | IMAGE
post_processing | ImageBlur | image blur_radius sigma | IMAGE
post_processing | ImageQuantize | image colors dither | IMAGE
post_processing | ImageSharpen | image sharpen_radius sigma alpha | IMAGE
post_processing | ImageScaleToTotalPixels | image upscale_method megapixels resolution_steps | IMAGE
post_processing | ResizeImageMaskNode | input resize_type scale_method | COMFY_MATCHTYPE_V3
post_processing | BatchImagesNode | images | IMAGE
post_processing | BatchMasksNode | masks | MASK
post_processing | BatchLatentsNode | latents | LATENT
post_processing | ColorTransfer | image_target image_ref method source_stats strength | IMAGE
morphology | Morphology | image operation kernel_size | IMAGE
morphology | ImageRGBToYUV | image | IMAGE IMAGE IMAGE
morphology | ImageYUVToRGB | Y U V | IMAGE
canny | Canny | image low_threshold high_threshold | IMAGE
color | ColorToRGBInt | color | INT COLOR FLOAT
image_compare | ImageCompare | compare_view image_a image_b |
painter | Painter | mask width height bg_color image | IMAGE MASK
resolution | ResolutionSelector | aspect_ratio megapixels multiple | INT INT
curve | CurveEditor | curve histogram | CURVE
curve | ImageHistogram | image | HISTOGRAM HISTOGRAM HISTOGRAM HISTOGRAM HISTOGRAM
text_overlay | TextOverlay | images text font_size color position align outline | IMAGE
bounding_boxes | CreateBoundingBoxes | width height editor_state background bboxes last_incoming | \
IMAGE BOUNDING_BOX ARRAY
compositor | ImageCompositor | layers compositor | IMAGE MASK
compositor | AddLayer | image layers mask name x y opacity blend_mode rotation width height z_index \
flip_h flip_v | LAYERS
compositor | LayersFromBoundingBoxes | image bboxes mask layers crop_to_content canvas_width \
canvas_height | LAYERS
webcam | WebcamCapture | image width height capture_on_queue | IMAGE
dataset | LoadImageDataSetFromFolder | folder | IMAGE*
dataset | LoadImageTextDataSetFromFolder | folder | IMAGE* STRING*
dataset | SaveImageDataSetToFolder | *images folder_name filename_prefix mode |
dataset | SaveImageTextDataSetToFolder | *images folder_name filename_prefix mode texts |
dataset | LoadVideoDataSetFromFolder | folder | VIDEO*
dataset | LoadVideoTextDataSetFromFolder | folder | VIDEO* STRING*
dataset | ResizeImagesByShorterEdge | images shorter_edge | IMAGE
dataset | ResizeImagesByLongerEdge | images longer_edge | IMAGE
dataset | CenterCropImages | images width height | IMAGE
dataset | RandomCropImages | images width height seed | IMAGE
dataset | NormalizeImages | images mean std | IMAGE
dataset | AdjustBrightness | images factor | IMAGE
dataset | AdjustContrast | images factor | IMAGE
dataset | ShuffleDataset | *images seed | IMAGE*
dataset | ShuffleImageTextDataset | *images texts seed | IMAGE* STRING*
dataset | VideoFrameSample | video num_frames strategy seed | VIDEO
dataset | VideoTemporalCrop | video start_frame length | VIDEO
dataset | VideoRandomTemporalCrop | video length seed | VIDEO
dataset | ShuffleVideoDataset | *videos seed | VIDEO*
dataset | ShuffleVideoTextDataset | *videos texts seed | VIDEO* STRING*
dataset | TextToLowercase | texts | STRING
dataset | TextToUppercase | texts | STRING
dataset | TruncateText | texts max_length | STRING
dataset | AddTextPrefix | texts prefix | STRING
dataset | AddTextSuffix | texts suffix | STRING
dataset | ReplaceText | texts find replace | STRING
dataset | StripWhitespace | texts | STRING
dataset | ImageDeduplication | *images similarity_threshold | IMAGE*
dataset | ImageGrid | *images columns cell_width cell_height padding | IMAGE
dataset | MergeImageLists | *images | IMAGE*
dataset | MergeTextLists | *texts | STRING
dataset | MakeTrainingDataset | *images vae clip texts | LATENT* CONDITIONING*
dataset | SaveTrainingDataset | *latents conditioning folder_name shard_size |
dataset | LoadTrainingDataset | folder_name | LATENT* CONDITIONING*
dataset | ResolutionBucket | *latents conditioning | LATENT* CONDITIONING*
rebatch | RebatchLatents | *latents batch_size | LATENT*
glsl | GLSLShader | fragment_shader size_mode images floats ints bools curves | IMAGE IMAGE IMAGE IMAGE
latent | ReplaceVideoLatentFrames | destination index source | LATENT
"""
ROWS = [[cell.strip() for cell in line.split("|")] for line in NODES.strip().splitlines()]


async def nodes_of(topic):
    """(class by name) of a module, however it names them."""
    module = importlib.import_module(f"comfy_extras.nodes_{topic}")
    mappings = getattr(module, "NODE_CLASS_MAPPINGS", None)
    if mappings is not None:
        return mappings
    return {node.GET_SCHEMA().node_id: node for node in await module.comfy_entrypoint().get_node_list()}


@pytest.mark.parametrize(("topic", "name", "inputs", "outputs"), ROWS, ids=[row[1] for row in ROWS])
async def test_a_node_takes_and_gives_what_comfyui_says(topic, name, inputs, outputs):
    node = (await nodes_of(topic))[name]
    declared = node.INPUT_TYPES()
    names = [one for section in ("required", "optional") for one in declared.get(section, {})]
    assert getattr(node, "INPUT_IS_LIST", False) == inputs.startswith("*")
    assert names == inputs.lstrip("*").split()
    is_list = getattr(node, "OUTPUT_IS_LIST", None) or [False] * len(node.RETURN_TYPES)
    assert [kind + "*" * bool(listed) for kind, listed in zip(node.RETURN_TYPES, is_list)] == outputs.split()
    assert node.DESCRIPTION


async def test_no_node_of_these_topics_is_left_out_of_the_table():
    for topic in {row[0] for row in ROWS} - {"latent", "rebatch"}:
        assert set(await nodes_of(topic)) == {row[1] for row in ROWS if row[0] == topic}
