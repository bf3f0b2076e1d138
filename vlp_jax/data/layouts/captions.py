"""Sets of images with several captions each: Karpathy's splits, COCO's captions, Flickr's tokens.

    karpathy:dataset_coco.json?split=train|restval&root=FOLDER
    coco_captions:captions_val2017.json?root=val2017
    flickr_token:Flickr8k.token.txt?root=Flicker8k_Dataset&images=Flickr_8k.testImages.txt

Karpathy (Karpathy and Fei-Fei 2015): {"images": [{"filepath", "filename", "split", "sentences":
[{"raw"}]}]}. COCO (Chen et al. 2015): {"images": [{"id", "file_name"}], "annotations":
[{"image_id", "caption"}]}. Token files (Hodosh et al. 2013, Young et al. 2014): lines
`IMAGE.jpg#0<tab>CAPTION`. A sample is an image with all its captions.
"""

import posixpath

from vlp_jax.data.layouts.documents import Entry, read_object
from vlp_jax.data.layouts.records import Notes, RecordSource, Rows, optional_file, split_layout
from vlp_jax.data.sources.class_files import lines_of
from vlp_jax.data.sources.filesystem import read_file
from vlp_jax.errors import DataError

EXPECTED = "an object with a list of images"


def open_karpathy(rest: str) -> RecordSource:
    """The images of FILE?split=...&root=...; without `split`, those of all splits.

    Metadata: `split`, and `imgid` and `cocoid` where they are there.

    Raises:
      DataError: for a wrong option or split, a missing file, or another format.
    """
    spec, path, options = split_layout(rest, "karpathy", ("split",))
    splits = options.get("split", ())

    def read(notes: Notes) -> Rows:
        images = list(read_object(path, EXPECTED).entries("images"))
        there = {image.get("split") for image in images}
        for split in splits:
            if split not in there:
                found = ", ".join(sorted(map(str, there)))
                raise DataError(f"{spec}: no split {split!r}; splits: {found}")
        for image in images:
            if splits and image.get("split") not in splits:
                continue
            name = posixpath.join(image.get("filepath") or "", image.text("filename"))
            captions = [sentence.text("raw") for sentence in image.entries("sentences")]
            kept = image.some("split", "imgid", "cocoid")
            yield name, {"image": name, "caption": captions, **kept}

    return RecordSource(path, (), spec, options, read)


def captions_by_image(document: Entry) -> dict[int | str, list[str]]:
    """The captions of every image of COCO's annotations, in their order."""
    captions: dict[int | str, list[str]] = {}
    for annotation in document.entries("annotations"):
        number = annotation.number_or_text("image_id")
        captions.setdefault(number, []).append(annotation.text("caption"))
    return captions


def open_coco_captions(rest: str) -> RecordSource:
    """The images of FILE?root=...; those without a caption are left out.

    Metadata: `image_id`.

    Raises:
      DataError: for a wrong option, a missing file, or another format.
    """
    spec, path, options = split_layout(rest, "coco_captions")

    def read(notes: Notes) -> Rows:
        document = read_object(path, EXPECTED)
        captions = captions_by_image(document)
        for image in document.entries("images"):
            number, name = image.number_or_text("id"), image.text("file_name")
            if number in captions:
                yield name, {"image": name, "caption": captions.pop(number), "image_id": number}
            else:
                notes.leave_out("images without a caption")
        for number in captions:
            raise DataError(f"{path}: a caption is of image {number}, which images does not list")

    return RecordSource(path, (), spec, options, read)


def open_flickr_token(rest: str) -> RecordSource:
    """The images of FILE?root=...&images=..., the latter a file that names the images of a split.

    Raises:
      DataError: for a wrong option, a missing file, or a line of another form.
    """
    spec, path, options = split_layout(rest, "flickr_token", ("images",))
    listed = optional_file(path, options, "images", spec)

    def read(notes: Notes) -> Rows:
        captions: dict[str, list[str]] = {}
        for number, line in enumerate(lines_of(read_file(path), path), 1):
            name, mark, caption = line.partition("\t")
            image, hash_mark, _ = name.rpartition("#")
            if line.strip() and not (mark and hash_mark):
                raise DataError(
                    f"{path}:{number}: {line[:60]!r} is not IMAGE#NUMBER<tab>CAPTION; tables with "
                    "a header are read as csv:"
                )
            if line.strip():
                captions.setdefault(image, []).append(caption)
        names = lines_of(read_file(listed), listed) if listed else list(captions)
        for name in filter(None, map(str.strip, names)):
            if name not in captions:
                raise DataError(f"{spec}: {listed} names {name}, which has no caption in {path}")
            yield name, {"image": name, "caption": captions[name]}

    return RecordSource(path, [listed] if listed else [], spec, options, read)
