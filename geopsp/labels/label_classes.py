"""Classes of label rasters: from the values found to class codes, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from geopsp.core.legend import BACKGROUND, IGNORE_INDEX, Legend
from geopsp.errors import LabelError
from geopsp.labels.class_mapping import OTHERS, ClassTarget, Value, mapping_identity, normalize_value
from geopsp.labels.class_table import Background, ClassTable, class_table
from geopsp.labels.label_file import LabelFile, LabelNodata, ValueCounts
from geopsp.labels.mask_classes import MaskClasses

FOREGROUND = "foreground"
"""The class of the value 255 in masks of 0 and 255."""

MOST = 0.5
"""Share of the pixels from which on it is said that they are unlabelled."""

MAX_LOSSY_VALUES = 16
"""Values of a JPEG mask from which on they are not those that were drawn."""

MAX_LISTED = 6
"""Colours or values that a message lists."""


@dataclass(frozen=True, slots=True)
class RasterRules:
    """How values of label rasters become classes: the options that the user gave."""

    background: Background = "class"
    mapping: Mapping[Value, ClassTarget] = field(default_factory=dict)
    nodata: LabelNodata = None
    classes: MaskClasses | None = None

    def identity(self) -> list[str]:
        """Return what identifies the class mapping and the table of mask classes, for the key of an export."""
        return [*mapping_identity(self.mapping), *(self.classes.identity() if self.classes else ())]


@dataclass(frozen=True, slots=True)
class LabelClasses:
    """The classes of label rasters."""

    table: ClassTable
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def label_classes(
    files: Sequence[LabelFile], counts: ValueCounts, rules: RasterRules, source: str, known: Legend | None
) -> LabelClasses:
    """Make the class table of the values of label rasters.

    Args:
        files: The rasters, all of codes or all of colours.
        counts: Their values.
        rules: The options.
        source: The words that name them.
        known: Names and colours of the classes by value, if the files have them.

    Raises:
        LabelError: if there are values that are neither class codes nor mapped, or no class is left.
    """
    warnings = [*_lossy(files), *_nodata_warnings(files, counts, rules, source)]
    if rules.classes is not None:
        table, more = _by_mask_classes(files, counts, rules, rules.classes, source)
        return LabelClasses(table, table.notes, (*warnings, *more))
    _require_lossless(files, counts, rules)
    if not files[0].has_colors:
        found = _by_codes(files, dict(counts.pixels), counts, rules, source, known)
        return LabelClasses(found.table, found.notes, (*warnings, *found.warnings))
    _require_grey(counts, source)
    grey = {value & 255: count for value, count in counts.pixels.items()}
    found = _by_codes(files, grey, counts, rules, source, None)
    codes: dict[Value, int] = {
        value * 0x010101: code for value, code in found.table.codes.items() if isinstance(value, int)
    }
    note = f"{source} has red, green and blue, which are equal: they are taken as one band of class codes"
    table = ClassTable(found.table.legend, codes, found.table.notes)
    return LabelClasses(table, (*found.notes, note), (*warnings, *found.warnings))


def mask_targets(files: Sequence[LabelFile], rules: RasterRules, classes: MaskClasses, source: str) -> dict[
    Value, ClassTarget
]:  # fmt: skip
    """Return the class of each value, or colour, that a table of mask classes names.

    Raises:
        LabelError: if the table has codes for masks of colours, or colours for masks of codes.
    """
    by_color = files[0].has_colors
    targets = classes.targets(rules.mapping, by_color=by_color)
    if not targets:
        has, lacks = ("colours", "color") if by_color else ("one band of codes and no palette", "code")
        raise LabelError(
            f"{source} has {has}, but {classes.source} gives no {lacks} to any class. Add a column `{lacks}` to it."
        )
    if rules.background == "ignore":
        targets |= {value: ClassTarget(None) for value, target in targets.items() if target.name == BACKGROUND}
    return targets


def _by_mask_classes(
    files: Sequence[LabelFile], counts: ValueCounts, rules: RasterRules, classes: MaskClasses, source: str
) -> tuple[ClassTable, list[str]]:
    targets = mask_targets(files, rules, classes, source)
    show = _hex if files[0].has_colors else str
    unknown = {value: count for value, count in counts.pixels.items() if value not in targets}
    if len(unknown) == len(counts.pixels):
        raise LabelError(
            f"No pixel of {source} has a class of {classes.source}. Found: {_listed(unknown, counts, show)}. Correct "
            "the table, or name the right one."
        )
    table = class_table(targets, classes.source, background="ignore", mapping=targets)
    num_unknown = counts.num_valid - sum(counts.pixels[int(value)] for value in targets if isinstance(value, int))
    if not num_unknown:
        return table, []
    kind = "colours" if files[0].has_colors else "values"
    warning = (
        f"{num_unknown:,} pixels ({num_unknown / counts.num_pixels:.2%}) of {source} have {kind} that "
        f"{classes.source} does not name: they are unlabelled. The most frequent: {_listed(unknown, counts, show)}."
    )
    return table, [warning]


def _by_codes(
    files: Sequence[LabelFile], pixels: Mapping[int, int], counts: ValueCounts, rules: RasterRules, source: str,
    known: Legend | None,
) -> LabelClasses:  # fmt: skip
    """Make the class table of class codes; 255 is a class if it is mapped, all but 0, or another value is nodata."""
    mapped = _numbers(rules.mapping)
    values, mapping, warnings = set(pixels), dict(rules.mapping), []
    is_wide = files[0].dtype != "uint8" and any(value > IGNORE_INDEX for value in values)
    if IGNORE_INDEX in values and IGNORE_INDEX not in mapped and not is_wide:
        is_binary = values <= {0, IGNORE_INDEX} and rules.nodata is None and OTHERS not in mapping
        if is_binary or rules.nodata is not None:
            name = FOREGROUND if values <= {0, IGNORE_INDEX} else f"class {IGNORE_INDEX}"
            mapping = {**mapping, IGNORE_INDEX: mapping.get(OTHERS) or ClassTarget(name)}
            mapped = mapped | {IGNORE_INDEX}
        if is_binary:
            warnings.append(_binary_words(values, counts, source))
    unlabelled = {IGNORE_INDEX} if not is_wide else set()
    labelled = values - ((unlabelled | ({0} if rules.background == "ignore" else set())) - mapped)
    _require_codes(labelled, source, mapping)
    table = class_table(labelled, source, background="ignore", mapping=mapping, known=known)
    notes = list(table.notes)
    unnamed = sorted(labelled - {info.code for info in known} - mapped) if known else []
    if unnamed:
        notes.append(f"{source} contains {', '.join(map(str, unnamed))}, which its own class table does not name")
    if IGNORE_INDEX in values - labelled:
        warnings.append(
            f"{source} contains {IGNORE_INDEX}, which is not its nodata value: these pixels are unlabelled "
            f"({pixels[IGNORE_INDEX] / counts.num_pixels:.1%} of all). If {IGNORE_INDEX} is a class, use "
            "`label_nodata='none'`."
        )
    return LabelClasses(table, tuple(notes), tuple(warnings))


def _binary_words(values: Iterable[int], counts: ValueCounts, source: str) -> str:
    share = (counts.pixels[IGNORE_INDEX] or counts.pixels[0xFFFFFF]) / counts.num_pixels
    rest = "0 is the background, 255" if 0 in values else "255, the only value,"
    return (
        f"{source} is read as a mask: {rest} ({share:.1%} of the pixels) is the class {FOREGROUND!r}. For another "
        "name use `class_mapping`; if 255 means unlabelled, `label_nodata=255`."
    )


def _lossy(files: Sequence[LabelFile]) -> list[str]:
    lossy = [file.path for file in files if file.is_lossy]
    more = f" and {len(lossy) - 1} more" if len(lossy) > 1 else ""
    text = "JPEG, which changes values at the edges of classes. Use masks in a lossless format (PNG, TIFF)"
    return [f"{lossy[0]}{more}: the labels are {text}."] if lossy else []


def _require_lossless(files: Sequence[LabelFile], counts: ValueCounts, rules: RasterRules) -> None:
    """Check that the values are not those that JPEG makes of a few codes.

    Raises:
        LabelError: if they are.
    """
    lossy = next((file.path for file in files if file.is_lossy), None)
    if lossy and not rules.mapping and len(counts.pixels) > MAX_LOSSY_VALUES:
        raise LabelError(
            f"{lossy} is JPEG, which changes values, and has {len(counts.pixels)} of them: these are no class codes. "
            "Make masks in a lossless format (PNG, TIFF), or say with `class_mapping` what each value is."
        )


def _nodata_warnings(files: Sequence[LabelFile], counts: ValueCounts, rules: RasterRules, source: str) -> list[str]:
    """Warn if most pixels, all but one class, or the value 0 are nodata."""
    share = counts.share()
    if isinstance(rules.nodata, float) and not share:
        return [f"No pixel of {source} has the value {rules.nodata:g}, which `label_nodata` names."]
    nodatas = sorted({f"{file.nodata:g}" for file in files if file.nodata is not None})
    if rules.nodata is not None or not share or (share < MOST and len(counts.pixels) > 1 and "0" not in nodatas):
        return []
    if not nodatas:
        return [f"{share:.1%} of the pixels of {source} are hidden by its mask or alpha band: they are unlabelled."]
    warning = (
        f"{share:.1%} of the pixels of {source} have its nodata value ({', '.join(nodatas)}): they are unlabelled. If "
        "that value is a class, such as the background, use `label_nodata='none'`."
    )
    return [warning]


def _require_grey(counts: ValueCounts, source: str) -> None:
    """Check that red, green and blue are equal in all pixels.

    Raises:
        LabelError: if they are not: the colours need a table.
    """
    if all(value % 0x010101 == 0 for value in counts.pixels):
        return
    raise LabelError(
        f"{source} has red, green and blue, so its classes are colours: {_listed(counts.pixels, counts, _hex)}. Name "
        "them with `mask_classes`, a CSV file with the header name,r,g,b."
    )


def _listed(values: Mapping[int, int], counts: ValueCounts, show: object) -> str:
    """List the most frequent values with their shares."""
    assert callable(show)
    ordered = sorted(values, key=lambda value: (-values[value], value))
    more = f" and {len(ordered) - MAX_LISTED:,} more" if len(ordered) > MAX_LISTED else ""
    return ", ".join(f"{show(v)} ({values[v] / counts.num_pixels:.2%})" for v in ordered[:MAX_LISTED]) + more


def _hex(color: int) -> str:
    return f"#{color:06x}"


def _numbers(mapping: Mapping[Value, ClassTarget]) -> set[Value | None]:
    """Return the keys of a mapping that are whole numbers, also as text."""
    return {normalize_value(float(key)) if isinstance(key, str) and key.isdigit() else key for key in mapping}


def _require_codes(values: Iterable[int], source: str, mapping: Mapping[Value, ClassTarget]) -> None:
    values = set(values)
    if not values:
        raise LabelError(
            f"{source} has no labelled pixel, but must contain codes from 0 to {IGNORE_INDEX - 1}. If its nodata value "
            "or 255 is a class, use `label_nodata='none'`."
        )
    wrong = sorted(value for value in values if not 0 <= value < IGNORE_INDEX and value not in _numbers(mapping))
    if wrong and OTHERS not in mapping:
        listed = ", ".join(map(str, wrong[:9])) + ", ..." * (len(wrong) > 9)
        raise LabelError(
            f"{source} contains {listed}, but class codes are whole numbers from 0 to {IGNORE_INDEX - 1}. "
            "Map other values to classes with `class_mapping`, or name the value of unlabelled pixels with "
            "`label_nodata`."
        )
