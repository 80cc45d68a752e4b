"""What all algorithms have in common: parameters become options of a geopsp command, which is run and followed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections import deque
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from typing import Any, ClassVar

from processing.core.ProcessingConfig import ProcessingConfig
from qgis.core import (
    NULL,
    QgsMapLayer,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterString,
)
from qgis.PyQt.QtGui import QIcon

from .layers import VECTOR_FORMATS, raster_source, vector_source, with_layer
from .program import Program, ProgramError, command_line, find_program, split_options
from .run import CommandError, Message, Step, run

ADVANCED = QgsProcessingParameterDefinition.FlagAdvanced
EXTRA = "EXTRA"
PROGRAM_SETTING = "GEOPSP_PROGRAM"
ICON = str(Path(__file__).with_name("icon.svg"))
OPTION = re.compile(r"--[a-z][a-z-]*[a-z]")


def plugin_version() -> str:
    """Return the version of the plugin, which is that of the geopsp it was made for."""
    metadata = ConfigParser(interpolation=None)
    metadata.read(Path(__file__).with_name("metadata.txt"), encoding="utf-8")
    return metadata["general"]["version"]


class LoadStyle(QgsProcessingLayerPostProcessorInterface):
    """Gives layers that are added to the project the style that geopsp wrote; Processing itself ignores it."""

    def postProcessLayer(  # noqa: N802
        self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> None:
        layer.loadDefaultStyle()


KEPT: deque[LoadStyle] = deque(maxlen=100)
"""Those of the last layers: QGIS deletes each with its run, but does not keep Python from doing so before."""


class GeopspAlgorithm(QgsProcessingAlgorithm):
    """A command of geopsp as an algorithm; the names of its methods are QGIS's."""

    command: ClassVar[str]
    """Its name in the shell, and of the algorithm."""

    title: ClassVar[str]
    help_text: ClassVar[str]
    options: ClassVar[dict[str, str]]
    """Names of the command's options by those of the parameters, inputs and outputs alike."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.results: dict[str, Any] = {}
        self.program: Program | None = None

    def createInstance(self) -> GeopspAlgorithm:  # noqa: N802
        return type(self)()

    def name(self) -> str:
        return self.command

    def displayName(self) -> str:  # noqa: N802
        return self.title

    def shortHelpString(self) -> str:  # noqa: N802
        return self.help_text

    def icon(self) -> QIcon:
        return QIcon(ICON)

    def svgIconPath(self) -> str:  # noqa: N802
        return ICON

    def canExecute(self) -> tuple[bool, str]:  # noqa: N802
        try:
            _program()
        except ProgramError as error:
            return False, str(error)
        return True, ""

    def add(self, parameter: QgsProcessingParameterDefinition, text: str, *, advanced: bool = False) -> None:
        """Add a parameter with the text that is shown when the mouse is over it."""
        parameter.setHelp(text)
        if advanced:
            parameter.setFlags(parameter.flags() | ADVANCED)
        self.addParameter(parameter)

    def add_extra(self, example: str) -> None:
        """Add the parameter for all other options of the command."""
        text = f"Options as in a shell, e.g. {example}. `geopsp {self.command} --help-all` lists them all."
        self.add(QgsProcessingParameterString(EXTRA, "Further options", optional=True), text, advanced=True)

    def arguments(self, parameters: dict[str, Any], context: QgsProcessingContext) -> tuple[str, ...]:
        """Return what follows the options of the command."""
        raise NotImplementedError

    def more_options(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, str | bool]:
        """Return options that are not made of one parameter each."""
        return {}

    def prepareAlgorithm(  # noqa: N802
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        """Make the command's words, in the main thread, to which layers belong."""
        try:
            self.program = _program()
            extra = split_options(self.parameterAsString(parameters, EXTRA, context))
        except ProgramError as error:
            raise QgsProcessingException(str(error)) from error
        options: dict[str, str | bool] = {"overwrite": True}  # QGIS itself asks before it replaces a file
        for name, option in self.options.items():
            options[option] = self._value(name, parameters, context, feedback)
        options |= self.more_options(parameters, context)
        arguments = self.arguments(parameters, context)
        self.words = command_line(self.program, self.command, *arguments, options=options, extra=extra)
        return True

    def _value(
        self, name: str, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> str | bool:
        """Return the value of an option; "" if the parameter is not given."""
        definition = self.parameterDefinition(name)
        if definition.isDestination():
            return self._output(name, parameters, context)
        if parameters.get(name, definition.defaultValue()) in (None, NULL, ""):
            return ""
        kind, given = definition.type(), (parameters, name, context)
        if kind == "source":
            return with_layer(
                *self.parameterAsCompatibleSourceLayerPathAndLayerName(*given, VECTOR_FORMATS, "gpkg", feedback)
            )
        readers: dict[str, Callable[..., Any]] = {
            "boolean": self.parameterAsBool, "enum": self.parameterAsEnumString, "raster": self.raster,
            "number": lambda *each: f"{self.parameterAsDouble(*each):.15g}",
        }  # fmt: skip
        value: str | bool = readers.get(kind, self.parameterAsString)(*given)
        return value

    def _output(self, name: str, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        """Return the path of an output, which is kept among the results; "" if it is not asked for."""
        is_layer = self.parameterDefinition(name).type() in {"rasterDestination", "vectorDestination"}
        path = (self.parameterAsOutputLayer if is_layer else self.parameterAsFileOutput)(parameters, name, context)
        if path:
            self.results[name] = path
        return path or ""

    def raster(self, parameters: dict[str, Any], name: str, context: QgsProcessingContext) -> str:
        """Return the file of a raster parameter."""
        layer = self.parameterAsRasterLayer(parameters, name, context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, name))
        return raster_source(layer)

    def vector(self, parameters: dict[str, Any], name: str, context: QgsProcessingContext) -> str:
        """Return the file and layer of a vector parameter, as it is saved."""
        layer = self.parameterAsVectorLayer(parameters, name, context)
        if layer is None:
            raise QgsProcessingException(self.invalidSourceError(parameters, name))
        return vector_source(layer)

    def processAlgorithm(  # noqa: N802
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Run the command, and return its outputs."""
        assert self.program is not None
        environment = self.program.environment(os.environ)
        _warn_of_another_version(self.program, environment, feedback)
        feedback.pushCommandInfo(subprocess.list2cmdline(self.words) if os.name == "nt" else shlex.join(self.words))
        show = _Followed(feedback, self.in_words_of_dialog)
        try:
            run(self.words, environment, on_line=show, is_cancelled=feedback.isCanceled)
        except CommandError as error:
            raise QgsProcessingException(self.in_words_of_dialog(str(error))) from error
        if feedback.isCanceled():
            context.setLayersToLoadOnCompletion({})
            return {}
        for path in self.results.values():
            if context.willLoadLayerOnCompletion(path):
                KEPT.append(LoadStyle())
                context.layerToLoadOnCompletionDetails(path).setPostProcessor(KEPT[-1])
        return self.results

    def in_words_of_dialog(self, text: str) -> str:
        """Return a message of geopsp with the names of parameters in place of options."""
        titles = {f"--{option}": self.parameterDefinition(name).description() for name, option in self.options.items()}
        return OPTION.sub(lambda found: f"'{titles[found[0]]}'" if found[0] in titles else found[0], text)


class _Followed:
    """Shows steps as progress, and messages in the log."""

    def __init__(self, feedback: QgsProcessingFeedback, translate: Callable[[str], str]) -> None:
        self.feedback, self.translate = feedback, translate
        self.title = ""

    def __call__(self, line: Step | Message) -> None:
        if isinstance(line, Step):
            if line.title != self.title:
                self.title = line.title
                self.feedback.setProgressText(line.title)
            self.feedback.setProgress(100 * line.progress)
        elif line.kind == "warning":
            self.feedback.pushWarning(self.translate(line.text))
        else:
            self.feedback.pushConsoleInfo(self.translate(line.text))


def _program() -> Program:
    return find_program(str(ProcessingConfig.getSetting(PROGRAM_SETTING) or ""))


def _warn_of_another_version(program: Program, environment: dict[str, str], feedback: QgsProcessingFeedback) -> None:
    """Warn if the geopsp that is installed is not the one that the plugin was made for."""
    found: list[str] = []
    try:
        run(
            [*program.words, "--version"], environment,
            on_line=lambda line: found.append(line.text) if isinstance(line, Message) else None,
            is_cancelled=feedback.isCanceled,
        )  # fmt: skip
    except CommandError as error:
        raise QgsProcessingException(f"{program.words[0]} does not run: {error}") from error
    version = found[-1].rpartition(" ")[2] if found else "unknown"
    if version != plugin_version():
        feedback.pushWarning(
            f"geopsp {version} is installed, but this plugin was made for {plugin_version()}. Install both in the same "
            "version if an option is refused."
        )
